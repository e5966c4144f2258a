"""Be shown every system call with a path before the kernel carries it out: sees what no other means sees, at a price.

The launcher puts a filter around the command; here a thread answers each notification with "continue" after reading the path
from the caller's memory. Static programs, direct system calls and isolated interpreters are all seen. Each call costs some
20 microseconds, so this is an option for runs that are otherwise only partial.

Source: Linux ``seccomp_unotify(2)``. Differs: a path could be changed between the look and the call; the tracer observes a
command, it does not guard against it.
"""

# Paths are the run's own strings.
# ruff: noqa: PTH106, PTH108, PTH112, PTH113, PTH115, PTH116, PTH123

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import platform
import re
import select
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lichen.runs.trace.agent.lichen_seccomp_launch import NUMBERS
from lichen.runs.trace.agent_log import ABSENT, LEVEL_LINK, Flag, Kind, Record
from lichen.runs.trace.preload_log import Image, PreloadLog, Started
from lichen.runs.trace.trace import StatKey

__all__ = ["LAUNCHER", "SystemCallWatch", "without_imports"]

LAUNCHER = str(Path(__file__).parent / "agent" / "lichen_seccomp_launch.py")
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_NOTIFICATION = struct.Struct("<QIIiIQ6Q")
_ANSWER = struct.Struct("<QqiI")
_CONTINUE = 1
_CURRENT = -100  # AT_FDCWD
_PAGE = 4096
_PATH_BYTES_MAX = 4096
_ARGUMENTS_MAX = 4096
_STARTING_SECONDS_MAX = 30.0
_LOOKS_TYPE = frozenset(("access", "faccessat", "faccessat2"))
_AT_CALLS = {  # position of directory descriptor and path
    "openat": (0, 1), "openat2": (0, 1), "newfstatat": (0, 1), "statx": (0, 1), "faccessat": (0, 1), "faccessat2": (0, 1),
    "readlinkat": (0, 1), "unlinkat": (0, 1), "mkdirat": (0, 1), "execveat": (0, 1), "symlinkat": (1, 2),
}  # fmt: skip
_INTERPRETER_NAMES = frozenset(
    ("pyvenv.cfg", "pybuilddir.txt", "Setup.local", "lib-dynload", "__pycache__", ".lichen-agent-present")
)
_STDLIB_ARCHIVE = re.compile(r"python3\d+\.zip|.*\._pth")
_DIRECTORY = 4
_PLAIN_PATH = {"symlink": 1}


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


