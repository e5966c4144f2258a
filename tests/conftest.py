"""What every test gets: its own Lichen home, no network, and Hypothesis settings that fit the machine.

Rules upheld here:

* No test sees the developer's keys, ledgers or configuration: every test has a fresh ``LICHEN_HOME``, and the
  variables by which a surrounding run or a job scheduler would change what Lichen does are taken away.
* What is compiled once per user is compiled once per session here, in a cache that all workers share.
* A test meets the same signals however the suite was started: what the surroundings ignore (`nohup`, a job in the
  background) is received here and dropped, so that this process stays as it is and its children have the defaults.
* No test reaches the network: connecting or resolving beyond this machine raises inside the test process.
* Property tests have no deadline, because a busy machine is not a bug. ``HYPOTHESIS_PROFILE=ci`` tries more
  examples and always the same ones; the default ``dev`` tries fewer and new ones each time.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("dev", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "ci",
    deadline=None,
    max_examples=150,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

IGNORED_BY_PYTHON = frozenset({signal.SIGPIPE, signal.SIGXFSZ})

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost", "", "0.0.0.0", "::"})

# A launcher's variables make Lichen join a distributed run, and its own make it join a surrounding one.
FOREIGN_VARIABLES = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_RUN_ID",
    "PMI_RANK",
    "PMIX_RANK",
)
FOREIGN_PREFIXES = ("LICHEN_", "OMPI_", "SLURM_")


class NetworkUsedError(RuntimeError):
    """A test tried to leave the machine."""


def _refuse_network(event: str, arguments: tuple[object, ...]) -> None:
    """Raise when the test process connects to, or looks up, anything but this machine."""
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else ""
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host is not None and host not in LOOPBACK_HOSTS:
        raise NetworkUsedError(f"tests run without a network, but this one asked for {host!r}")


sys.addaudithook(_refuse_network)


def _drop(_number: int, _frame: object) -> None:
    """Receive a signal and do nothing; unlike an ignored signal, a received one is not inherited through exec."""


for _number in signal.valid_signals() - IGNORED_BY_PYTHON:
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _drop)


@pytest.fixture(scope="session")
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that stands in for the user's, the same for all workers of a session."""
    session = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session = session.parent  # a worker's own folder lies in the session's
    cache = session / "user-cache"
    cache.mkdir(exist_ok=True)
    return cache


@pytest.fixture(autouse=True)
def lichen_home(
    tmp_path_factory: pytest.TempPathFactory, user_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A fresh home for keys, configuration and high-water marks; the developer's own stays out of reach."""
    home = tmp_path_factory.mktemp("lichen-home")
    for name in list(os.environ):
        if name in FOREIGN_VARIABLES or (name.startswith(FOREIGN_PREFIXES) and name != "LICHEN_DATA"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LICHEN_HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "xdg-config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(user_cache))
    return home


@pytest.fixture(scope="session")
def data_directory() -> Path:
    """The folder of large public data sets that ``LICHEN_DATA`` names; tests that need it skip without it."""
    named = os.environ.get("LICHEN_DATA")
    if not named:
        pytest.skip("LICHEN_DATA is not set; it names the folder with the public data sets")
    folder = Path(named)
    if not folder.is_dir():
        pytest.skip(f"LICHEN_DATA names {folder}, which is not a folder")
    return folder
