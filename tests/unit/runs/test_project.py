"""Projects and the names of their paths; where a ledger is looked for."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.errors import NotALedgerError, UsageError
from lichen.runs.workspace.config import ProjectConfig, UserConfig
from lichen.runs.workspace.project import Project, invisible, locate_ledger, visible


@given(st.binary(max_size=40).filter(lambda raw: b"\0" not in raw))
def test_every_file_name_survives_being_made_visible(raw: bytes) -> None:
    path = os.fsdecode(raw)
    shown = visible(path)
    shown.encode("utf-8")
    assert invisible(shown) == path


def test_nearest_sign_upward_makes_the_project(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert Project.find(deep).root == tmp_path
    (tmp_path / "a" / "lichen.toml").touch()
    assert Project.find(deep).root == tmp_path / "a"


def test_names_inside_are_relative_and_outside_absolute(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert project.name_of(f"{tmp_path}/x/y.csv") == "{project}/x/y.csv"
    assert project.name_of("/data/y.csv") == "/data/y.csv"
    assert project.name_of(str(tmp_path)) == "{project}"
    for path in (f"{tmp_path}/x", "/data/y", str(tmp_path)):
        assert project.path_of(project.name_of(path)) == path


def test_sibling_with_the_same_beginning_is_outside(tmp_path: Path) -> None:
    project = Project(tmp_path / "proj")
    assert not project.contains(str(tmp_path / "project2" / "file"))


def test_ignore_file_and_config_add_up(tmp_path: Path) -> None:
    (tmp_path / ".lichenignore").write_text("*.log\n")
    (tmp_path / "lichen.toml").write_text('ignore = ["scratch/"]\n')
    project = Project.find(tmp_path, extra_ignore=("*.tmp",))
    ignored = [
        name
        for name in ("a.log", "scratch/x", "b.tmp", "__pycache__/m.pyc", "a.csv")
        if project.is_ignored(f"{tmp_path}/{name}")
    ]
    assert ignored == ["a.log", "scratch/x", "b.tmp", "__pycache__/m.pyc"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data = 3", "list of strings"),
        ("colour = 1", "unknown key"),
        ("data = [", "not valid TOML"),
        ("ledger = true", "string"),
    ],
)
def test_bad_project_file_is_named_with_its_key(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "lichen.toml").write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        ProjectConfig.read(tmp_path)
    assert "lichen.toml" in str(caught.value)


def test_settings_survive_being_written(tmp_path: Path) -> None:
    config = UserConfig.read(tmp_path)
    config.set_text("reuse.trust", "ada, 'bob'\"")
    config.set_text("reuse.agree", "2")
    config.set_text("identity.member", 'quote" and \\ and é')
    config.write()
    again = UserConfig.read(tmp_path)
    assert again.values == config.values
    assert again.get_list("reuse.trust") == ("ada", "'bob'\"")


def test_unknown_setting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown setting"):
        UserConfig.read(tmp_path).set_text("reuse.thrust", "x")
    with pytest.raises(UsageError, match="whole number"):
        UserConfig.read(tmp_path).set_text("reuse.agree", "many")


def test_no_ledger_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LICHEN_LEDGER", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotALedgerError, match="lichen init"):
        locate_ledger(None, Project(tmp_path), UserConfig(tmp_path / "config.toml"))


def test_ledger_may_be_named_by_its_project_directory_or_file(tmp_path: Path) -> None:
    ledger = tmp_path / ".lichen"
    ledger.mkdir()
    (ledger / "ledger.sqlite").touch()
    user = UserConfig(tmp_path / "config.toml")
    for named in (tmp_path, ledger, ledger / "ledger.sqlite"):
        assert locate_ledger(str(named), Project(tmp_path), user) == ledger
