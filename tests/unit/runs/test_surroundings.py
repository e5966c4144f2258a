"""Items of a manifest as they are now: equal when nothing changed, different when anything did, whatever kind it is."""

from __future__ import annotations

import os
import py_compile
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lichen.errors import EncodingError, StorageError
from lichen.runs.trace.distributions import only_announces
from lichen.runs.work.concealment import Concealer
from lichen.runs.work.differences import Difference, differences
from lichen.runs.work.interpreter import Interpreter
from lichen.runs.work.manifest import Manifest, Output
from lichen.runs.work.surroundings import EDITED, MISSING, STDIN, Surroundings
from lichen.runs.workspace.project import Project

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PYTHON = Interpreter("cpython", "3.11.7", "x86_64", "cpython-311", "/usr", "/usr", ())
BARE = Manifest(command=("python", "{project}/train.py"), cwd="{project}", family=("python",))


def digest_file(path: str) -> bytes:
    import hashlib

    return hashlib.sha256(Path(path).read_bytes()).digest()


def look(
    root: Path,
    environ: Mapping[str, str] | None = None,
    *,
    interpreter: Interpreter | None = PYTHON,
    stdin: bytes | None = None,
    hash_file: Callable[[str], bytes] = digest_file,
    group_key: bytes | None = None,
) -> Surroundings:
    return Surroundings(
        Project(root), hash_file, interpreter, dict(environ or {}), stdin, Concealer(group_key)
    )


def first_difference(before: Manifest, surroundings: Surroundings) -> Difference | None:
    return next(differences(before, surroundings.redo(before)), None)


@pytest.fixture
def before(tmp_path: Path) -> Manifest:
    """A manifest with an item of every kind, as things are in the directory."""
    site = tmp_path / "site"
    (site / "numpy-1.26.4.dist-info").mkdir(parents=True)
    (tmp_path / "train.py").write_text("import model")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("1,2")
    (tmp_path / "config.ini").write_text("[x]")
    tool = tmp_path / "tool.sh"
    tool.write_text("#!/bin/sh\n")
    there = everything(tmp_path)
    empty = replace(
        BARE,
        code={"{project}/train.py": ""}, data={"{project}/data/a.csv": "", STDIN: ""}, absent=("{project}/local.ini",),
        present={"{project}/config.ini": "", "{project}/data": ""}, listings={"{project}/data": ""},
        imports=("model", "numpy"), modules={"{project}": ""}, variables={"SEED": "", "UNSET": None},
        environment={"version": "", "machine": ""}, distributions={"numpy": ""}, executables={"{project}/tool.sh": ""},
    )  # fmt: skip
    return there.redo(empty)


def everything(root: Path, **variables: str) -> Surroundings:
    interpreter = replace(PYTHON, path=(str(root / "site"),))
    return look(root, {"SEED": "1", **variables}, interpreter=interpreter, stdin=b"\1" * 32)


def test_what_did_not_change_is_the_same(before: Manifest, tmp_path: Path) -> None:
    assert everything(tmp_path).redo(before) == before
    assert before.distributions == {"numpy": "1.26.4", EDITED: "none"}
    assert before.present == {"{project}/config.ini": "3", "{project}/data": "directory"}
    assert MISSING not in {*before.code.values(), *before.data.values(), *before.executables.values()}


def rewrite(name: str, content: str) -> Callable[[Path], object]:
    return lambda root: (root / name).write_text(content)


def remove(name: str) -> Callable[[Path], object]:
    return lambda root: (root / name).unlink()