@dataclass
class SystemCallWatch:
    """Watches one command.

    Attributes:
        log: What was seen, in the form the preload library's log has.
        address: Socket on which the launcher is awaited.
        is_installed: The launcher came and the kernel accepted the filter.
    """

    log: PreloadLog = field(default_factory=PreloadLog)
    address: str = ""
    is_installed: bool = False
    _folder: str = ""
    _listener: socket.socket | None = None
    _thread: threading.Thread | None = None
    _stopping: bool = False
    _seen: set[tuple[Any, ...]] = field(default_factory=set)
    _names: dict[int, str] = field(default_factory=dict)

    def start(self) -> bool:
        """Await the launcher; False on a machine that cannot do this."""
        machine = platform.machine()
        if platform.system() != "Linux" or machine not in NUMBERS:
            return False
        self._names = {number: name for name, number in NUMBERS[machine].items()}
        self._folder = tempfile.mkdtemp(prefix="lichen-")
        self.address = f"{self._folder}/s"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.address)
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._run, name="lichen-seccomp", daemon=True)
        self._thread.start()
        return True

    def stop(self) -> None:
        """Take in what is left; every process below the filter should have ended."""
        self._stopping = True
        if self._thread is not None:
            self._thread.join(timeout=5)
        if self._listener is not None:
            self._listener.close()
            with contextlib.suppress(OSError):
                os.unlink(self.address)
                os.rmdir(self._folder)

    def _run(self) -> None:
        descriptor = self._await_launcher()
        if descriptor is None:
            return
        self.is_installed = True
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        while True:
            events = poller.poll(100)
            if events and events[0][1] & select.POLLIN:
                self._answer(descriptor)
            elif events or self._stopping:
                break
        os.close(descriptor)

    def _await_launcher(self) -> int | None:
        """Take the descriptor the launcher hands over."""
        assert self._listener is not None
        self._listener.settimeout(0.1)
        deadline = time.monotonic() + _STARTING_SECONDS_MAX
        while not self._stopping and time.monotonic() < deadline:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return None
            with connection:
                connection.settimeout(_STARTING_SECONDS_MAX)
                try:
                    _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
                    connection.send(b"x")
                except OSError:
                    return None
                return descriptors[0] if descriptors else None
        return None

    def _answer(self, descriptor: int) -> None:
        """Look at one call and let it go on."""
        buffer = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(descriptor, _RECEIVE, buffer)
        except OSError:
            return  # its process was killed meanwhile
        identity, pid, _, number, _, _, *arguments = _NOTIFICATION.unpack(buffer)
        try:
            self._look(self._names.get(number, ""), pid, arguments)
        except Exception:  # whatever it is, the command must go on; what was not understood is missing
            self.log.failed = True
        with contextlib.suppress(OSError):
            fcntl.ioctl(descriptor, _SEND, _ANSWER.pack(identity, 0, 0, _CONTINUE))

    def _look(self, name: str, pid: int, arguments: Sequence[int]) -> None:
        """Write down what one call asks for."""
        if name in ("connect", "bind"):
            self._address(name, pid, arguments[1], arguments[2])
            return
        at, place = _AT_CALLS.get(name, (None, _PLAIN_PATH.get(name, 0)))
        if name in ("rename", "link"):
            self._pair(name, pid, (_CURRENT, arguments[0]), (_CURRENT, arguments[1]))
            return
        if name in ("renameat", "renameat2", "linkat"):
            self._pair(name, pid, (arguments[0], arguments[1]), (arguments[2], arguments[3]))
            return
        path = self._path(pid, _CURRENT if at is None else arguments[at], arguments[place])
        if not path:
            return
        if name in ("execve", "execveat"):
            self._exec(pid, path, arguments[1 if name == "execve" else 2])
        elif name in ("open", "openat", "openat2", "creat"):
            self._open(name, pid, path, arguments)
        elif name in ("unlink", "unlinkat", "rmdir"):
            self._note(Kind.DELETE, path, 0, follow=False)
        elif name in ("mkdir", "mkdirat"):
            self._note(Kind.MKDIR, path, 0)
        elif name in ("symlink", "symlinkat"):
            self._note(Kind.OPEN, path, Flag.WRITE_ONLY | Flag.CREATE | Flag.EXCLUSIVE, follow=False)
        elif name == "truncate":
            self._note(Kind.OPEN, path, Flag.WRITE_ONLY)
        else:
            level = LEVEL_LINK if name.startswith(("readlink", "chdir")) else 2
            self._note(Kind.STAT, path, 1 if name in _LOOKS_TYPE else level)

    def _open(self, name: str, pid: int, path: str, arguments: Sequence[int]) -> None:
        if name == "creat":
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        elif name == "openat2":
            flags = struct.unpack("<Q", _read(pid, arguments[2], 8).ljust(8, b"\0"))[0]
        else:
            flags = arguments[1 if name == "open" else 2]
        if flags & getattr(os, "O_PATH", 0) or flags & os.O_TMPFILE == os.O_TMPFILE:
            return
        packed = (
            (flags & 3)
            | (Flag.CREATE if flags & os.O_CREAT else 0)
            | (Flag.TRUNCATE if flags & os.O_TRUNC else 0)
            | (Flag.APPEND if flags & os.O_APPEND else 0)
        )
        is_listing = flags & os.O_DIRECTORY or (not packed and os.path.isdir(path))
        self._note(Kind.LIST if is_listing else Kind.OPEN, path, 0 if is_listing else packed)

    def _pair(self, name: str, pid: int, first: tuple[int, int], second: tuple[int, int]) -> None:
        source, target = self._path(pid, *first), self._path(pid, *second)
        if not source or not target:
            return
        self._note(
            Kind.OPEN, target, Flag.WRITE_ONLY | Flag.CREATE | Flag.TRUNCATE, follow=False, always=True
        )
        if name.startswith("rename"):
            self._note(Kind.MOVE, source, 0, target, follow=False)
        else:
            self._note(Kind.OPEN, source, 0)

    def _note(
        self, kind: int, path: str, flags: int, extra: str = "", *, follow: bool = True, always: bool = False
    ) -> None:
        """Write a record with the state before the call; opens and looks only once."""
        repeats = always or kind in (Kind.DELETE, Kind.MOVE, Kind.MKDIR)
        try:
            status = os.stat(path, follow_symlinks=follow)
        except (OSError, ValueError):
            type_, state = ABSENT, None
        else:
            type_, state = status.st_mode >> 12, StatKey.of(status)
        key = (kind, path, flags, state is None)
        if repeats or key not in self._seen:
            self._seen.add(key)
            self.log.records.append(
                Record(time.monotonic_ns(), kind, path, type_, flags, state, extra, "seccomp")
            )

    def _exec(self, pid: int, path: str, argv_address: int) -> None:
        """A program is about to replace a process; a name that is not there is a step of a search along PATH."""
        if not (os.path.isfile(path) and os.access(path, os.X_OK)):
            self._note(Kind.STAT, path, 1)
            return
        now = time.monotonic_ns()
        owner, parent = _owner(pid)
        argv = _strings(pid, argv_address)
        try:
            stdin = os.stat(f"/proc/{pid}/fd/0")
        except OSError:
            state, type_ = None, 0
        else:
            state, type_ = StatKey.of(stdin), stdin.st_mode >> 12
        self.log.starts.append(Started(now, owner, path, argv, True))
        self.log.images.append(Image(now, owner, parent, _image(path), argv, state, type_))

    def _path(self, pid: int, directory: int, address: int) -> str:
        """Name a path argument from the root; empty when it cannot be read or names only a descriptor."""
        text = os.fsdecode(_read_text(pid, address))
        if not text:
            return ""
        if not text.startswith("/"):
            low = ctypes.c_int(directory & 0xFFFFFFFF).value
            link = f"/proc/{pid}/cwd" if low == _CURRENT else f"/proc/{pid}/fd/{low}"
            try:
                text = f"{os.readlink(link)}/{text}"
            except OSError:
                return ""
        if text.startswith("/proc/self/"):
            text = f"/proc/{pid}/{text[11:]}" if not text.startswith("/proc/self/fd/0") else text
        head, dots, tail = text.rpartition("/..")
        if dots and tail[:1] in ("", "/"):
            self._note(Kind.STAT, head, LEVEL_LINK)
            text = os.path.realpath(head + dots) + tail
        return text

    def _address(self, name: str, pid: int, address: int, size: int) -> None:
        data = _read(pid, address, min(size, 128))
        if len(data) < 2:
            return
        family = struct.unpack_from("<H", data)[0]
        peer: tuple[int, Any]
        if family == socket.AF_INET and len(data) >= 8:
            peer = (2, (socket.inet_ntop(family, data[4:8]), struct.unpack_from(">H", data, 2)[0]))
        elif family == socket.AF_INET6 and len(data) >= 24:
            peer = (10, (socket.inet_ntop(family, data[8:24]), struct.unpack_from(">H", data, 2)[0]))
        elif family == socket.AF_UNIX:
            raw = data[2:]
            text = os.fsdecode(raw if raw[:1] == b"\0" else raw.split(b"\0")[0])
            peer = (1, text)
        else:
            peer = (family, "")
        if family:
            (self.log.connects if name == "connect" else self.log.binds).append(peer)


