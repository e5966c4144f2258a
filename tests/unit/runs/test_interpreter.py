"""What an interpreter says of itself, and which versions of distributions stand where it looks."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from lichen.runs.work.interpreter import distribution_versions, probe_interpreter


@pytest.fixture
def plain_python(tmp_path: Path) -> str:
    """An interpreter that is not the tests' own and reads the user's packages."""
    base = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    if not base.exists():
        pytest.skip("the interpreter behind this one is not where it usually is")
    return str(base)


def install(directory: Path, name: str, version: str) -> None:
    (directory / f"{name}-{version}.dist-info").mkdir(parents=True)


def user_site(python: str) -> Path:
    asked = subprocess.run(
        [python, "-c", "import site; print(site.getusersitepackages())"],
        capture_output=True,
        text=True,
        check=True,
    )
    return Path(asked.stdout.strip())


def test_the_users_own_packages_count(
    plain_python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUSERBASE", str(tmp_path / "user"))
    monkeypatch.delenv("PYTHONNOUSERSITE", raising=False)
    cache = tmp_path / "cache"
    before = probe_interpreter(plain_python, cache)
    assert before is not None
    site = user_site(plain_python)
    assert str(site) in before.path, "packages may be installed there after the answer was kept"
    assert distribution_versions(["Some_Package"], before.path) == {"Some_Package": "-"}
    install(site, "some_package", "1.0")
    now = probe_interpreter(plain_python, cache)
    assert now is not None
    assert distribution_versions(["Some_Package"], now.path) == {"Some_Package": "1.0"}
    monkeypatch.setenv("PYTHONNOUSERSITE", "1")
    without = probe_interpreter(plain_python, cache)
    assert without is not None
    assert str(site) not in without.path


def test_a_folder_for_packages_made_later_is_looked_into(tmp_path: Path) -> None:
    venv.EnvBuilder(symlinks=True, with_pip=False).create(tmp_path / "env")
    python, cache = str(tmp_path / "env/bin/python"), tmp_path / "cache"
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    site.rmdir()
    before = probe_interpreter(python, cache)
    assert before is not None
    install(site, "some_package", "1.0")
    now = probe_interpreter(python, cache)
    assert now is not None
    assert distribution_versions(["some_package"], now.path) == {"some_package": "1.0"}
    assert str(site) in before.path


def test_a_path_file_made_later_is_obeyed(
    plain_python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUSERBASE", str(tmp_path / "user"))
    monkeypatch.delenv("PYTHONNOUSERSITE", raising=False)
    cache, more = tmp_path / "cache", tmp_path / "more"
    more.mkdir()
    site = user_site(plain_python)
    site.mkdir(parents=True)
    before = probe_interpreter(plain_python, cache)
    assert before is not None
    assert probe_interpreter(plain_python, cache) == before
    (site / "more.pth").write_text(f"{more}\n")
    now = probe_interpreter(plain_python, cache)
    assert now is not None
    assert str(more) not in before.path
    assert str(more) in now.path


def test_a_probe_is_not_misled_by_where_it_is_asked(
    plain_python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "platform", "site", "sysconfig"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the project was imported')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    told = probe_interpreter(plain_python)
    assert told is not None
    assert str(tmp_path) not in told.path
    assert told.implementation == sys.implementation.name


def test_start_up_files_may_print(plain_python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUSERBASE", str(tmp_path / "user"))
    site = user_site(plain_python)
    site.mkdir(parents=True)
    (site / "usercustomize.py").write_text("print('welcome')\n")
    told = probe_interpreter(plain_python)
    assert told is not None
    assert told.machine == os.uname().machine


def test_every_version_is_told_where_several_directories_hold_one(tmp_path: Path) -> None:
    install(tmp_path / "user", "numpy", "2.0")
    install(tmp_path / "site", "numpy", "1.26")
    install(tmp_path / "link", "numpy", "1.26")
    directories = [str(tmp_path / name) for name in ("user", "site", "link", "missing")]
    assert distribution_versions(["numpy", "torch"], directories) == {"numpy": "2.0, 1.26", "torch": "-"}


def test_what_is_no_interpreter_gives_no_answer(tmp_path: Path) -> None:
    assert probe_interpreter(str(tmp_path / "missing")) is None
    assert probe_interpreter("/bin/true") is None