@pytest.mark.parametrize(
    ("change", "section", "words"),
    [
        (rewrite("train.py", "import other"), "code", "{project}/train.py changed"),
        (remove("train.py"), "code", "{project}/train.py is gone"),
        (rewrite("data/a.csv", "1,3"), "data", "{project}/data/a.csv changed"),
        (rewrite("local.ini", ""), "absent", "{project}/local.ini exists now"),
        (lambda root: (root / "local.ini").mkdir(), "absent", "{project}/local.ini exists now"),
        (rewrite("config.ini", "[xy]"), "present", "{project}/config.ini is 4, was 3"),
        (remove("config.ini"), "present", "is missing, was 3"),
        (rewrite("data/b.csv", ""), "listings", "the listing of {project}/data changed"),
        (rewrite("model.py", ""), "modules", "{project} could now supply other modules: model instead of none"),
        (lambda root: (root / "model").mkdir(), "modules", "model instead of none"),
        (lambda root: (root / "site" / "numpy-1.26.4.dist-info").rename(root / "site" / "numpy-2.0.dist-info"),
         "distributions", "installed version of numpy is 2.0, was 1.26.4"),
        (lambda root: (root / "site" / "numpy-1.26.4.dist-info").rmdir(), "distributions", "is -, was 1.26.4"),
        (rewrite("tool.sh", "#!/bin/bash\n"), "executables", "{project}/tool.sh changed"),
    ],
    ids=["code", "code-gone", "data", "absent-file", "absent-directory", "size", "size-gone", "listing", "module",
         "package", "version", "uninstalled", "program"],
)  # fmt: skip
def test_every_kind_of_item_is_compared_and_named(
    before: Manifest, tmp_path: Path, change: Callable[[Path], object], section: str, words: str
) -> None:
    change(tmp_path)
    found = first_difference(before, everything(tmp_path))
    assert found is not None
    assert found.section == section
    assert words in found.describe()


def test_variables_interpreter_and_input_are_compared(before: Manifest, tmp_path: Path) -> None:
    changed = first_difference(before, everything(tmp_path, SEED="2"))
    assert changed is not None
    assert changed.describe() == "variable SEED is 2, was 1"
    newly_set = first_difference(before, everything(tmp_path, UNSET="now set"))
    assert newly_set is not None
    assert newly_set.describe() == "variable UNSET is now set, was unset"
    newer = replace(PYTHON, version="3.12.1", path=(str(tmp_path / "site"),))
    found = first_difference(before, look(tmp_path, {"SEED": "1"}, interpreter=newer, stdin=b"\1" * 32))
    assert found is not None
    assert found.describe() == "environment: version is 3.12.1, was 3.11.7"
    other_input = look(
        tmp_path, {"SEED": "1"}, interpreter=replace(PYTHON, path=(str(tmp_path / "site"),)), stdin=b"\2" * 32
    )
    piped = first_difference(before, other_input)
    assert piped is not None
    assert piped.name == STDIN


def test_no_interpreter_and_no_input_are_differences_and_no_match(before: Manifest, tmp_path: Path) -> None:
    now = look(tmp_path, {"SEED": "1"}, interpreter=None).redo(before)
    assert now.environment["version"] == MISSING
    assert now.data[STDIN] == MISSING
    assert now.distributions == {"numpy": "-", EDITED: "none"}
    assert now.environment["machine"] == os.uname().machine


def test_a_command_that_differs_comes_first(before: Manifest) -> None:
    now = replace(before, command=("python", "{project}/train.py", "--depth", "4"), seeds={"seed": "2"})
    found = list(differences(before, now))
    assert [difference.section for difference in found] == ["command", "seed"]
    assert "--depth 4" in found[0].describe()
    assert found[1].describe() == "seed seed is 2, was unset"


def test_what_cannot_be_read_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")

    def fail(_path: str) -> bytes:
        raise StorageError("the disk failed")

    assert look(tmp_path, hash_file=fail).digest_of("{project}/a") == MISSING
    there = look(tmp_path)
    for name in ("directory", "pipe", "loop", "nothing", "a/below"):
        assert there.digest_of(f"{{project}}/{name}") == MISSING, name
    assert there.presence_of("{project}/pipe") == "other"
    assert there.presence_of("{project}/loop") == MISSING
    assert there.listing_of("{project}/nothing", ()) == MISSING


@pytest.mark.parametrize("name", ["{project}/bad\0name", "{project}/100%", "{project}/%zz", "%41", "/x%\n1"])
def test_names_that_no_path_has_are_missing_and_answer_nothing(tmp_path: Path, name: str) -> None:
    """A manifest that somebody else wrote may hold anything."""
    there = look(tmp_path)
    with pytest.raises(EncodingError):
        there.project.path_of(name)
    assert there.digest_of(name) == MISSING
    now = there.redo(
        replace(BARE, code={name: "x"}, present={name: "1"}, listings={name: "x"}, modules={name: "model"})
    )
    assert (now.code, now.present, now.listings) == ({name: MISSING},) * 3
    assert now.modules == {name: ""}