def without_imports(
    records: Iterable[Record], known: Container[str], directories: Container[str]
) -> list[Record]:
    """Leave out looks that interpreters, agents and the library make on their own account: system calls tell no one apart.

    Args:
        records: What the filter showed.
        known: Paths of which the agents or the library reported a look or an open; they know better who looked, and how closely.
        directories: Where modules are imported from.
    """
    kept = []
    for record in records:
        folder, _, name = record.path.rpartition("/")
        if record.kind == Kind.STAT:
            is_module = name.endswith((".py", ".pyc", ".so")) or (
                record.type == ABSENT and folder in directories
            )
            is_own = name in _INTERPRETER_NAMES or _STDLIB_ARCHIVE.fullmatch(name)
            if is_module or is_own or record.path in known or record.type == _DIRECTORY:
                continue
        elif record.kind == Kind.LIST and record.path in directories:
            continue
        kept.append(record)
    return kept


def _image(path: str) -> str:
    """The program that the kernel really runs: a script's interpreter."""
    for _ in range(4):
        try:
            with open(path, "rb") as file:
                head = file.read(256)
        except OSError:
            break
        words = os.fsdecode(head[2:].split(b"\n")[0]).split() if head.startswith(b"#!") else []
        if not words:
            break
        path = words[0]
    return os.path.realpath(path)


def _owner(pid: int) -> tuple[int, int]:
    """Process number and parent of a thread."""
    numbers = {"Tgid:": pid, "PPid:": 0}
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/status", encoding="utf-8") as file:
        for line in file:
            name, _, value = line.partition("\t")
            if name in numbers:
                numbers[name] = int(value)
    return numbers["Tgid:"], numbers["PPid:"]


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.process_vm_readv.restype = ctypes.c_ssize_t
    libc.process_vm_readv.argtypes = (
        ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong
    )  # fmt: skip
    return libc


def _read(pid: int, address: int, size: int) -> bytes:
    """Read a process's memory; short or empty where it is not mapped."""
    if not address or size <= 0:
        return b""
    into = ctypes.create_string_buffer(size)
    here, there = _Vector(ctypes.addressof(into), size), _Vector(address, size)
    got = _libc().process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    return into.raw[:got] if got > 0 else b""


def _read_text(pid: int, address: int) -> bytes:
    """Read up to a zero byte, page by page, because the next page may not be there."""
    text = b""
    while len(text) < _PATH_BYTES_MAX:
        data = _read(pid, address + len(text), _PAGE - (address + len(text)) % _PAGE)
        head, end, _ = data.partition(b"\0")
        text += head
        if end or not data:
            break
    return text


def _strings(pid: int, address: int) -> tuple[str, ...]:
    """Read an array of strings, as exec takes it."""
    found: list[str] = []
    while address and len(found) < _ARGUMENTS_MAX:
        data = _read(pid, address + 8 * len(found), 8)
        pointer = struct.unpack("<Q", data)[0] if len(data) == 8 else 0
        if not pointer:
            break
        found.append(os.fsdecode(_read_text(pid, pointer)))
    return tuple(found)
