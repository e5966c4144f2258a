"""The environment is made once, and again when it no longer fits."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import environment
import pytest

ROOT = Path(__file__).resolve().parents[2]
FIND_PYTHON = ROOT / "tools" / "find-python"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty checkout with metadata, which the tool takes for its own."""
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n", encoding="utf-8")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "ENVIRONMENT", tmp_path / ".venv")
    monkeypatch.setattr(environment, "STAMP", tmp_path / ".venv" / "stamp.json")
    return tmp_path


def write_stamp(extras: list[str]) -> None:
    environment.ENVIRONMENT.mkdir(exist_ok=True)
    environment.STAMP.write_text(
        json.dumps({"key": environment.installation_key(), "extras": extras}), encoding="utf-8"
    )


def test_nothing_is_installed_without_a_stamp(checkout: Path) -> None:
    assert environment.installed_extras() == set()


def test_a_stamp_vouches_for_its_extras(checkout: Path) -> None:
    write_stamp(["demo", "dev"])
    assert environment.installed_extras() == {"demo", "dev"}


def test_a_stamp_ends_with_the_metadata_it_was_made_for(checkout: Path) -> None:
    write_stamp(["dev"])
    with (checkout / "pyproject.toml").open("a", encoding="utf-8") as metadata:
        metadata.write("version = '1'\n")
    assert environment.installed_extras() == set()


def test_a_stamp_does_not_move_with_the_checkout(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_stamp(["dev"])
    monkeypatch.setattr(environment, "ROOT", checkout.parent)
    assert environment.installed_extras() == set()


def test_a_torn_stamp_counts_for_nothing(checkout: Path) -> None:
    write_stamp(["dev"])
    environment.STAMP.write_text(environment.STAMP.read_text(encoding="utf-8")[:20], encoding="utf-8")
    assert environment.installed_extras() == set()


def test_a_folder_that_is_no_environment_is_left_alone(checkout: Path) -> None:
    environment.ENVIRONMENT.mkdir()
    precious = environment.ENVIRONMENT / "precious"
    precious.write_text("mine", encoding="utf-8")
    assert not environment.is_usable()
    with pytest.raises(environment.EnvironmentFailedError, match="not a virtual environment"):
        environment.make_environment()
    assert precious.read_text(encoding="utf-8") == "mine"


def fake_python(folder: Path, name: str, answer: str, status: int) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{answer}'\nexit {status}\n", encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def find_python(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    for tool in ("sh", "head"):
        (folder / tool).symlink_to(
            Path("/bin") / tool if (Path("/bin") / tool).exists() else Path("/usr/bin") / tool
        )
    return subprocess.run(
        [str(folder / "sh"), str(FIND_PYTHON)],
        env={"PATH": str(folder), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_python3_is_taken_when_it_will_do(tmp_path: Path) -> None:
    fake_python(tmp_path, "python3", "/somewhere/python3", 0)
    fake_python(tmp_path, "python3.13", "/somewhere/python3.13", 0)
    assert find_python(tmp_path).stdout == "/somewhere/python3\n"


def test_the_newest_other_python_is_taken_when_python3_is_old(tmp_path: Path) -> None:
    fake_python(tmp_path, "python3", "is Python 3.9, older than 3.11", 1)
    fake_python(tmp_path, "python3.11", "/somewhere/python3.11", 0)
    fake_python(tmp_path, "python3.12", "/somewhere/python3.12", 0)
    fake_python(tmp_path, "python3.13", "lacks the standard module ensurepip", 1)
    assert find_python(tmp_path).stdout == "/somewhere/python3.12\n"


def test_the_named_python_is_taken_or_refused(tmp_path: Path) -> None:
    fake_python(tmp_path, "python3", "/somewhere/python3", 0)
    fake_python(tmp_path, "mine", "is Python 3.8, older than 3.11", 1)
    answer = find_python(tmp_path, PYTHON="mine")
    assert answer.returncode == 1
    assert "mine: is Python 3.8, older than 3.11" in answer.stderr


def test_without_a_usable_python_the_reasons_and_a_remedy_are_given(tmp_path: Path) -> None:
    fake_python(tmp_path, "python3", "lacks the standard module ensurepip", 1)
    answer = find_python(tmp_path)
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert "python3: lacks the standard module ensurepip" in answer.stderr
    assert "apt install python3 python3-venv" in answer.stderr
