"""Events in, accesses out: what was there before the run, and what the run made itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lichen.runs.trace.accesses import AccessTable
from lichen.runs.trace.agent_log import ABSENT, LEVEL_LINK, Flag, Kind, Record
from lichen.runs.trace.places import Places
from lichen.runs.trace.trace import Access, StatKey

REGULAR, DIRECTORY, FIFO, CHARACTER = 8, 4, 1, 2
WRITE = Flag.WRITE_ONLY | Flag.CREATE | Flag.TRUNCATE
APPEND = Flag.WRITE_ONLY | Flag.CREATE | Flag.APPEND


class Story:
    """Events of a run, told in order."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.table = AccessTable(Places(str(root), [], {"HOME": "/home/nobody"}))
        self.clock: Iterator[int] = iter(range(1, 10**6))

    def tell(self, kind: int, name: str, flags: int = 0, extra: str = "", means: str = "audit") -> None:
        path = name if name.startswith("/") else f"{self.root}/{name}"
        try:
            status = os.lstat(path)
            type_, state = status.st_mode >> 12, StatKey.of(status)
        except OSError:
            type_, state = ABSENT, None
        extra = f"{self.root}/{extra}" if kind == Kind.MOVE else extra
        self.table.add_all([Record(next(self.clock), kind, path, type_, flags, state, extra, means)])

    def write(self, name: str, text: str = "x") -> None:
        """Tell of a file being written, and write it."""
        self.tell(Kind.OPEN, name, WRITE)
        (self.root / name).write_text(text)

    def end(self) -> dict[str, set[str]]:
        """Accesses by kind, named from the project."""
        found: dict[str, set[str]] = {}
        for access in self.accesses():
            found.setdefault(access.kind, set()).add(access.path.removeprefix(f"{self.root}/"))
        return found

    def accesses(self) -> tuple[Access, ...]:
        return self.table.finish()


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path)


def test_a_read_keeps_its_first_state_and_every_means(story: Story) -> None:
    (story.root / "a").write_text("1")
    first = StatKey.of((story.root / "a").stat())
    story.tell(Kind.OPEN, "a")
    (story.root / "a").write_text("22")
    story.tell(Kind.OPEN, "a", means="preload")
    (access,) = story.accesses()
    assert (access.kind, access.stat, access.order) == ("read", first, 0)
    assert access.by == {"audit", "preload"}


def test_what_is_written_first_is_no_input(story: Story) -> None:
    story.write("a")
    story.tell(Kind.OPEN, "a")
    story.tell(Kind.STAT, "a", 3)
    assert story.end() == {"write": {"a"}}


def test_reading_then_writing_gives_both_in_order(story: Story) -> None:
    (story.root / "a").write_text("1")
    story.tell(Kind.OPEN, "a")
    story.write("a", "2")
    read, written = story.accesses()
    assert (read.kind, written.kind) == ("read", "write")
    assert written.stat is not None


def test_a_write_that_failed_leaves_a_read(story: Story) -> None:
    (story.root / "a").write_text("1")
    story.tell(Kind.OPEN, "a", WRITE)  # refused: the file is as it was
    story.tell(Kind.OPEN, "a")
    assert story.end() == {"read": {"a"}}


@pytest.mark.parametrize(
    ("flags", "changed", "kind"),
    [
        (Flag.READ_WRITE, True, "update"),
        (Flag.READ_WRITE | Flag.CREATE, False, "read"),
        (Flag.WRITE_ONLY | Flag.CREATE, True, "update"),
        (APPEND, True, "append"),
        (APPEND, False, "stat"),
        (Flag.READ_WRITE | Flag.APPEND, True, "update"),
    ],
)
def test_opened_for_change(story: Story, flags: int, changed: bool, kind: str) -> None:
    path = story.root / "a"
    path.write_text("1")
    story.tell(Kind.OPEN, "a", flags)
    if changed:
        path.write_text("12")
    assert story.end() == {kind: {"a"}}


def test_appending_to_what_is_not_there_yet_is_told(story: Story) -> None:
    """The first run makes the file, the second would add to it."""
    story.tell(Kind.OPEN, "a", APPEND)
    (story.root / "a").write_text("1")
    assert story.end() == {"append": {"a"}, "write": {"a"}}


def test_temporary_files_leave_no_trace(story: Story) -> None:
    story.write("t")
    story.tell(Kind.DELETE, "t")
    (story.root / "t").unlink()
    story.tell(Kind.STAT, "t", 1)
    assert story.end() == {}


def test_a_removed_file_is_told(story: Story) -> None:
    (story.root / "a").write_text("1")
    story.tell(Kind.DELETE, "a")
    (story.root / "a").unlink()
    story.tell(Kind.OPEN, "a")
    (access,) = story.accesses()
    assert (access.kind, access.detail) == ("write", "deleted")
    assert access.stat is not None


def test_a_removal_that_failed_is_not_told(story: Story) -> None:
    (story.root / "a").write_text("1")
    story.tell(Kind.DELETE, "a")
    assert "write" not in story.end()


def test_rename_makes_the_new_name_the_runs_own(story: Story) -> None:
    story.write("a.tmp")
    story.tell(Kind.MOVE, "a.tmp", extra="a")
    (story.root / "a.tmp").rename(story.root / "a")
    story.tell(Kind.OPEN, "a")
    assert story.end() == {"write": {"a"}}


def test_a_directory_the_run_made_hides_everything_below(story: Story) -> None:
    story.tell(Kind.STAT, "out", 1)
    story.tell(Kind.MKDIR, "out")
    (story.root / "out").mkdir()
    story.tell(Kind.STAT, "out/x", 1)
    story.tell(Kind.LIST, "out")
    story.write("out/y")
    accesses = {(a.kind, a.path.removeprefix(f"{story.root}/"), a.detail) for a in story.accesses()}
    assert accesses == {("absent", "out", "made-directory"), ("write", "out/y", "")}