def test_names_that_are_not_text_are_looked_at(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.csv")
    (tmp_path / name).write_text("1")
    there = look(tmp_path)
    assert there.digest_of("{project}/caf%E9.csv") != MISSING
    assert there.listing_of("{project}", ()) != there.listing_of("{project}", ["{project}/caf%E9.csv"])


def test_a_file_is_hashed_once_until_looked_at_afresh(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    asked: list[str] = []

    def count(path: str) -> bytes:
        asked.append(path)
        return digest_file(path)

    there = look(tmp_path, hash_file=count)
    one = there.digest_of("{project}/a")
    (tmp_path / "a").write_text("y")
    assert there.digest_of("{project}/a") == one
    assert there.afresh().digest_of("{project}/a") != one
    assert len(asked) == 2


# what the run itself made


def made(root: Path, name: str, content: str) -> Output:
    (root / name).write_text(content)
    return Output(f"{{project}}/{name}", digest_file(str(root / name)), "bafkrei", len(content), 0o644)


def test_listings_leave_out_what_the_run_made_and_what_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    manifest = look(tmp_path).redo(
        replace(BARE, listings={"{project}": ""}, directories=("{project}/results",))
    )
    output = made(tmp_path, "model.bin", "weights")
    (tmp_path / "results").mkdir()
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "x.pyc").touch()
    manifest = replace(manifest, outputs=(output,))
    assert first_difference(manifest, look(tmp_path)) is None
    (tmp_path / "results2").mkdir()
    found = first_difference(manifest, look(tmp_path))
    assert found is not None
    assert found.section == "listings"


def test_a_directory_in_the_place_of_a_file_changes_the_listing(tmp_path: Path) -> None:
    (tmp_path / "part").touch()
    manifest = look(tmp_path).redo(replace(BARE, listings={"{project}": ""}))
    (tmp_path / "part").unlink()
    (tmp_path / "part").mkdir()
    assert first_difference(manifest, look(tmp_path)) is not None


def test_the_listing_that_was_seen_is_comparable_with_the_one_now(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    (tmp_path / "sub").mkdir()
    there = look(tmp_path)
    assert there.has_listed("{project}", (), ("sub", "a.csv"))
    assert not there.has_listed("{project}", (), ("a.csv",))


def test_own_outputs_may_stand_where_the_run_found_nothing_as_it_left_them(tmp_path: Path) -> None:
    output = made(tmp_path, "model.bin", "weights")
    manifest = replace(
        BARE,
        absent=("{project}/model.bin", "{project}/results"),
        outputs=(output,),
        directories=("{project}/results",),
    )
    (tmp_path / "results").mkdir()
    assert first_difference(manifest, look(tmp_path)) is None
    assert look(tmp_path).contradicts_own_outputs(manifest) is None
    (tmp_path / "model.bin").write_text("other weights")
    assert look(tmp_path).contradicts_own_outputs(manifest) == "{project}/model.bin"
    (tmp_path / "model.bin").unlink()
    assert look(tmp_path).contradicts_own_outputs(manifest) is None
    (tmp_path / "model.bin").mkdir()
    assert look(tmp_path).contradicts_own_outputs(manifest) == "{project}/model.bin"


def test_a_file_where_the_run_made_a_directory_contradicts_it(tmp_path: Path) -> None:
    manifest = replace(BARE, absent=("{project}/results",), directories=("{project}/results",))
    (tmp_path / "results").write_text("a file")
    assert look(tmp_path).contradicts_own_outputs(manifest) == "{project}/results"


# modules


@pytest.mark.parametrize(
    "name", ["model.py", "model.cpython-311-x86_64-linux-gnu.so", "model.pyc", "model.pyd"]
)
def test_every_kind_of_file_can_stand_in_a_modules_place(tmp_path: Path, name: str) -> None:
    there = look(tmp_path)
    assert there.modules_in("{project}", frozenset({"model"})) == ""
    (tmp_path / name).touch()
    assert look(tmp_path).modules_in("{project}", frozenset({"model", "numpy"})) == "model"


def test_files_that_no_import_finds_do_not_matter(tmp_path: Path) -> None:
    for name in ("model.csv", "model.txt", "models.py", "other.py"):
        (tmp_path / name).touch()
    assert look(tmp_path).modules_in("{project}", frozenset({"model"})) == ""
    assert look(tmp_path).modules_in("{project}/missing", frozenset({"model"})) == ""


# variables


def test_the_project_root_in_a_variable_is_generalised(tmp_path: Path) -> None:
    there = look(tmp_path, {"DATA": f"{tmp_path}/data", "PYTHONPATH": f"{tmp_path}/lib::"})
    assert there.variable("DATA") == "{project}/data"
    assert there.variable("PYTHONPATH") == "{project}/lib"
    assert there.variable("NOT_SET") is None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("/opt/jemalloc.so", "/opt/jemalloc.so"),
        ("/home/ada/.cache/lichen/preload-x86_64-72fcfcc9540ecaa3.so", None),
        (
            "/opt/a.so /home/ada/.cache/lichen/preload-x86_64-72fcfcc9540ecaa3.so:/opt/b.so",
            "/opt/a.so:/opt/b.so",
        ),
        ("", ""),
    ],
    ids=["another", "own", "both", "empty"],
)
def test_libraries_loaded_before_all_others_count_but_not_our_own(
    tmp_path: Path, value: str, found: str | None
) -> None:
    assert look(tmp_path, {"LD_PRELOAD": value}).variable("LD_PRELOAD") == found


