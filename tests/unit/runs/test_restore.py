"""Outputs are put back where they belong and nowhere else, whole, and nothing that is there is lost."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lichen.content.cid import Cid
from lichen.content.files import StatKey
from lichen.errors import EncodingError, LichenError, NotFoundError, UsageError, VerificationError
from lichen.runs.reuse.restore import plan_restore, restore
from lichen.runs.work.manifest import Manifest, Output

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.unit.runs.conftest import Clinic

WEIGHTS = b"weights"


def stored(clinic: Clinic, name: str, content: bytes = WEIGHTS, *, mode: int = 0o644) -> Output:
    """An output whose content the store holds."""
    kept = clinic.workspace().store.put_bytes(content)
    return Output(name, kept.sha256, str(kept.cid), kept.size_bytes, mode)


def manifest(*outputs: Output, **sections: object) -> Manifest:
    bare = Manifest(command=("python",), cwd="{project}", family=("python",), outputs=outputs)
    return replace(bare, **sections)  # type: ignore[arg-type]


def put_back(
    clinic: Clinic, told: Manifest, *, own: bool = True, declared: Iterable[str | Path] = ()
) -> tuple[str, ...]:
    workspace = clinic.workspace()
    return restore(
        workspace, plan_restore(workspace, told, own=own, declared=[str(path) for path in declared])
    )


def refused(
    clinic: Clinic, told: Manifest, match: str, *, own: bool = True, declared: Iterable[str | Path] = ()
) -> None:
    """Planning refuses, and has touched nothing."""
    before = sorted(path for path in clinic.root.rglob("*") if ".lichen" not in path.parts)
    with pytest.raises(LichenError, match=match) as caught:
        put_back(clinic, told, own=own, declared=declared)
    assert isinstance(caught.value, UsageError | EncodingError)
    assert caught.value.remedy or isinstance(caught.value, EncodingError)
    assert sorted(path for path in clinic.root.rglob("*") if ".lichen" not in path.parts) == before


def test_outputs_appear_with_content_and_mode_in_directories_made_for_them(clinic: Clinic) -> None:
    told = manifest(
        stored(clinic, "{project}/out/deep/model.bin", mode=0o750),
        stored(clinic, "{project}/empty.bin", b""),
        directories=("{project}/logs/today",),
    )
    written = put_back(clinic, told)
    assert written == (clinic.path("out/deep/model.bin"), clinic.path("empty.bin"))
    model = Path(clinic.path("out/deep/model.bin"))
    assert model.read_bytes() == WEIGHTS
    assert stat.S_IMODE(model.stat().st_mode) == 0o750
    assert Path(clinic.path("empty.bin")).read_bytes() == b""
    assert Path(clinic.path("logs/today")).is_dir()


def test_a_restored_file_is_no_link_into_the_store(clinic: Clinic) -> None:
    output = stored(clinic, "{project}/model.bin")
    put_back(clinic, manifest(output))
    model = Path(clinic.path("model.bin"))
    assert model.stat().st_nlink == 1
    model.write_bytes(b"edited")
    assert clinic.workspace().store.read_bytes(Cid.parse(output.cid)) == WEIGHTS


def test_a_mode_of_the_ledger_never_makes_a_file_run_as_its_owner(clinic: Clinic) -> None:
    put_back(clinic, manifest(stored(clinic, "{project}/tool", mode=0o6755)))
    assert stat.S_IMODE(Path(clinic.path("tool")).stat().st_mode) == 0o755


def test_what_is_there_already_is_left_alone(clinic: Clinic) -> None:
    model = clinic.write("model.bin", WEIGHTS)
    before = StatKey.of(model.stat())  # without the time of reading, which may change
    told = manifest(stored(clinic, "{project}/model.bin"))
    plan = plan_restore(clinic.workspace(), told, own=True, declared=())
    assert (plan.write, plan.replaced, [output.name for output in plan.present]) == (
        (),
        (),
        ["{project}/model.bin"],
    )
    assert restore(clinic.workspace(), plan) == ()
    assert StatKey.of(model.stat()) == before


def test_content_that_is_replaced_is_kept_in_the_store(clinic: Clinic) -> None:
    clinic.write("model.bin", b"precious")
    workspace = clinic.workspace()
    plan = plan_restore(workspace, manifest(stored(clinic, "{project}/model.bin")), own=True, declared=())
    told: list[tuple[str, str]] = []
    restore(workspace, plan, lambda path, cid: told.append((path, cid)))
    assert Path(clinic.path("model.bin")).read_bytes() == WEIGHTS
    ((path, cid),) = told
    assert path == clinic.path("model.bin")
    assert workspace.store.read_bytes(Cid.parse(cid)) == b"precious"


def test_outputs_that_the_store_lacks_are_named(clinic: Clinic) -> None:
    gone = stored(clinic, "{project}/gone.bin", b"gone")
    clinic.workspace().store.delete(Cid.parse(gone.cid))
    told = manifest(stored(clinic, "{project}/model.bin"), gone)
    plan = plan_restore(clinic.workspace(), told, own=True, declared=())
    assert [output.name for output in plan.missing] == ["{project}/gone.bin"]
    assert not Path(clinic.path("model.bin")).exists()


def test_content_that_vanishes_or_rots_meanwhile_is_never_put_down(clinic: Clinic) -> None:
    workspace = clinic.workspace()
    output = stored(clinic, "{project}/model.bin")
    plan = plan_restore(workspace, manifest(output), own=True, declared=())
    (place,) = (workspace.directory / "store").rglob(output.cid)
    place.chmod(0o600)
    place.write_bytes(b"weighty")
    with pytest.raises(VerificationError):
        restore(workspace, plan)
    assert not Path(clinic.path("model.bin")).exists()
    with pytest.raises(NotFoundError):
        restore(workspace, plan)


# inputs


@pytest.mark.parametrize("section", ["code", "data", "executables"])
def test_an_input_is_never_an_output(clinic: Clinic, section: str) -> None:
    clinic.write("state.bin", b"old")
    told = manifest(stored(clinic, "{project}/state.bin"), **{section: {"{project}/state.bin": "x"}})
    refused(clinic, told, "is an input of the run as well as an output")


@pytest.mark.parametrize("name", ["{project}/link/state.bin", "{project}/data/state.bin"])
def test_an_input_is_recognised_through_links(clinic: Clinic, name: str) -> None:
    clinic.write("data/state.bin", b"old")
    Path(clinic.path("link")).symlink_to("data")
    other = {"{project}/link/state.bin": "{project}/data/state.bin"}.get(name, "{project}/link/state.bin")
    told = manifest(stored(clinic, name), data={other: "x", "{project}/gone": "x", "{stdin}": "x"})
    refused(clinic, told, "is an input of the run as well as an output")
    assert clinic.root.joinpath("data/state.bin").read_bytes() == b"old"


# places


@pytest.mark.parametrize(
    "name",
    [
        "/etc/cron.d/lichen", "{project}/../outside.bin", "{project}/a/../../outside.bin", "../outside.bin", "outside.bin",
        "{project}", "{project}/", "", "{project}//model.bin", "{project}/./model.bin",
    ],
)  # fmt: skip
def test_nothing_leaves_the_project(clinic: Clinic, name: str, tmp_path: Path) -> None:
    refused(clinic, manifest(stored(clinic, name)), "would leave the project|no plain path")
    assert not (tmp_path / "outside.bin").exists()


@pytest.mark.parametrize("name", ["{project}/bad\0name", "{project}/100%", "{project}/%zz"])
def test_a_name_that_no_path_has_is_refused(clinic: Clinic, name: str) -> None:
    refused(clinic, manifest(stored(clinic, name)), "is the name of no path")


@pytest.mark.parametrize("name", ["{project}/../outside", "/outside-of-all", "{project}/way-out/deep"])
def test_no_directory_is_made_outside_the_project(clinic: Clinic, name: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    Path(clinic.path("way-out")).symlink_to(tmp_path / "elsewhere")
    refused(clinic, manifest(directories=(name,)), "would leave the project|no plain path")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert not (tmp_path / "outside").exists()


def test_nothing_leaves_through_a_link_unless_declared(clinic: Clinic, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Path(clinic.path("models")).symlink_to(elsewhere)
    told = manifest(stored(clinic, "{project}/models/model.bin"))
    refused(clinic, told, "would leave the project")
    assert list(elsewhere.iterdir()) == []
    put_back(clinic, told, declared=[clinic.path("models")])
    assert (elsewhere / "model.bin").read_bytes() == WEIGHTS


def test_a_link_that_stays_in_the_project_is_followed(clinic: Clinic) -> None:
    Path(clinic.path("v1")).mkdir()
    Path(clinic.path("latest")).symlink_to("v1")
    put_back(clinic, manifest(stored(clinic, "{project}/latest/model.bin")))
    assert Path(clinic.path("v1/model.bin")).read_bytes() == WEIGHTS
    assert Path(clinic.path("latest")).is_symlink()


def test_an_absolute_place_is_used_when_declared(clinic: Clinic, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere" / "deep" / "model.bin"
    told = manifest(stored(clinic, str(target)))
    refused(clinic, told, "would leave the project")
    put_back(clinic, told, declared=[tmp_path / "elsewhere"])
    assert target.read_bytes() == WEIGHTS
    refused(clinic, told, "would leave the project", declared=[tmp_path / "elsewhere" / "dee"])


@pytest.mark.parametrize(
    "name", [".git/hooks/post-commit", "sub/.git/config", ".hg/hgrc", ".lichen/log.key", ".lichen"]
)
@pytest.mark.parametrize("declared", [False, True])
def test_version_control_and_ledgers_are_out_of_reach(clinic: Clinic, name: str, declared: bool) -> None:
    """Whoever declares the whole project as output has not asked for a hook."""
    told = manifest(stored(clinic, f"{{project}}/{name}"))
    refused(
        clinic, told, "version control or to a ledger", own=not declared, declared=[clinic.root] * declared
    )


@pytest.mark.parametrize("kind", ["link", "directory", "pipe"])
def test_what_is_no_regular_file_is_not_replaced(clinic: Clinic, kind: str, tmp_path: Path) -> None:
    place = Path(clinic.path("model.bin"))
    outside = tmp_path / "target"
    outside.write_text("theirs")
    {"link": lambda: place.symlink_to(outside), "directory": place.mkdir, "pipe": lambda: os.mkfifo(place)}[
        kind
    ]()
    refused(clinic, manifest(stored(clinic, "{project}/model.bin")), "is not a regular file")
    assert outside.read_text() == "theirs"


def test_a_file_where_a_directory_belongs_is_named(clinic: Clinic) -> None:
    clinic.write("out", "a file")
    refused(clinic, manifest(stored(clinic, "{project}/out/model.bin")), "cannot be put at .*out/model.bin")
    refused(clinic, manifest(directories=("{project}/out",)), "is a file, where the run made a directory")


# others


def test_what_another_member_made_goes_to_declared_places_only(clinic: Clinic) -> None:
    told = manifest(
        stored(clinic, "{project}/model.bin"),
        stored(clinic, "{project}/metrics.json", b"{}"),
        directories=("{project}/made-by-them",),
    )
    refused(clinic, told, "made by another member", own=False)
    refused(clinic, told, "metrics.json, made by another", own=False, declared=[clinic.path("model.bin")])
    declared = [clinic.path("model.bin"), clinic.path("metrics.json")]
    assert len(put_back(clinic, told, own=False, declared=declared)) == 2
    assert not Path(clinic.path("made-by-them")).exists()


@pytest.mark.parametrize(
    "name",
    [
        "lichen.toml",
        "sub/.envrc",
        ".lichenignore",
        "sub/__pycache__/train.cpython-311.pyc",
        "conftest.py",
        "MAKEFILE",
    ],
)
def test_files_that_tools_obey_come_from_others_by_their_own_declared_name_only(
    clinic: Clinic, name: str
) -> None:
    told = manifest(stored(clinic, f"{{project}}/{name}"))
    refused(clinic, told, "tools obey such files", own=False, declared=[str(clinic.root)])
    assert put_back(clinic, told, own=False, declared=[clinic.path(name)]) == (clinic.path(name),)


def test_version_control_is_guarded_also_where_capitals_are_not_told_apart(clinic: Clinic) -> None:
    told = manifest(stored(clinic, "{project}/sub/.GIT/config"))
    refused(clinic, told, "belongs to version control", own=True)
