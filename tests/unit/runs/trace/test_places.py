"""Whose file is it?"""

from __future__ import annotations

import pytest

from lichen.runs.trace.places import Places, normalise


@pytest.fixture
def places() -> Places:
    found = Places(
        "/opt/conda/jobs/project",
        ["/opt/conda/jobs/project/.cache/lichen"],
        {"HOME": "/home/ann", "TMPDIR": "/scratch/tmp"},
    )
    found.add_interpreter(
        ("/opt/conda", "/usr"),
        "/opt/conda/lib/python3.12/",
        [
            "/opt/conda/lib/python3.12/site-packages",
            "/home/ann/.local/lib/python3.12/site-packages",
            "/home/ann/vendor/site-packages",
        ],
    )
    return found


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/opt/conda/jobs/project/train.py", "project"),
        ("/opt/conda/jobs/project/.lichen/ledger.sqlite", "own"),
        ("/opt/conda/jobs/project/.cache/lichen/x", "own"),
        ("/opt/conda/jobs/project/pkg/__pycache__/a.pyc", "bytecode"),
        ("/opt/conda/lib/python3.12/json/__init__.py", "interpreter"),
        ("/opt/conda/lib/python3.12/site-packages/numpy/__init__.py", "site"),
        ("/home/ann/.local/lib/python3.12/site-packages/x.py", "site"),
        ("/home/ann/vendor/site-packages/x.py", "other"),
        ("/opt/conda/data/set.csv", "other"),
        ("/usr/lib/x86_64-linux-gnu/libc.so.6", "system"),
        ("/usr/local/share/data.csv", "other"),
        ("/usr/local/bin/own-tool", "other"),
        ("/usr/local/lib/libown.so", "other"),
        ("/usr/share/own-data/set.csv", "other"),
        ("/usr/share/zoneinfo/Europe/Oslo", "system"),
        ("/etc/passwd", "system"),
        ("/etc/ssl/certs/ca.pem", "system"),
        ("/etc/model/settings.yaml", "other"),
        ("/run/media/ann/stick/data.csv", "other"),
        ("/var/data/x", "other"),
        ("/dev/shm/sem.mp-1", "temporary"),
        ("/dev/null", "device"),
        ("/proc/cpuinfo", "device"),
        ("/scratch/tmp/x", "temporary"),
        ("/tmp/x", "temporary"),
        ("/home/ann/.config/lichen/keys/default.key", "own"),
        ("/home/ann/.cache/matplotlib/fontlist-v390.json", "cache"),
        ("/home/ann/.cache/huggingface/hub/model.bin", "other"),
    ],
)
def test_places(places: Places, path: str, place: str) -> None:
    found = places.of(path)
    if place == "cache":
        assert not places.is_ours(path)
    else:
        assert found == place
        assert places.is_ours(path) == (place in ("project", "other", "temporary"))


def test_a_virtual_environment_in_the_project_is_not_the_project() -> None:
    places = Places("/p", [], {})
    places.add_interpreter(
        ("/p/.venv", "/usr"), "/usr/lib/python3.11", ["/p/.venv/lib/python3.11/site-packages"]
    )
    assert places.of("/p/.venv/lib/python3.11/site-packages/a.py") == "site"
    assert places.of("/p/.venv/pyvenv.cfg") == "interpreter"
    assert places.of("/p/a.py") == "project"


def test_bytecode_kept_apart(places: Places) -> None:
    places.add_bytecode_tree("/home/ann/bytecode")
    assert places.of("/home/ann/bytecode/opt/conda/jobs/project/a.cpython-312.pyc") == "bytecode"


@pytest.mark.parametrize(
    ("path", "tidy"),
    [
        ("/a/b", "/a/b"),
        ("/a//b", "/a/b"),
        ("/a/./b/", "/a/b"),
        ("//a", "/a"),
        ("/a/.hidden", "/a/.hidden"),
        ("/a/.", "/a"),
        ("/", "/"),
    ],
)
def test_normalise(path: str, tidy: str) -> None:
    assert normalise(path) == tidy


def test_an_interpreter_in_usr_local_owns_its_own_files_there() -> None:
    found = Places("/srv/project", (), {"HOME": "/home/ann"})
    found.add_interpreter(
        ("/usr/local", "/usr/local"),
        "/usr/local/lib/python3.12",
        [
            "/usr/local/lib/python312.zip",
            "/usr/local/lib/python3.12",
            "/usr/local/lib/python3.12/site-packages",
        ],
    )
    expected = {
        "/usr/local/bin/python3.12": "interpreter",
        "/usr/local/lib/libpython3.12.so.1.0": "interpreter",
        "/usr/local/lib/python312.zip": "interpreter",
        "/usr/local/lib/python3.12/json/__init__.py": "interpreter",
        "/usr/local/lib/python3.12/site-packages/numpy/__init__.py": "site",
        "/usr/local/bin/python-tool": "other",
        "/usr/local/lib/own.py": "other",
    }
    assert {path: found.of(path) for path in expected} == expected
    assert not found.is_ours("/usr/local/bin/python3.12")
    assert found.is_ours("/usr/local/bin/python-tool")