def test_a_secret_in_a_variable_is_kept_apart_without_being_told(tmp_path: Path) -> None:
    def shown(value: str, group_key: bytes | None) -> str:
        told = look(tmp_path, {"API_TOKEN": value}, group_key=group_key).variable("API_TOKEN")
        assert told is not None
        assert value not in told
        return told

    assert shown("correct-horse-1", b"k" * 32) != shown("correct-horse-2", b"k" * 32)
    assert shown("correct-horse-1", None) == shown("correct-horse-2", None)


def test_what_every_start_obeys_is_one_fact(tmp_path: Path) -> None:
    """Path files, customizations, and whether there is a folder for packages at all."""
    prefix = tmp_path / "venv"
    site = prefix / "lib/python3.11/site-packages"
    interpreter = replace(PYTHON, prefix=str(prefix), path=(str(site),))

    def start() -> str:
        return look(tmp_path, interpreter=interpreter).environment_of(["start"])["start"]

    without = start()
    site.mkdir(parents=True)
    empty = start()
    (site / "more.pth").write_text(f"{tmp_path}/src\n")
    with_path_file = start()
    (site / "sitecustomize.py").write_text("")
    assert len({without, empty, with_path_file, start()}) == 4
    (site / "sitecustomize.py").unlink()
    (site / "more.pth").write_text(f"{tmp_path / 'other'}/src\n")
    assert start() != with_path_file


@pytest.mark.parametrize(
    ("environ", "encoding"),
    [
        ({}, "default"), ({"LANG": "C"}, "C"), ({"LANG": "de_DE.UTF-8"}, "utf8"), ({"LANG": "C", "LC_CTYPE": "C.utf8"}, "utf8"),
        ({"LANG": "de_DE.UTF-8", "LC_ALL": "de_DE.ISO-8859-15@euro"}, "iso885915"), ({"LC_ALL": "", "LANG": "POSIX"}, "POSIX"),
    ],
)  # fmt: skip
def test_of_the_locale_only_its_encoding_counts_for_every_run(
    tmp_path: Path, environ: dict[str, str], encoding: str
) -> None:
    assert look(tmp_path, environ).environment_of(["encoding"]) == {"encoding": encoding}


def test_builds_and_listings_of_what_is_installed(tmp_path: Path) -> None:
    site = tmp_path / "site"
    metadata = site / "lib-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "lib").mkdir()
    (site / "lib/core.py").write_text("x = 1\n")
    record = metadata / "RECORD"
    record.write_text("lib/core.py,sha256=abc,6\n")
    there = everything(tmp_path)
    names = ["lib", "(all that is installed)", "names in lib", "names in gone"]
    before = there.versions_of(names)
    assert before["lib"].startswith("1.0 (build ")
    assert before["names in gone"] == MISSING
    (site / "lib/plugin.py").write_text("")
    (site / "lib/__pycache__").mkdir()
    (site / "other-2.0.dist-info").mkdir()
    after = everything(tmp_path).versions_of(names)
    assert {name for name in names if after[name] != before[name]} == {
        "(all that is installed)",
        "names in lib",
    }
    record.write_text("lib/core.py,sha256=abd,6\n")
    assert everything(tmp_path).versions_of(names)["lib"] != before["lib"]
    both = (text["(all that is installed)"] for text in (before, after))
    assert Difference("distributions", "(all that is installed)", *both).describe() == (
        "what is installed changed: other 2.0 is new"
    )


