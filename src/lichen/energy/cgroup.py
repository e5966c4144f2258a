"""A control group of one's own around a process tree, where the system lets us make one.

A cgroup v2 counts the processor time of everything that ever ran in it, exactly and for free: short children, daemons,
children nobody waits for. Rules upheld here:

* Made only where it was handed to us: below a directory owned by this (unprivileged) user, below one marked as
  delegated, or in a hierarchy nobody manages (this process sits at its root).
* No controller is switched on, so nothing about the processes inside changes but their account.
* Removed at the end; processes still alive go back to where they came from.

Source: Linux Documentation/admin-guide/cgroup-v2.rst, "Delegation"; systemd CGROUP_DELEGATION.md.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final, Self

__all__ = ["ControlGroup"]

_PREFIX: Final = "lichen-"
_DELEGATION_MARKS: Final = ("trusted.delegate", "user.delegate")
_REMOVE_TRIES: Final = 10
_REMOVE_PAUSE_SECONDS: Final = 0.002


class ControlGroup:
    """A child control group made by :meth:`create`.

    Args:
        directory: Its directory, which exists and is ours.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._join = os.open(directory / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)

    @classmethod
    def create(cls, parent: Path | None = None) -> Self | None:
        """Make a group below ``parent`` (default: the group of this process); None where that is not permitted."""
        parent = parent or _own_delegated_directory()
        if parent is None:
            return None
        _sweep(parent)
        directory = parent / f"{_PREFIX}{os.getpid()}-{os.urandom(4).hex()}"
        try:
            directory.mkdir()
        except OSError:
            return None
        try:
            group = cls(directory)
        except OSError:
            directory.rmdir()
            return None
        if group.cpu_seconds() is None:
            group.remove()
            return None
        _mark_delegated(directory)
        return group

    def join(self) -> None:
        """Move the calling process in; called between fork and exec, so it neither allocates much nor raises."""
        try:
            os.write(self._join, b"0")
        except OSError:
            return

    def add(self, pid: int) -> bool:
        """Move another process in and say whether that worked."""
        try:
            os.write(self._join, str(pid).encode())
        except OSError:
            return False
        return True

    def cpu_seconds(self) -> float | None:
        """Return the processor seconds of everything that ran in the group, or None when it cannot be read."""
        try:
            lines = (self.directory / "cpu.stat").read_text().splitlines()
        except OSError:
            return None
        for line in lines:
            name, _, value = line.partition(" ")
            if name == "usage_usec":
                return int(value) / 1e6
        return None

    def pids(self) -> list[int]:
        """Return the processes inside now, those of groups made below it included."""
        found: list[int] = []
        for file in (self.directory / "cgroup.procs", *self.directory.glob("*/**/cgroup.procs")):
            try:
                found.extend(int(line) for line in file.read_text().split())
            except OSError:
                continue
        return found

    def remove(self) -> None:
        """Move what is left to the parent group and delete this one.

        A process that is just ending holds its group a moment longer; a group that cannot be deleted by then stays,
        empty, until the next one is made beside it.
        """
        os.close(self._join)
        nested = sorted(self.directory.glob("*/**/cgroup.procs"), key=lambda file: -len(file.parts))
        parent = self.directory.parent / "cgroup.procs"
        for pid in self.pids():
            try:
                parent.write_text(str(pid))
            except OSError:
                continue
        for directory in [*(file.parent for file in nested), self.directory]:
            for _ in range(_REMOVE_TRIES):
                try:
                    directory.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(_REMOVE_PAUSE_SECONDS)
                else:
                    break


def _sweep(parent: Path) -> None:
    """Delete empty groups that a Lichen process, gone by now, could not delete."""
    for directory in parent.glob(f"{_PREFIX}*"):
        owner = directory.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            try:
                directory.rmdir()
            except OSError:
                continue


def _own_delegated_directory() -> Path | None:
    """Return the directory of this process's cgroup v2 when groups may be made in it."""
    try:
        memberships = Path("/proc/self/cgroup").read_text().splitlines()
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    own = next((line.removeprefix("0::") for line in memberships if line.startswith("0::")), None)
    if own is None:
        return None
    for line in mounts:
        before, _, after = line.partition(" - ")
        if after.split(" ", 1)[0] != "cgroup2":
            continue
        _, _, _, root, mount_point, *_ = before.split()
        relative = os.path.relpath(own, root)
        if relative.startswith(".."):
            continue
        directory = Path(mount_point) / relative
        return directory if _is_delegated(directory, at_root=own == "/") else None
    return None


def _mark_delegated(directory: Path) -> None:
    """Say that groups may be made below ours, so that a run inside a run finds its own."""
    for mark in _DELEGATION_MARKS:
        try:
            os.setxattr(directory, mark, b"1")
        except OSError:
            continue
        else:
            return


def _is_delegated(directory: Path, *, at_root: bool) -> bool:
    try:
        owner = directory.stat().st_uid
    except OSError:
        return False
    if not os.access(directory, os.W_OK) or owner != os.geteuid():
        return False
    if owner != 0 or at_root:
        return True
    for mark in _DELEGATION_MARKS:
        try:
            if os.getxattr(directory, mark) == b"1":
                return True
        except OSError:
            continue
    return False
