"""Which distribution a file belongs to, and whether its version says what is in it."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
from pathlib import Path

import pytest

from lichen.runs.trace.agent_log import AgentLog
from lichen.runs.trace.distributions import (
    ALL_INSTALLED,
    LISTED,
    SiteDirectory,
    builds_of,
    changed_installed_files,
    is_generated,
    start_files,
)
from lichen.runs.trace.modules import find_modules, source_of_bytecode
from lichen.runs.trace.places import Places


def install(site: Path, name: str, version: str, files: dict[str, str], **metadata: str) -> None:
    """Put a distribution in place as an installer does: files first, the listing last."""
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    lines = []
    for path, text in files.items():
        target = site / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        os.utime(target, ns=(10**18, 10**18))
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(text)}")
    for file, text in metadata.items():
        (folder / file.replace("_json", ".json")).write_text(text)
    (folder / "RECORD").write_text("\n".join([*lines, f"{folder.name}/RECORD,,"]))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "venv/lib/python3.11/site-packages"
    install(
        folder,
        "Big_Lib",
        "2.0",
        {"biglib/__init__.py": "", "biglib/core.py": "A = 1\n", "biglib/data.csv": "1"},
    )
    install(folder, "ns_one", "1.0", {"ns/one.py": ""})
    install(folder, "ns_two", "1.5", {"ns/two.py": ""})
    install(
        folder,
        "own_tool",
        "0.1",
        {"own_tool.py": ""},
        direct_url_json='{"url": "file:///home/ann/tool", "dir_info": {}}',
    )
    (folder / "loose.py").write_text("")
    return folder


def test_owners(site: Path) -> None:
    read = SiteDirectory.read(str(site))
    owner = read.owner_of(f"{site}/biglib/core.py")
    assert owner is not None
    assert (owner.name, owner.version, owner.from_index) == ("Big_Lib", "2.0", True)
    shared = [read.owner_of(f"{site}/ns/{name}.py") for name in ("one", "two", "three")]
    assert [found and found.name for found in shared] == ["ns_one", "ns_two", None]
    assert read.owner_of(f"{site}/loose.py") is None
    local = read.owner_of(f"{site}/own_tool.py")
    assert local is not None
    assert not local.from_index


def test_files_changed_in_place(site: Path) -> None:
    read = SiteDirectory.read(str(site))
    owner = read.owner_of(f"{site}/biglib/core.py")
    assert owner is not None
    path = f"{site}/biglib/core.py"
    assert read.is_as_installed(path, owner)
    os.utime(path)
    assert read.is_as_installed(path, owner), "touched, but the content is the same"
    Path(path).write_text("A = 2\n")
    os.utime(path, ns=(2 * 10**18, 2 * 10**18))
    assert not read.is_as_installed(path, owner)
    assert changed_installed_files([read], ["big-lib", "ns_one"]) == [path]


def test_a_time_set_back_hides_no_edit(site: Path) -> None:
    path = site / "biglib/core.py"
    before = path.stat()
    path.write_text("A = 2\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    read = SiteDirectory.read(str(site), ["Big-Lib"])
    owner = read.distributions["big-lib"]
    assert not read.is_as_installed(str(path), owner)
    asked: list[str] = []

    def hash_file(name: str) -> bytes:
        asked.append(name)
        return hashlib.sha256(Path(name).read_bytes()).digest()

    assert not read.is_as_installed(str(path), owner, hash_file)
    assert asked == [str(path)]


def test_data_of_a_distribution_counts_like_its_code(site: Path) -> None:
    (site / "biglib/data.csv").write_text("2")
    read = SiteDirectory.read(str(site))
    assert changed_installed_files([read], ["Big_Lib"]) == [f"{site}/biglib/data.csv"]
    (site / "biglib/core.py").unlink()
    assert f"{site}/biglib/core.py" in changed_installed_files([read], ["Big_Lib"])


def test_builds_of_one_version_differ(site: Path) -> None:
    names = ["Big.Lib", "ns_one", "nowhere"]
    before = builds_of([SiteDirectory.read(str(site), names)], names)
    assert before.keys() == {"Big.Lib", "ns_one"}
    assert all(re.fullmatch("[0-9a-f]{12}", build) for build in before.values())
    shutil.rmtree(site / "Big_Lib-2.0.dist-info")
    install(
        site,
        "Big_Lib",
        "2.0",
        {"biglib/__init__.py": "", "biglib/core.py": "A = 9\n", "biglib/data.csv": "1"},
    )
    after = builds_of([SiteDirectory.read(str(site), names)], names)
    assert after["Big.Lib"] != before["Big.Lib"]
    assert after["ns_one"] == before["ns_one"]


def test_who_installed_makes_no_other_build(site: Path) -> None:
    names = ["Big_Lib"]
    before = builds_of([SiteDirectory.read(str(site), names)], names)
    record = site / "Big_Lib-2.0.dist-info/RECORD"
    lines = record.read_text().splitlines()
    lines += [
        "Big_Lib-2.0.dist-info/INSTALLER,sha256=abc,3",
        "../../../bin/big,sha256=def,9",
        "biglib/x.pyc,,",
    ]
    record.write_text("\n".join(reversed(lines)))
    assert builds_of([SiteDirectory.read(str(site), names)], names) == before


def test_files_that_every_start_obeys(site: Path) -> None:
    for name in ("b.pth", "sitecustomize.py", "__editable___own_finder.py", "usercustomize.py", "other.txt"):
        (site / name).write_text("")
    assert [Path(path).name for path in start_files([str(site), "/nowhere"])] == [
        "__editable___own_finder.py", "b.pth", "sitecustomize.py", "usercustomize.py",
    ]  # fmt: skip


def test_questions_about_the_whole_installation(site: Path) -> None:
    places = Places("/project", [], {})
    places.add_interpreter((str(site.parents[2]),), "", [str(site)])
    log = AgentLog({"program": [""], "cwd": "/"}, 0)
    log.sys_path[str(site)] = None
    asked = [f"{site}/Big_Lib-2.0.dist-info/entry_points.txt"]
    found = find_modules([log], (), places, asked, [f"{site}/biglib", str(site), "/elsewhere"])
    assert {ALL_INSTALLED, f"{LISTED}biglib", f"{LISTED}."} <= found.distributions.keys()
    assert not any("elsewhere" in name for name in found.distributions)


def find(site: Path, *, opened: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str], set[str]]:
    places = Places("/project", [], {})
    places.add_interpreter((str(site.parents[2]),), "", [str(site)])
    log = AgentLog({"program": [""], "cwd": "/"}, 0)
    log.sys_path[str(site)] = None
    log.modules.update({Path(name).stem: f"{site}/{name}" for name in opened if name.endswith(".py")})
    found = find_modules([log], (), places, [f"{site}/{name}" for name in opened])
    return found.modules, found.distributions, found.loose_files


def test_a_version_stands_for_files_from_an_index(site: Path) -> None:
    modules, distributions, loose = find(site, opened=("biglib/core.py", "biglib/data.csv"))
    assert (modules, distributions, loose) == ({}, {"Big_Lib": "2.0"}, set())


def test_local_loose_and_changed_files_are_code(site: Path) -> None:
    (site / "biglib/core.py").write_text("A = 3\n")
    modules, distributions, _ = find(site, opened=("biglib/core.py", "own_tool.py", "loose.py"))
    assert set(modules.values()) == {
        f"{site}/{name}" for name in ("biglib/core.py", "own_tool.py", "loose.py")
    }
    assert distributions == {"Big_Lib": "2.0", "own_tool": "0.1"}


def test_damaged_metadata_is_no_error(site: Path) -> None:
    (site / "Big_Lib-2.0.dist-info/RECORD").write_bytes(b'\xff\xfe"unfinished')
    (site / "broken-1.0.dist-info").write_text("a file where a directory is meant")
    read = SiteDirectory.read(str(site))
    assert read.owner_of(f"{site}/biglib/core.py") is None
    assert SiteDirectory.read("/nowhere").distributions == {}


@pytest.mark.parametrize(
    ("bytecode", "prefix", "source"),
    [
        ("/p/__pycache__/a.cpython-311.pyc", None, "/p/a.py"),
        ("/p/__pycache__/a.cpython-311.opt-2.pyc", None, "/p/a.py"),
        ("/p/__pycache__/a.b.cpython-311.pyc", None, "/p/a.b.py"),
        ("/p/a.pyc", None, "/p/a.pyc"),
        ("/cache/p/a.cpython-312.pyc", "/cache", "/p/a.py"),
        ("/p/__pycache__/a.cpython-312.pyc", "/cache", "/p/a.py"),
    ],
)
def test_source_of_bytecode(bytecode: str, prefix: str | None, source: str) -> None:
    assert source_of_bytecode(bytecode, prefix) == source


@pytest.mark.parametrize(
    ("name", "generated"),
    [
        ("__editable___tool_finder.py", True),
        ("distutils-precedence.pth", True),
        ("_distutils_hack/__init__.py", True),
        ("tool.py", False),
    ],
)
def test_generated_files(name: str, generated: bool) -> None:
    assert is_generated(f"/venv/lib/python3.11/site-packages/{name}") == generated