def test_lichen_itself_is_no_input_of_a_script_that_does_not_import_it(tmp_path: Path) -> None:
    """Nor are the files by which an editable one is found, while they are as they were installed."""
    site = tmp_path / "venv/lib/python3.11/site-packages"
    (site / "lib-1.0.dist-info").mkdir(parents=True)
    interpreter = replace(PYTHON, prefix=str(tmp_path / "venv"), path=(str(site),))

    def facts() -> tuple[str, str]:
        there = look(tmp_path, interpreter=interpreter)
        installed = there.versions_of(["(all that is installed)"])
        return installed["(all that is installed)"], there.environment_of(["start"])["start"]

    without = facts()
    own = site / "lichen-0.1.0.dist-info"
    own.mkdir()
    (own / "entry_points.txt").write_text("[console_scripts]\nlichen = lichen.cli.main:main\n")
    path_file = site / "__editable__.lichen-0.1.0.pth"
    path_file.write_text("/elsewhere/src\n")
    (own / "RECORD").write_text(f"{path_file.name},,15\n")
    assert only_announces(f"{own}/entry_points.txt")
    assert not only_announces(f"{own}/METADATA")
    assert facts() == without == ("lib 1.0", "none")
    path_file.write_text("import something\n")  # of another size than was installed
    changed = Difference("environment", "start", without[1], facts()[1]).describe()
    assert changed == f"what every start of Python obeys changed: {path_file.name} is new"
    (own / "entry_points.txt").write_text(
        "[console_scripts]\nlichen = lichen.cli.main:main\n[plugins]\na = b\n"
    )
    assert facts()[0] == "lib 1.0, lichen 0.1.0", "what another program would load counts"


def test_a_list_of_what_is_installed_is_compared_by_names() -> None:
    before = ", ".join(["click 8.1", "numpy 1.0", "old 3", "twice 1", "twice 2"])
    now = ", ".join(["click 8.1", "numpy 2.0", "twice 2", "twice 3"])
    told = Difference("distributions", "(all that is installed)", before, now).describe()
    assert told == "what is installed changed: numpy is 2.0, was 1.0; old 3 is gone; twice is 3, was 1"
    many = ", ".join(f"p{number} 1" for number in range(9))
    assert (
        Difference("distributions", "(all that is installed)", "", many).describe().endswith("; and 3 more")
    )


def test_a_source_hidden_by_bytecode_of_another_text_is_a_difference(tmp_path: Path) -> None:
    """Python goes by time and size alone; the bytecode may have come back from elsewhere since the run."""
    version = ".".join(map(str, sys.version_info[:3]))
    python = replace(PYTHON, implementation=sys.implementation.name, version=version, prefix=sys.prefix)
    assert python.cache_tag == sys.implementation.cache_tag
    source = tmp_path / "model.py"
    source.write_text("K = 1\n")
    os.utime(source, (10**9, 10**9))
    bytecode = Path(py_compile.compile(str(source), doraise=True) or "")
    earlier = bytecode.read_bytes()
    source.write_text("K = 2\n")
    os.utime(source, (10**9, 10**9))
    bytecode.unlink()
    names = ["{project}/model.py"]
    before = replace(BARE, code=look(tmp_path, interpreter=python).digests_of(names))
    assert first_difference(before, look(tmp_path, interpreter=python)) is None
    bytecode.write_bytes(earlier)
    os.utime(bytecode, (10**9, 10**9))
    found = first_difference(before, look(tmp_path, interpreter=python))
    assert found is not None
    assert found.name == names[0]
    py_compile.compile(str(source), doraise=True)
    os.utime(bytecode, (10**9, 10**9))
    assert first_difference(before, look(tmp_path, interpreter=python)) is None, "it is the source's own"
    bytecode.write_bytes(earlier[:8] + bytes(8) + earlier[16:])
    assert first_difference(before, look(tmp_path, interpreter=python)) is None, "Python would not take it"
