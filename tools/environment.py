"""Make `.venv` and keep it fitting: the project itself, editable, with the extras that were asked for.

Rules upheld here:

* Plain pip and the standard library only; nothing else need be installed before.
* Doing it twice costs nothing: a stamp in `.venv` says what was installed from which `pyproject.toml`. The stamp goes
  before pip starts and comes back after it succeeded, so an interrupted installation is done again.
* Extras add up: `demo` after `dev` installs nothing, `dev` after `demo` adds what is missing.
* An environment that cannot work (made elsewhere, its Python gone or too old) is made anew; a folder named `.venv`
  that is no virtual environment is left alone, with an error.

Usage: ``python tools/environment.py EXTRA…``, with ``PYTHON`` set when the reader chose an interpreter.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
STAMP = ENVIRONMENT / "lichen-environment.json"
PIP_LOG = ENVIRONMENT / "pip.log"
PYTHON_MINIMUM = (3, 11)
REPORT_SECONDS = 10  # between two lines of progress when the output is not a terminal
LOG_LINES_SHOWN = 25  # of pip's own output, when it fails

# What decides the content of the environment: metadata, and sources that the installation compiles.
DECIDING_FILES = ("pyproject.toml", "setup.py", "setup.cfg", "MANIFEST.in")


class EnvironmentFailedError(Exception):
    """The environment could not be made; the message says why and what to do."""


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"[setup] {text}", flush=True)


def environment_python() -> Path:
    """The interpreter inside `.venv`."""
    return ENVIRONMENT / "bin" / "python"


def installation_key() -> str:
    """Digest of everything that decides what an installation would give, the checkout's own place included."""
    digest = hashlib.sha256(str(ROOT).encode())
    compiled = sorted((ROOT / "src").rglob("*.c"))
    for path in [*(ROOT / name for name in DECIDING_FILES), *compiled]:
        if path.is_file():
            digest.update(b"\0" + str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def installed_extras() -> set[str]:
    """Extras that the stamp vouches for; empty when there is no stamp, or when it is for other metadata."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    if stamp.get("key") != installation_key():
        return set()
    return set(stamp.get("extras", []))


def python_version(python: Path) -> tuple[int, int] | None:
    """Major and minor version of an interpreter, or None when it does not start."""
    program = "import sys; print(*sys.version_info[:2])"
    try:
        answer = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    major, minor = answer.stdout.split()
    return int(major), int(minor)


def is_usable() -> bool:
    """Whether `.venv` holds a Python that starts, is the one asked for, has pip, and was made for this very folder."""
    version = python_version(environment_python())
    if version is None or version < PYTHON_MINIMUM:
        return False
    if os.environ.get("PYTHON") and version != sys.version_info[:2]:
        return False
    pip = ENVIRONMENT / "bin" / "pip"
    # Scripts carry the absolute path of their interpreter, so a copied environment points at the original.
    return pip.is_file() and str(ENVIRONMENT) in pip.read_text(encoding="utf-8", errors="replace")


def make_environment() -> None:
    """Create `.venv` with the running interpreter.

    Raises:
        EnvironmentFailedError: Something else lies there, or `venv` failed.
    """
    if ENVIRONMENT.exists():
        if ENVIRONMENT.is_symlink() or not (ENVIRONMENT / "pyvenv.cfg").is_file():
            raise EnvironmentFailedError(
                f"{ENVIRONMENT} exists and is not a virtual environment. Move it away and try again."
            )
        say(f"{ENVIRONMENT.name} does not work here any more; making it anew")
        shutil.rmtree(ENVIRONMENT)
    say(f"making {ENVIRONMENT.name} with Python {sys.version.split()[0]} ({sys.executable})")
    made = subprocess.run(
        [sys.executable, "-m", "venv", ENVIRONMENT],
        check=False,
        capture_output=True,
        text=True,
    )
    if made.returncode != 0:
        raise EnvironmentFailedError(f"making {ENVIRONMENT} failed:\n{(made.stdout + made.stderr).strip()}")


def installation_command(extras: Iterable[str]) -> list[str]:
    """The pip command line, as a reader could type it from the checkout."""
    return [
        str(environment_python()),
        *("-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"),
        *("--editable", f".[{','.join(sorted(extras))}]"),
    ]


class Progress:
    """What pip is doing, from the lines it writes: in place on a terminal, else a line every few seconds."""

    def __init__(self) -> None:
        self.package_count = 0
        self.is_installing = False
        self.shown_seconds = time.monotonic()

    def read(self, line: str) -> None:
        """Take one line of pip's and show where it stands, if it is time to."""
        step = line.strip()
        self.package_count += step.startswith(("Collecting ", "Processing "))
        starts_installing = step.startswith("Installing collected packages")
        self.is_installing |= starts_installing
        if sys.stdout.isatty():
            print(f"\r\033[K[setup] {self.package_count} packages: {step[:60]}", end="", flush=True)
        elif starts_installing or time.monotonic() - self.shown_seconds >= REPORT_SECONDS:
            doing = "installing" if self.is_installing else "collecting"
            say(f"{doing} ({self.package_count} packages)")
            self.shown_seconds = time.monotonic()

    def close(self) -> None:
        """Leave the terminal with an empty line."""
        if sys.stdout.isatty():
            print("\r\033[K", end="")


def install(extras: set[str]) -> None:
    """Install the project and its extras with pip, showing progress and keeping pip's own words in a log.

    Raises:
        EnvironmentFailedError: pip failed; the message ends with its last lines.
    """
    say(f"installing lichen with {', '.join(sorted(extras))} (a few minutes the first time; log: {PIP_LOG})")
    STAMP.unlink(missing_ok=True)
    started = time.monotonic()
    progress = Progress()
    with (
        PIP_LOG.open("w", encoding="utf-8") as log,
        subprocess.Popen(
            installation_command(extras),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as pip,
    ):
        assert pip.stdout is not None  # asked for above
        for line in pip.stdout:
            log.write(line)
            progress.read(line)
    progress.close()
    if pip.returncode != 0:
        last = PIP_LOG.read_text(encoding="utf-8").splitlines()[-LOG_LINES_SHOWN:]
        raise EnvironmentFailedError(
            "\n".join(last) + f"\npip failed (exit status {pip.returncode}); all it said is in {PIP_LOG}.\n"
            "Is a package registry in reach? Try again; what was downloaded is kept."
        )
    # pip compiles what it copies, but an editable project stays where it is: without this each start could compile anew.
    subprocess.run([environment_python(), "-m", "compileall", "-q", ROOT / "src"], check=False)
    stamp = {"key": installation_key(), "extras": sorted(extras)}
    unfinished = STAMP.with_suffix(".tmp")
    unfinished.write_text(json.dumps(stamp) + "\n", encoding="utf-8")
    unfinished.replace(STAMP)
    say(f"ready after {time.monotonic() - started:.0f} s")


def main() -> int:
    """Bring `.venv` up to what the command line asks for."""
    parser = argparse.ArgumentParser(description="Make .venv and install Lichen with the extras named.")
    parser.add_argument("extras", nargs="+", metavar="EXTRA", help="extras of pyproject.toml")
    arguments = parser.parse_args()
    usable = is_usable()
    present = installed_extras() if usable else set()
    missing = set(arguments.extras) - present
    if not missing:
        return 0
    try:
        if not usable:
            make_environment()
        install(present | missing)
    except EnvironmentFailedError as error:
        print(f"[setup] {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