def test_listing_of_a_missing_directory_is_an_absence(story: Story) -> None:
    story.tell(Kind.LIST, "nowhere")
    assert story.end() == {"absent": {"nowhere"}}


def test_a_listing_taken_down_leaves_out_what_the_run_had_made(story: Story) -> None:
    (story.root / "d").mkdir()
    for name in ("old", "gone"):
        (story.root / "d" / name).write_text("")
    story.write("d/new")
    story.tell(Kind.DELETE, "d/gone")
    (story.root / "d/gone").unlink()
    story.tell(Kind.LIST, "d", extra="new/old/")
    listed = next(a for a in story.accesses() if a.kind == "list")
    assert listed.names == ("gone", "old")


def test_an_empty_listing_is_not_an_unknown_one(story: Story) -> None:
    (story.root / "d").mkdir()
    story.tell(Kind.LIST, "d", extra="/")
    (story.root / "d/later").write_text("")
    assert next(a for a in story.accesses() if a.kind == "list").names == ()


def test_a_listing_nobody_took_down_is_unknown_once_others_changed_it(story: Story) -> None:
    import time

    (story.root / "d").mkdir()
    (story.root / "d/old").write_text("")
    story.clock = iter([time.monotonic_ns()])
    story.tell(Kind.LIST, "d", means="preload")
    time.sleep(0.02)
    (story.root / "d/foreign").write_text("")
    assert next(a for a in story.accesses() if a.kind == "list").names is None


def test_pipes_devices_and_standard_input(story: Story) -> None:
    os.mkfifo(story.root / "pipe")
    story.tell(Kind.OPEN, "pipe")
    story.tell(Kind.OPEN, "/dev/null")
    story.tell(Kind.OPEN, "/dev/stdin")
    story.table.add(Record(10**7, Kind.OPEN, "/dev/video0", CHARACTER, 0, None))
    assert story.end() == {}
    assert story.table.fifos == {f"{story.root}/pipe"}
    assert story.table.devices == {"/dev/video0"}
    assert story.table.stdin_opened


def test_system_files_are_left_out(story: Story) -> None:
    for path in ("/usr/lib/os-release", "/etc/passwd", "/proc/self/status", "/usr/share/zoneinfo/UTC"):
        story.tell(Kind.OPEN, path)
    assert story.end() == {}


def test_looking_closer_is_remembered(story: Story) -> None:
    (story.root / "a").write_text("1")
    for level, detail in ((1, "type"), (3, "mode"), (2, "mode"), (4, "times"), (3, "times")):
        story.tell(Kind.STAT, "a", level)
        (access,) = story.accesses()
        assert access.detail == detail


def test_a_link_that_was_read_counts_by_itself(story: Story) -> None:
    (story.root / "run-1").mkdir()
    (story.root / "current").symlink_to("run-1")
    story.tell(Kind.STAT, "current", LEVEL_LINK)
    assert story.accesses() == ()
    assert story.table.links == {f"{story.root}/current"}


def test_a_moved_directory_brings_its_files(story: Story) -> None:
    (story.root / "staging").mkdir()
    (story.root / "staging/f").write_text("")
    story.tell(Kind.MKDIR, "other")
    story.tell(Kind.MOVE, "staging", extra="final")
    (story.root / "staging").rename(story.root / "final")
    found = story.end()
    assert "final/f" in found["write"]
    assert "staging" in found["write"], "it was there before and is gone"


def test_a_listing_that_differed_the_second_time_is_known_by_nobody(story: Story) -> None:
    (story.root / "d").mkdir()
    story.tell(Kind.LIST, "d", extra="old/")
    story.tell(Kind.LIST, "d", extra="came/old/")
    assert next(a for a in story.accesses() if a.kind == "list").names is None


def test_what_the_run_itself_made_between_two_listings_makes_no_difference(story: Story) -> None:
    (story.root / "d").mkdir()
    (story.root / "d/old").touch()
    story.tell(Kind.LIST, "d", extra="old/")
    story.write("d/own")
    story.tell(Kind.LIST, "d", extra="__pycache__/old/own/")
    assert next(a for a in story.accesses() if a.kind == "list").names == ("old",)


def test_a_link_that_was_followed_and_is_gone_is_not_forgotten(story: Story) -> None:
    (story.root / "link").symlink_to("target")
    story.tell(Kind.STAT, "link", LEVEL_LINK)
    (story.root / "link").unlink()
    story.accesses()
    assert story.table.links == {f"{story.root}/link"}


def test_what_is_looked_for_among_installed_packages_in_vain_is_kept(story: Story, tmp_path: Path) -> None:
    site = tmp_path / "venv/lib/python3.12/site-packages"
    (site / "tool").mkdir(parents=True)
    (site / "tool/there").write_text("1")
    story.table.places.add_interpreter((str(tmp_path / "venv"),), "", [str(site)])
    for name in ("tool/plug", "tool/there"):
        story.tell(Kind.STAT, str(site / name))
    story.tell(Kind.OPEN, str(site / "tool/settings"))
    assert story.table.site_absent == {f"{site}/tool/plug", f"{site}/tool/settings"}


def test_changed_attributes_count_of_what_was_there_before(story: Story, tmp_path: Path) -> None:
    (tmp_path / "tool.sh").write_text("1")
    story.write("made")
    for name in ("tool.sh", "made", "missing"):
        story.tell(Kind.ATTRIBUTES, name)
    assert story.table.attributes == {f"{tmp_path}/tool.sh"}
