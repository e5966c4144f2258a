"""Whether the state of a file will tell of every later change, so that its digest may be remembered.

Whoever writes to a file moves its ctime, with three exceptions:

- A change in the same clock tick as the one before leaves the times as they are.
- A program that has mapped a file moves the times when it dirties a page, and not again until the kernel has written that
  page to disk, which takes half a minute. Only a mapping that is there now can do so: a new one moves the times first.
- In file systems that live in memory a mapping never moves them.

Source:
    Linux, Documentation/admin-guide/sysctl/vm.rst, "dirty_expire_centisecs" and "dirty_writeback_centisecs"; proc_pid_maps(5).
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

__all__ = ["RACY_NS", "Settling"]

RACY_NS = 2_000_000_000  # longer than a tick of any file system's clock; FAT's is two seconds
_WRITTEN_BACK_SECONDS_MIN = 60
_IN_MEMORY = frozenset(("tmpfs", "ramfs", "hugetlbfs", "devtmpfs"))
_SPARED_COUNT_MAX = 32
_SPARED_BYTES_MAX = 8 * 2**20  # (= 8388608) bytes of files changed lately, likewise
_TIME_MAX = 2**63


class Settling:
    """Judges states of files for one cache.

    Files changed in the last minute are few in most runs, and hashing them anew is cheaper than asking which processes have
    what mapped. Where they are many, or large, the processes are asked, once for all of them.

    Args:
        proc: The kernel's view of processes and settings.
        spared_count_max: Files changed lately that are hashed anew each time before processes are looked at. Another number in
            each process when None: what one leaves over then seldom makes the next one look again.
    """

    def __init__(self, proc: Path = Path("/proc"), spared_count_max: int | None = None) -> None:
        self._proc = proc
        self._spared_count_max = (
            _SPARED_COUNT_MAX - os.getpid() % (_SPARED_COUNT_MAX - 8)
            if spared_count_max is None
            else spared_count_max
        )
        self._spared_count = 0
        self._spared_bytes = 0
        self._scanned_ns = 0
        self._mapped: frozenset[int] = frozenset()

    def is_settled(self, state: tuple[int, ...], now_ns: int) -> bool:
        """Say whether any later change must move a file's ctime, and its times can be written down.

        Args:
            state: Device, inode, size, mtime and ctime.
            now_ns: A moment before the file was read, nanoseconds since 1970.
        """
        device, inode, size, mtime, ctime = state
        if ctime >= now_ns - RACY_NS or not -_TIME_MAX <= mtime < _TIME_MAX:
            return False
        if device in self._in_memory:
            return False
        if ctime < now_ns - self._written_back_ns:
            return True
        if ctime >= self._scanned_ns - RACY_NS:
            self._spared_count += 1
            self._spared_bytes += size
            if self._spared_count <= self._spared_count_max and self._spared_bytes <= _SPARED_BYTES_MAX:
                return False
            self._mapped = self._mapped_inodes()
            self._scanned_ns = now_ns
            return False  # this file was read before the look
        return inode not in self._mapped

    @cached_property
    def _in_memory(self) -> frozenset[int]:
        """Devices of file systems that live in memory."""
        found = set()
        try:
            lines = (self._proc / "self/mountinfo").read_bytes().splitlines()
        except OSError:
            return frozenset()
        for line in lines:
            words, _, rest = line.partition(b" - ")
            if os.fsdecode(rest.split(b" ", 1)[0]) in _IN_MEMORY:
                major, _, minor = words.split(b" ", 3)[2].partition(b":")
                found.add(os.makedev(int(major), int(minor)))
        return frozenset(found)

    @cached_property
    def _written_back_ns(self) -> int:
        """How long a dirty page may wait for the disk, doubled, since a disk can be busy."""
        seconds = 0.0
        for name in ("dirty_expire_centisecs", "dirty_writeback_centisecs"):
            try:
                seconds += int((self._proc / "sys/vm" / name).read_bytes()) / 100
            except (OSError, ValueError):
                continue
        return int(max(_WRITTEN_BACK_SECONDS_MIN, 2 * seconds) * 1e9)

    def _mapped_inodes(self) -> frozenset[int]:
        """Inodes of files that processes have mapped to write to them together; those of other users are not seen."""
        found = set()
        for entry in os.listdir(self._proc):  # noqa: PTH208 - names are enough
            if not entry.isdigit():
                continue
            try:
                text = (self._proc / entry / "maps").read_bytes()
            except OSError:
                continue
            if b"w-s " not in text and b"wxs " not in text:
                continue
            for line in text.splitlines():
                words = line.split(None, 5)
                if len(words) > 4 and words[1][1:2] == b"w" and words[1][3:4] == b"s":
                    found.add(int(words[4]))
        return frozenset(found - {0})
