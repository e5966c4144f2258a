"""From a trace to a manifest: every access lands in its section, and whatever can have escaped stands as a reason."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lichen.encoding.base import b64u
from lichen.runs.trace.trace import Access, Exec, Trace
from lichen.runs.work.observe import data_digests
from lichen.runs.work.surroundings import ALWAYS_VARIABLES, EDITED, MISSING, STDIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.runs.conftest import Clinic

    from lichen.runs.work.observe import Observation


def digest(content: bytes) -> str:
    return b64u(hashlib.sha256(content).digest())


def codes(observation: Observation) -> list[str]:
    return [reason.code for reason in observation.reasons]


# inputs


def test_files_read_are_data_and_imported_sources_are_code(clinic: Clinic) -> None:
    clinic.write("train.py", "import model")
    clinic.write("model.py", "x = 1")
    clinic.write("a.csv", "1,2")
    clinic.write("big.csv", "1" * 100)
    reads = [clinic.access("read", name) for name in ("train.py", "model.py", "a.csv", "big.csv")]
    seen = clinic.observe(Trace(accesses=tuple(reads), modules={"model": clinic.path("model.py")}))
    manifest = seen.manifest
    assert manifest.code == {
        "{project}/train.py": digest(b"import model"),
        "{project}/model.py": digest(b"x = 1"),
    }
    assert manifest.data == {"{project}/a.csv": digest(b"1,2"), "{project}/big.csv": digest(b"1" * 100)}
    assert seen.reusable
    assert data_digests(seen, 1) == [digest(b"1" * 100)], "the largest file stands in the entry"
    assert len(data_digests(seen, 9)) == 2


def test_code_whose_source_was_not_opened_is_code_all_the_same(clinic: Clinic) -> None:
    """Warm bytecode hides the source; the script itself may come in ways that no trace sees."""
    clinic.write("train.py", "import model")
    clinic.write("model.py", "x = 1")
    manifest = clinic.observe(Trace(modules={"model": clinic.path("model.py")})).manifest
    assert set(manifest.code) == {"{project}/train.py", "{project}/model.py"}


def test_declared_data_and_code_are_added(clinic: Clinic) -> None:
    clinic.write("train.py")
    for name in ("data/a.csv", "data/deep/b.csv", "native/kernel.c"):
        clinic.write(name, name)
    seen = clinic.observe(
        Trace(), data=[clinic.path("data")], code=[clinic.path("native/kernel.c")],
        variables=["FOLD"],
    )  # fmt: skip
    assert set(seen.manifest.data) == {"{project}/data/a.csv", "{project}/data/deep/b.csv"}
    assert set(seen.manifest.code) == {"{project}/train.py", "{project}/native/kernel.c"}
    assert "FOLD" in seen.manifest.variables
    assert seen.reusable


def test_inputs_outside_the_project_keep_their_place(clinic: Clinic, tmp_path: Path) -> None:
    outside = tmp_path / "shared.csv"
    clinic.write(str(outside), "1")
    seen = clinic.observe(Trace(accesses=(clinic.access("read", str(outside)),)))
    assert set(seen.manifest.data) == {str(outside)}
    assert seen.reusable


def test_what_is_ignored_and_what_is_lichens_own_is_no_part_of_the_run(clinic: Clinic) -> None:
    for name in (".lichen/cache/x", "__pycache__/train.cpython-311.pyc", "notes.log"):
        clinic.write(name, "x")
    clinic.write(".lichenignore", "*.log\n")
    seen = clinic.observe(
        Trace(
            accesses=(
                clinic.access("read", ".lichen/cache/x"),
                clinic.access("write", "__pycache__/train.cpython-311.pyc"),
                clinic.access("append", "notes.log"),
            )
        )
    )
    assert (seen.manifest.data, seen.manifest.outputs, seen.reasons) == ({}, (), [])


def change(path: Path) -> None:
    path.write_text("other")


def touch_back(path: Path) -> None:
    """As somebody who sets the times back does; the change time cannot be set."""
    before = path.stat()
    path.write_text("3,4")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_rename(path: Path) -> None:
    other = path.with_name("other")
    other.write_text("1,2")
    other.replace(path)


@pytest.mark.parametrize(
    ("happens", "told"),
    [
        (change, "changed while the run was reading it"),
        (touch_back, "changed while the run was reading it"),
        (replace_by_rename, "changed while the run was reading it"),
        (lambda path: path.unlink(), "was read and is gone"),
    ],
    ids=["written", "written-times-set-back", "replaced", "removed"],
)
def test_an_input_changed_since_its_first_open_is_told(
    clinic: Clinic, happens: Callable[[Path], object], told: str
) -> None:
    path = clinic.write("a.csv", "1,2")
    started_ns = clinic.start()
    access = clinic.access("read", "a.csv")
    happens(path)
    seen = clinic.observe(Trace(accesses=(access,)), started_ns=started_ns)
    assert codes(seen)[0] == "inputs-changed"
    assert told in seen.reasons[0].text
    assert "{project}/a.csv" in seen.reasons[0].text


def test_an_input_changed_between_start_and_first_open_is_told(clinic: Clinic) -> None:
    """Whether the run or something else read it before the change cannot be known."""
    clinic.write("a.csv", "1")
    started_ns = clinic.start()
    clinic.write("a.csv", "2")
    seen = clinic.observe(Trace(accesses=(clinic.access("read", "a.csv"),)), started_ns=started_ns)
    assert codes(seen) == ["inputs-changed"]


def test_an_input_whose_state_was_not_seen_is_judged_by_its_times(clinic: Clinic) -> None:
    clinic.write("a.csv", "1")
    unseen = clinic.access("read", "a.csv")._replace(stat=None)
    assert clinic.observe(Trace(accesses=(unseen,))).reusable


def test_a_directory_opened_as_a_file_is_looked_at_only(clinic: Clinic) -> None:
    clinic.write("data/a.csv")
    seen = clinic.observe(Trace(accesses=(clinic.access("read", "data"),)))
    assert seen.manifest.present == {"{project}/data": "directory"}
    assert seen.reusable


def test_what_is_read_from_a_pipe_makes_the_run_partial(clinic: Clinic) -> None:
    os.mkfifo(clinic.path("pipe"))
    seen = clinic.observe(Trace(accesses=(clinic.access("read", "pipe"),)))
    assert codes(seen) == ["partial"]
    assert "{project}/pipe" in seen.reasons[0].text


def test_a_circle_of_links_is_an_item(clinic: Clinic) -> None:
    """Opening it failed, and would again; where it leads is all there is to compare."""
    Path(clinic.path("loops/one")).parent.mkdir()
    Path(clinic.path("loops/one")).symlink_to("two")
    Path(clinic.path("loops/two")).symlink_to("one")
    opened = Access(clinic.path("loops/one"), "read", None, 0, frozenset({"audit"}))
    listed = clinic.access("list", "loops", names=("one", "two"))
    seen = clinic.observe(Trace(accesses=(opened, listed)))
    assert seen.reusable, seen.reasons
    assert seen.manifest.present["{project}/loops/one"] == "link two"
    assert seen.manifest.listings["{project}/loops"] != MISSING


def test_files_that_vanish_in_code_are_told(clinic: Clinic) -> None:
    gone = clinic.observe(Trace(modules={"gone": clinic.path("gone.py")}))
    assert "{project}/gone.py was read and is gone" in [reason.text for reason in gone.reasons]


# what was looked for, looked at, listed


def test_absent_files_are_items_and_those_that_appeared_are_told(clinic: Clinic) -> None:
    seen = clinic.observe(Trace(accesses=(clinic.access("absent", "local.ini"),)))
    assert seen.manifest.absent == ("{project}/local.ini",)
    assert seen.reusable
    clinic.write("local.ini")
    appeared = clinic.observe(Trace(accesses=(clinic.access("absent", "local.ini"),)))
    assert codes(appeared) == ["inputs-changed"]
    assert "appeared during the run" in appeared.reasons[0].text


def test_what_the_run_looked_for_and_then_made_is_no_surprise(clinic: Clinic) -> None:
    accesses = (
        clinic.access("absent", "model.bin", detail="made-file"),
        clinic.access("absent", "results", detail="made-directory"),
        clinic.access("absent", "removed", detail="made-directory"),
        clinic.access("write", "model.bin"),
    )
    started_ns = clinic.start()
    clinic.write("model.bin", "weights")
    Path(clinic.path("results")).mkdir()
    seen = clinic.observe(Trace(accesses=accesses), started_ns=started_ns)
    assert seen.reusable, seen.reasons
    assert seen.manifest.absent == ("{project}/model.bin", "{project}/removed", "{project}/results")
    assert seen.manifest.directories == ("{project}/results",), (
        "one that is gone again is not made anew on a hit"
    )
    assert [output.name for output in seen.manifest.outputs] == ["{project}/model.bin"]


def test_what_was_only_looked_at_is_known_by_kind_and_size(clinic: Clinic) -> None:
    clinic.write("a.csv", "1,2")
    os.mkfifo(clinic.path("pipe"))
    Path(clinic.path("data")).mkdir()
    stats = tuple(clinic.access("stat", name, detail="status") for name in ("a.csv", "pipe", "data"))
    seen = clinic.observe(Trace(accesses=stats))
    assert seen.manifest.present == {
        "{project}/a.csv": "3", "{project}/pipe": "other", "{project}/data": "directory"
    }  # fmt: skip
    both = clinic.observe(Trace(accesses=(stats[0], clinic.access("read", "a.csv"))))
    assert both.manifest.present == {}, "a file that was read is known by its content"


def test_listings_are_compared_with_what_was_seen(clinic: Clinic) -> None:
    clinic.write("data/a.csv")
    listing = clinic.access("list", "data")
    assert clinic.observe(Trace(accesses=(listing,))).reusable
    clinic.write("data/b.csv")
    changed = clinic.observe(Trace(accesses=(listing,)))
    assert codes(changed) == ["inputs-changed"]
    assert "listing of {project}/data" in changed.reasons[0].text
    unknown = clinic.observe(Trace(accesses=(listing._replace(names=None),)))
    assert codes(unknown) == ["inputs-changed"]


def test_a_listing_may_change_by_what_the_run_itself_makes(clinic: Clinic) -> None:
    clinic.write("data/a.csv")
    listing = clinic.access("list", "data")
    own = clinic.access("write", "data/model.bin")
    started_ns = clinic.start()
    clinic.write("data/model.bin", "weights")
    seen = clinic.observe(Trace(accesses=(listing, own)), started_ns=started_ns)
    assert seen.reusable, seen.reasons
    assert set(seen.manifest.listings) == {"{project}/data"}


def test_a_listing_of_a_directory_the_run_made_is_no_item(clinic: Clinic) -> None:
    accesses = (clinic.access("absent", "out", detail="made-directory"), clinic.access("write", "out/m"))
    started_ns = clinic.start()
    clinic.write("out/m", "w")
    listing = Access(clinic.path("out"), "list", None, 3, frozenset({"audit"}), "", ("m",))
    seen = clinic.observe(Trace(accesses=(*accesses, listing)), started_ns=started_ns)
    assert seen.manifest.listings == {}
    assert seen.reusable, seen.reasons


# outputs


def test_files_written_are_stored_with_their_mode(clinic: Clinic) -> None:
    started_ns = clinic.start()
    clinic.write("out/model.bin", "weights").chmod(0o750)
    clinic.write("temporary", "x")
    accesses = tuple(
        clinic.access("write", name) for name in ("out/model.bin", "temporary", "out/renamed.part")
    )
    Path(clinic.path("temporary")).unlink()
    seen = clinic.observe(Trace(accesses=accesses), started_ns=started_ns)
    (output,) = seen.manifest.outputs
    assert (output.name, output.size_bytes, output.mode) == ("{project}/out/model.bin", 7, 0o750)
    assert output.sha256 == hashlib.sha256(b"weights").digest()
    from lichen.content.cid import Cid

    assert clinic.workspace().store.read_bytes(Cid.parse(output.cid)) == b"weights"
    assert seen.reusable


def test_an_empty_directory_made_is_kept_in_mind(clinic: Clinic) -> None:
    started_ns = clinic.start()
    Path(clinic.path("logs")).mkdir()
    seen = clinic.observe(Trace(accesses=(clinic.access("write", "logs"),)), started_ns=started_ns)
    assert seen.manifest.directories == ("{project}/logs",)


@pytest.mark.parametrize(
    ("kinds", "code", "told"),
    [
        (["append"], "appended", "existed and was appended to"),
        (["update"], "read-then-written", "was changed in place"),
        (["read", "write"], "read-then-written", "was read and then overwritten"),
    ],
)
def test_what_builds_on_earlier_content_cannot_answer(
    clinic: Clinic, kinds: list[str], code: str, told: str
) -> None:
    clinic.write("state.bin", "old")
    accesses = tuple(clinic.access(kind, "state.bin") for kind in kinds)  # type: ignore[arg-type]
    seen = clinic.observe(Trace(accesses=accesses))
    assert code in codes(seen)
    assert any(told in reason.text for reason in seen.reasons)


def test_deleting_what_was_there_cannot_be_repeated(clinic: Clinic) -> None:
    seen = clinic.observe(Trace(accesses=(clinic.access("write", "old.bin", detail="deleted"),)))
    assert codes(seen) == ["deleted"]


def test_writing_outside_is_told_unless_it_is_declared(clinic: Clinic, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere" / "model.bin"
    started_ns = clinic.start()
    clinic.write(str(outside), "w")
    trace = Trace(accesses=(clinic.access("write", str(outside)),))
    seen = clinic.observe(trace, started_ns=started_ns)
    assert codes(seen) == ["outside-roots"]
    assert str(outside) in seen.reasons[0].text
    assert seen.manifest.outputs == ()
    for declared in (outside, outside.parent):
        told = clinic.observe(trace, started_ns=started_ns, outputs=[str(declared)])
        assert told.reusable, told.reasons
        assert [output.name for output in told.manifest.outputs] == [str(outside)]


def test_caches_and_devices_are_nobodys_output(
    clinic: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cached = clinic.write(str(tmp_path / "cache" / "fontlist.json"), "{}")
    accesses = (clinic.access("write", str(cached)), clinic.access("write", "/dev/null"))
    assert clinic.observe(Trace(accesses=accesses)).reusable


def test_a_socket_or_link_made_in_the_project_is_told(clinic: Clinic) -> None:
    Path(clinic.path("latest")).symlink_to("model-1")
    seen = clinic.observe(Trace(accesses=(clinic.access("write", "latest"),)))
    assert codes(seen) == ["outside-roots"]
    assert "neither a file nor a directory" in seen.reasons[0].text


def test_an_output_that_cannot_be_stored_is_told_by_name(clinic: Clinic) -> None:
    clinic.write("model.bin", "weights")
    clinic.write(".lichen/store", "a file where the store should be")
    seen = clinic.observe(Trace(accesses=(clinic.access("write", "model.bin"),)))
    assert codes(seen) == ["output-not-stored"]
    assert "{project}/model.bin could not be stored" in seen.reasons[0].text


# declared outputs


def test_declared_outputs_complete_what_was_seen(clinic: Clinic) -> None:
    started_ns = clinic.start()
    for name in ("out/a.bin", "out/b.bin", "model.bin"):
        clinic.write(name, name)
    seen = clinic.observe(
        Trace(), started_ns=started_ns, outputs=[clinic.path("out"), clinic.path("model.bin")]
    )
    assert [output.name for output in seen.manifest.outputs] == [
        "{project}/model.bin", "{project}/out/a.bin", "{project}/out/b.bin"
    ]  # fmt: skip
    assert seen.reusable


def test_a_declared_output_that_was_not_made_is_told(clinic: Clinic) -> None:
    seen = clinic.observe(Trace(), outputs=[clinic.path("never.bin")])
    assert codes(seen) == ["declared-output-missing"]
    assert "{project}/never.bin was not made" in seen.reasons[0].text


def test_a_declared_output_left_by_an_earlier_run_is_not_this_runs(clinic: Clinic) -> None:
    clinic.write("model.bin", "of yesterday")
    clinic.write("out/old.bin", "of yesterday")
    started_ns = clinic.start()
    clinic.write("out/new.bin", "of today")
    stale = clinic.observe(Trace(), started_ns=started_ns, outputs=[clinic.path("model.bin")])
    assert codes(stale) == ["declared-output-missing"]
    assert stale.manifest.outputs == ()
    mixed = clinic.observe(Trace(), started_ns=started_ns, outputs=[clinic.path("out")])
    assert [output.name for output in mixed.manifest.outputs] == ["{project}/out/new.bin"]
    assert mixed.reusable


def test_a_declared_output_that_is_read_is_an_input_and_no_output(clinic: Clinic) -> None:
    clinic.write("model.bin", "to go on from")
    seen = clinic.observe(
        Trace(accesses=(clinic.access("read", "model.bin"),)), outputs=[clinic.path("model.bin")]
    )
    assert set(seen.manifest.data) == {"{project}/model.bin"}
    assert seen.manifest.outputs == ()


# input, peers, programs, variables


def test_piped_input_is_data(clinic: Clinic) -> None:
    piped = clinic.surroundings(stdin=b"\7" * 32)
    seen = clinic.observe(Trace(stdin_used=True), surroundings=piped)
    assert seen.manifest.data == {STDIN: b64u(b"\7" * 32)}
    assert seen.reusable
    assert STDIN not in clinic.observe(Trace(), surroundings=piped).manifest.data


def test_an_incomplete_trace_makes_the_run_partial(clinic: Clinic) -> None:
    seen = clinic.observe(Trace(complete=False, reasons=("overflow: events were lost", "unobserved: /bin/x")))
    assert [(reason.code, reason.text) for reason in seen.reasons] == [
        ("partial", "overflow: events were lost"), ("partial", "unobserved: /bin/x")
    ]  # fmt: skip


def test_an_incomplete_trace_without_a_reason_is_partial_too(clinic: Clinic) -> None:
    assert codes(clinic.observe(Trace(complete=False))) == ["partial"]


def test_talking_to_others_is_told(clinic: Clinic) -> None:
    peers = tuple(f"192.0.2.{number}:443" for number in range(9))
    seen = clinic.observe(Trace(network=peers))
    assert codes(seen) == ["network"] * 3
    assert seen.reasons[0].text == "the run talked to 192.0.2.0:443"


def test_programs_started_are_known_by_their_content(clinic: Clinic) -> None:
    clinic.write("tool.sh", "#!/bin/sh\n")
    clinic.write("script.sh", "echo")
    seen = clinic.observe(
        Trace(accesses=(clinic.access("exec", "script.sh"),), execs=(clinic.path("tool.sh"),))
    )
    assert seen.manifest.executables == {"{project}/tool.sh": digest(b"#!/bin/sh\n")}
    assert seen.manifest.data == {"{project}/script.sh": digest(b"echo")}
    gone = clinic.observe(Trace(execs=(clinic.path("gone.sh"),)))
    assert codes(gone) == ["partial"]


def test_variables_of_the_trace_and_those_nobody_can_see_are_items(clinic: Clinic) -> None:
    there = clinic.surroundings({"FOLD": "3", "OMP_NUM_THREADS": "2", "RANK": "0", "HOME": "/home/ada"})
    seen = clinic.observe(Trace(variables={"FOLD": "3", "RANK": "0", "OTHER": None}), surroundings=there)
    variables = seen.manifest.variables
    assert (variables["FOLD"], variables["OMP_NUM_THREADS"], variables["OTHER"]) == ("3", "2", None)
    assert set(ALWAYS_VARIABLES) <= set(variables)
    assert "RANK" not in variables, "a launcher's variable differs from launch to launch"
    assert "HOME" not in variables


def test_a_variable_that_is_a_seed_is_no_other_item(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    from lichen.runs.work.command import Command
    from lichen.runs.work.observe import observe

    command = Command.parse(
        ("python", "train.py"), clinic.project, cwd=clinic.root, seed_names=["FOLD"], environ={"FOLD": "3"}
    )
    seen = observe(
        clinic.workspace(), command, clinic.surroundings({"FOLD": "3"}), Trace(variables={"FOLD": "3"}),
        started_ns=clinic.start(),
    )  # fmt: skip
    assert seen.manifest.seeds == {"$FOLD": "3"}
    assert "FOLD" not in seen.manifest.variables


def test_modules_and_versions_are_items(clinic: Clinic) -> None:
    clinic.write("model.py")
    seen = clinic.observe(
        Trace(
            imports=("model", "numpy"),
            module_directories=(clinic.path("."), clinic.path("lib")),
            distributions={"numpy": "1.26.4"},
        )
    )
    assert seen.manifest.imports == ("model", "numpy")
    assert seen.manifest.modules == {"{project}": "model", "{project}/lib": ""}
    assert seen.manifest.distributions == {"numpy": "-", EDITED: "none"}
    assert seen.manifest.environment["version"] == "3.11.7"


def test_links_read_and_what_a_close_look_told_are_items(clinic: Clinic) -> None:
    clinic.write("runs/1/weights", "one")
    Path(clinic.path("current")).symlink_to("runs/1")
    Path(clinic.path("up")).symlink_to("..")
    clinic.write("a.csv", "1")
    close = clinic.access("stat", "a.csv", detail="times")
    links = (clinic.path("current"), clinic.path("up"))
    seen = clinic.observe(Trace(accesses=(close, clinic.access("read", "a.csv")), links=links))
    info = Path(clinic.path("a.csv")).stat()
    assert seen.manifest.present == {
        "{project}/a.csv": f"1 mode {stat.S_IMODE(info.st_mode):o} at {info.st_mtime_ns}",
        "{project}/current": "link runs/1",
        "{project}/up": "link ..",
    }
    assert "{project}/a.csv" in seen.manifest.data


def test_what_says_which_commit_is_checked_out_counts_when_read(clinic: Clinic) -> None:
    for name in (".git/HEAD", ".git/config", "model.pyc", "__pycache__/model.cpython-311.pyc"):
        clinic.write(name, "x")
    names = (".git/HEAD", ".git/config", "model.pyc", "__pycache__/model.cpython-311.pyc")
    seen = clinic.observe(Trace(accesses=tuple(clinic.access("read", name) for name in names)))
    assert set(seen.manifest.data) == {"{project}/.git/HEAD", "{project}/model.pyc"}


def test_what_changes_version_control_answers_nothing(clinic: Clinic) -> None:
    for name in (".git/index", ".git/refs/heads/main", "__pycache__/model.cpython-311.pyc"):
        clinic.write(name, "x")
    refreshed = [clinic.access("write", name) for name in (".git/index", "__pycache__/model.cpython-311.pyc")]
    assert clinic.observe(Trace(accesses=tuple(refreshed))).reusable
    committed = clinic.observe(Trace(accesses=(clinic.access("write", ".git/refs/heads/main"),)))
    assert codes(committed) == ["outside-roots"]
    assert "version control" in committed.reasons[0].text
    gone = clinic.observe(Trace(accesses=(clinic.access("write", ".git/refs/heads/main.lock"),)))
    assert gone.reusable


def test_where_a_search_led_is_an_item(clinic: Clinic) -> None:
    for name in ("early/other", "late/tool"):
        Path(clinic.write(name, "#!/bin/sh\n")).chmod(0o755)
    path = f"{clinic.path('early')}:{clinic.path('late')}"
    tool = clinic.path("late/tool")
    traced = Trace(execs=(tool,), processes=(Exec("tool", tool, ("tool",), "shell", True),))
    seen = clinic.observe(traced, surroundings=clinic.surroundings({"PATH": path}))
    assert seen.manifest.environment["program tool"] == "{project}/late/tool"
    Path(clinic.write("early/tool", "#!/bin/sh\n")).chmod(0o755)
    now = clinic.surroundings({"PATH": path}).redo(seen.manifest)
    assert now.environment["program tool"] == "{project}/early/tool"


@pytest.mark.parametrize("clinic", ["private", "public"], indirect=True)
def test_a_secret_makes_a_run_of_a_public_ledger_unrepeatable(clinic: Clinic) -> None:
    seen = clinic.observe(
        Trace(variables={"API_TOKEN": "correct-horse-battery"}),
        surroundings=clinic.surroundings({"API_TOKEN": "correct-horse-battery"}),
    )
    assert "correct-horse-battery" not in str(seen.manifest.variables)
    if clinic.workspace().group_key is None:
        assert codes(seen) == ["secret"]
    else:
        assert seen.reusable


# symbolic links


def test_links_that_lead_to_an_input_are_items(clinic: Clinic) -> None:
    """A program that resolves ``current`` is seen to open the resolved name only."""
    clinic.write("runs/1/weights", "one")
    clinic.write("runs/2/weights", "two")
    Path(clinic.path("runs/current")).symlink_to("1")
    Path(clinic.path("runs/other")).symlink_to("2")
    seen = clinic.observe(Trace(accesses=(clinic.access("read", "runs/1/weights"),)))
    assert seen.manifest.present == {"{project}/runs/current": "link 1"}
    assert seen.reusable


def test_a_link_to_the_whole_project_is_no_item(clinic: Clinic) -> None:
    clinic.write("a.csv", "1")
    project = Path(clinic.path("a.csv")).parent
    (project.parent / "checkout").symlink_to(project)
    seen = clinic.observe(Trace(accesses=(clinic.access("read", "a.csv"),)))
    assert seen.manifest.present == {}


def test_a_file_that_was_looked_for_and_then_replaced_is_an_item(clinic: Clinic) -> None:
    clinic.write("out.txt", "old")
    looked = clinic.access("stat", "out.txt", detail="type")
    started_ns = clinic.start()
    written = clinic.access("write", "out.txt")
    clinic.write("out.txt", "new and longer")
    seen = clinic.observe(Trace(accesses=(looked, written)), started_ns=started_ns)
    assert seen.manifest.present == {"{project}/out.txt": "file"}
    assert seen.reusable


def test_a_file_opened_to_append_to_is_no_answer_even_when_it_was_not_there(clinic: Clinic) -> None:
    appended = Access(clinic.path("run.log"), "append", None, 0, frozenset({"audit"}))
    written = Access(clinic.path("run.log"), "write", None, 1, frozenset({"audit"}))
    started_ns = clinic.start()
    gone = clinic.observe(Trace(accesses=(appended, written)), started_ns=started_ns)
    assert gone.reusable, "a temporary file"
    clinic.write("run.log", "line")
    assert codes(clinic.observe(Trace(accesses=(appended, written)), started_ns=started_ns)) == ["appended"]


@pytest.mark.parametrize("name", ["lichen-test-left", "sem.lichen-test-left"])
def test_what_is_left_in_shared_memory_lies_outside_the_roots(clinic: Clinic, name: str) -> None:
    left = Path("/dev/shm", f"{name}-{os.getpid()}")
    started_ns = clinic.start()
    left.write_text("x")
    try:
        seen = clinic.observe(Trace(accesses=(clinic.access("write", str(left)),)), started_ns=started_ns)
    finally:
        left.unlink()
    assert [reason.code for reason in seen.reasons] == ["outside-roots"]
    gone = clinic.observe(Trace(accesses=(clinic.access("write", str(left)),)), started_ns=started_ns)
    assert gone.reasons == []
