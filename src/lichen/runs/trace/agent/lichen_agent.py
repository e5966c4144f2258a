"""What one Python process opens, lists, looks for, imports, starts and talks to, written down as it happens.

An audit hook sees opens, listings, imports, new processes and sockets; ``os.stat``, ``os.lstat``, ``os.access`` and ``os.open``
are wrapped because looking at a path raises no audit event and a directory descriptor is not in the event. Each
path is written once per kind. Records go into a memory-mapped file, so they outlive ``os._exit`` and SIGKILL; space is
allocated before it is mapped, so a full disk ends the log, never the program.

The format of the log is described, and read, in ``agent_log.py`` of the tracer.
"""

# Runs on Python 3.8, raises nothing, imports nothing it can do without.
# ruff: noqa: S110, SIM105, UP031
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, disallow-any-generics=False
# mypy: no-warn-return-any, no-warn-unreachable, no-strict-optional, disable-error-code="import-not-found"

from __future__ import annotations

import _struct
import itertools
import os
import posix
import sys
import time

MAGIC_PATH = (
    b"/.lichen-agent-present"  # the preload library answers this access() and learns where Python's code lies
)
CHUNK_BYTES_MIN = 1 << 16  # (= 65536)
CHUNK_BYTES_MAX = 1 << 22  # (= 4194304)
LOG_BYTES_MAX = 1 << 28  # (= 268435456) per process; beyond it the trace is no longer complete

PLAIN = _struct.Struct("<cBBxIq")  # kind, type, flags, payload bytes, monotonic ns
STATED = _struct.Struct("<cBBxIqQQqqq")  # the same, then dev, ino, size, mtime ns, ctime ns

ABSENT = 0
UNKNOWN = 15

LEVEL_TYPE, LEVEL_STATUS, LEVEL_TIMES = 1, 2, 3
TYPE_FUNCTIONS = frozenset(
    [
        "exists",
        "lexists",
        "isfile",
        "isdir",
        "islink",
        "isjunction",
        "ismount",
        "samefile",
        "is_file",
        "is_dir",
        "is_symlink",
        "is_mount",
        "is_fifo",
        "is_socket",
        "is_block_device",
        "is_char_device",
        "is_junction",
        "_exists",
        "_isdir",
    ]
)
TRANSPARENT_FUNCTIONS = frozenset(("stat", "lstat", "getmtime", "getctime", "getatime", "wrapper"))
SILENT_FUNCTIONS = frozenset(
    ("realpath", "_joinrealpath", "_realpath", "resolve", "_resolve", "updatecache", "checkcache")
)
SILENT_FILES = ("/importlib/", "/linecache.py", "/inspect.py", "/zipimport.py", "/site.py", "/tokenize.py")


class Log:
    """An append-only file of one process, written through a mapping."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.counter = itertools.count()
        self.open()

    def open(self) -> None:
        """Start a new file; also called in the child after a fork, which must not share its parent's."""
        self.size_bytes = CHUNK_BYTES_MIN
        self.total_bytes = 0
        self.add = self._new_chunk()

    def _new_chunk(self):
        import mmap

        path = "%s/agent-%d-%d-%d.log" % (
            self.directory,
            posix.getpid(),
            time.monotonic_ns(),
            next(self.counter),
        )
        self.total_bytes += self.size_bytes
        if self.total_bytes > LOG_BYTES_MAX:
            self.fail("log-full")
            return discard
        descriptor = posix.open(path, posix.O_RDWR | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o600)
        try:
            posix.posix_fallocate(descriptor, 0, self.size_bytes)
            return mmap.mmap(descriptor, self.size_bytes).write
        finally:
            posix.close(descriptor)

    def write(self, record: bytes) -> None:
        """Append a record; one C call under the interpreter lock, so threads need no other."""
        try:
            self.add(record)
        except ValueError:
            try:
                self.size_bytes = max(min(self.size_bytes * 2, CHUNK_BYTES_MAX), CHUNK_BYTES_MIN)
                while self.size_bytes < len(record):
                    self.size_bytes *= 2
                self.add = self._new_chunk()
                self.add(record)
            except Exception:  # a full disk must not reach the program
                self.add = discard
                self.fail("log-full")

    def fail(self, reason: str) -> None:
        """Leave a sign that records are missing: an empty file that needs no disk block."""
        try:
            path = "%s/failed-%d-%s" % (self.directory, posix.getpid(), reason)
            posix.close(posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_CLOEXEC, 0o600))
        except Exception:  # nothing more can be done from here
            pass


def discard(record: bytes) -> None:
    """Take a record and forget it."""


class Agent:
    """Hook, wrappers and the sets that keep each path from being written twice."""

    def __init__(self, directory: str) -> None:
        self.directory = directory + "/"
        self.preload = False
        self.log = Log(directory)
        self.opened_read: set = set()
        self.opened_write: set = set()
        self.listed: set = set()
        self.probed: dict = {}
        self.imported: set = set()
        self.path_seen: tuple = ()
        self.opening_at: set = set()
        self.stdlib = os.__file__.rpartition("/")[0] + "/"
        self.file_kinds: dict = dict.fromkeys((__file__, __file__.replace(".py", "_variables.py")), 0)
        self.handlers = {
            "open": self.make_on_open(),
            "os.listdir": self.on_list,
            "os.scandir": self.on_list,
            "import": self.on_import,
            "os.chdir": self.on_chdir,
            "os.fchdir": self.on_chdir,
            "os.rename": self.on_rename,
            "os.link": self.on_link,
            "os.symlink": self.on_symlink,
            "os.remove": self.on_remove,
            "os.rmdir": self.on_remove,
            "os.mkdir": self.on_mkdir,
            "os.truncate": self.on_truncate,
            "subprocess.Popen": self.on_popen,
            "os.exec": self.on_exec,
            "os.posix_spawn": self.on_exec,
            "os.system": self.on_system,
            "socket.connect": self.on_connect,
            "socket.sendto": self.on_connect,
            "socket.sendmsg": self.on_connect,
            "socket.bind": self.on_bind,
            "sqlite3.connect": self.on_sqlite,
            "ctypes.dlopen": self.on_dlopen,
            "builtins.input": self.on_input,
        }

    # Records.

    def plain(self, kind: bytes, payload: bytes, flags: int = 0) -> None:
        """Write a record without a file state."""
        self.log.write(PLAIN.pack(kind, 0, flags, len(payload), time.monotonic_ns()) + payload)

    def stated(self, kind: bytes, path: str, flags: int, extra: bytes = b"", follow: bool = True) -> None:
        """Write a record with the state of a path before the event."""
        payload = os.fsencode(path) + extra
        try:
            status = posix.stat(path) if follow else posix.lstat(path)
        except (OSError, ValueError):
            self.log.write(
                STATED.pack(kind, ABSENT, flags, len(payload), time.monotonic_ns(), 0, 0, 0, 0, 0) + payload
            )
            return
        self.state(kind, status, flags, payload)

    def state(self, kind: bytes, status: os.stat_result, flags: int, payload: bytes) -> None:
        """Write a record with a file state already at hand."""
        self.log.write(
            STATED.pack(
                kind, status.st_mode >> 12, flags, len(payload), time.monotonic_ns(), status.st_dev, status.st_ino,
                status.st_size, status.st_mtime_ns, status.st_ctime_ns,
            )
            + payload
        )  # fmt: skip

    # Names.

    def absolute(self, path, directory_descriptor=None) -> str | None:
        """Name a path from the root; ``..`` after a link is resolved, because removing it as text would name another file."""
        if isinstance(path, int):
            try:
                return posix.readlink("/proc/self/fd/%d" % path)
            except OSError:
                return None
        text = os.fsdecode(path)
        if not text.startswith("/"):
            if isinstance(directory_descriptor, int) and directory_descriptor >= 0:
                text = posix.readlink("/proc/self/fd/%d" % directory_descriptor) + "/" + text
            else:
                text = posix.getcwd() + "/" + text
        if ".." in text:
            head, dots, tail = text.rpartition("/..")
            if dots and (not tail or tail[0] == "/"):
                text = os.path.realpath(head + dots) + tail
        return text

    def kind_of_file(self, file: str) -> int:
        """Say whose code a source file is: 0 the standard library's, 1 an installed package's, 2 the user's."""
        kind = self.file_kinds.get(file)
        if kind is None:
            if "/site-packages/" in file or "/dist-packages/" in file:
                kind = 1
            elif file.startswith((self.stdlib, "<frozen ")):
                kind = 0
            else:
                kind = 2
            self.file_kinds[file] = kind
        return kind

    # Opens.

    def make_on_open(self):
        """Build the handler that runs most often, with everything it needs in local names."""
        opened_read, opened_write, own, opening_at = (
            self.opened_read,
            self.opened_write,
            self.directory,
            self.opening_at,
        )
        writing = posix.O_WRONLY | posix.O_RDWR | posix.O_CREAT | posix.O_TRUNC | posix.O_APPEND
        pack, now, stat, absolute, stated = (
            STATED.pack,
            time.monotonic_ns,
            posix.stat,
            self.absolute,
            self.stated,
        )
        log = self.log

        def on_open(arguments: tuple) -> None:
            path, _, flags = arguments
            if path.__class__ is not str:
                if isinstance(path, int):
                    return
                path = os.fsdecode(path)
            seen = opened_write if flags & writing else opened_read
            if path in seen or path in opening_at:
                return
            seen.add(path)
            name = absolute(path) if path[:1] != "/" or ".." in path else path
            if name.startswith(own):
                return
            if seen is opened_write:
                stated(b"O", name, open_flags(flags))
                return
            payload = name.encode("utf-8", "surrogateescape")
            try:
                status = stat(path)
            except OSError:
                log.write(pack(b"O", ABSENT, 0, len(payload), now(), 0, 0, 0, 0, 0) + payload)
                return
            log.write(
                pack(
                    b"O", status.st_mode >> 12, 0, len(payload), now(), status.st_dev, status.st_ino, status.st_size,
                    status.st_mtime_ns, status.st_ctime_ns,
                )
                + payload
            )  # fmt: skip

        return on_open

    def on_truncate(self, arguments: tuple) -> None:
        """``os.truncate`` changes a file in place."""
        if not isinstance(arguments[0], int):
            self.changed(arguments[0], posix.O_WRONLY)

    def on_sqlite(self, arguments: tuple) -> None:
        """A database is opened natively, for reading and writing unless the address says otherwise."""
        name = os.fsdecode(arguments[0]) if not isinstance(arguments[0], int) else ""
        flags = posix.O_RDWR | posix.O_CREAT
        if name.startswith("file:"):
            name, _, query = name[5:].partition("?")
            if name.startswith("//"):
                name = "/" + name[2:].partition("/")[2]
            name = name.partition("#")[0]
            if "%" in name:
                from urllib.parse import unquote

                name = unquote(name)
            if "mode=memory" in query:
                return
            if "mode=ro" in query or "immutable=1" in query:
                flags = posix.O_RDONLY
        if name and name != ":memory:":
            self.changed(name, flags)
            for suffix in ("-journal", "-wal"):  # a left-over journal changes what a reader sees
                self.stated(b"S", self.absolute(name + suffix) or "", LEVEL_STATUS, b"\0")

    def on_dlopen(self, arguments: tuple) -> None:
        """A library named by its path is code; one named without is found among the mappings at exit."""
        name = arguments[0]
        if name and not isinstance(name, int) and "/" in os.fsdecode(name):
            self.changed(name, posix.O_RDONLY)

    def changed(self, path, flags: int, directory_descriptor=None) -> None:
        """Write an open with its flags, once per path and flags."""
        name = self.absolute(path, directory_descriptor)
        key = (name, flags)
        if name and key not in self.opened_write and not name.startswith(self.directory):
            self.opened_write.add(key)
            self.stated(b"O", name, open_flags(flags))

    # Directories and names.

    def on_list(self, arguments: tuple) -> None:
        """A directory is listed; the import system and its metadata list directories for their own ends."""
        path = arguments[0]
        name = self.absolute("." if path is None else path)
        if not name or name in self.listed:
            return
        file = sys._getframe(2).f_code.co_filename
        if file.startswith("<frozen importlib") or "/importlib/" in file:
            return
        self.listed.add(name)
        self.stated(b"L", name, 0)

    def on_chdir(self, arguments: tuple) -> None:
        """Relative names mean other files from now on."""
        self.opened_read.clear()
        self.opened_write.clear()
        self.probed.clear()

    def on_rename(self, arguments: tuple) -> None:
        """One path becomes another."""
        source = self.absolute(arguments[0], arguments[2])
        target = self.absolute(arguments[1], arguments[3])
        if source and target:
            self.stated(
                b"O", target, open_flags(posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC), follow=False
            )
            self.stated(b"M", source, 0, b"\0" + os.fsencode(target), follow=False)

    def on_link(self, arguments: tuple) -> None:
        """A second name for a file: its content is read and written."""
        source = self.absolute(arguments[0], arguments[2])
        target = self.absolute(arguments[1], arguments[3])
        if source and target:
            self.stated(b"O", source, 0)
            self.stated(b"O", target, open_flags(posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL), follow=False)

    def on_symlink(self, arguments: tuple) -> None:
        """A link is made; where it leads is seen when it is opened."""
        name = self.absolute(arguments[1], arguments[2])
        if name:
            self.stated(b"O", name, open_flags(posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL), follow=False)

    def on_remove(self, arguments: tuple) -> None:
        """A path is taken away."""
        name = self.absolute(arguments[0], arguments[1])
        if name and not name.startswith(self.directory):
            self.stated(b"D", name, 0, follow=False)

    def on_mkdir(self, arguments: tuple) -> None:
        """A directory is made."""
        name = self.absolute(arguments[0], arguments[2])
        if name:
            self.stated(b"C", name, 0)

    # Imports.

    def on_import(self, arguments: tuple) -> None:
        """A module is asked for (and ``sys.path`` as it is now), or an extension module's file is loaded."""
        name, file, path = arguments[0], arguments[1], arguments[2]
        if file is not None:
            self.plain(b"I", os.fsencode(name) + b"\0" + os.fsencode(self.absolute(file) or ""))
            return
        if name not in self.imported:
            self.imported.add(name)
            self.plain(b"I", name.encode("utf-8", "surrogateescape"))
            if path.__class__ is list and tuple(path) != self.path_seen:
                self.path_seen = tuple(path)
                self.plain(b"P", repr(self.named_path()).encode("utf-8", "surrogateescape"))

    def named_path(self) -> list:
        """``sys.path`` with every entry named from the root."""
        return [self.absolute(entry or ".") for entry in sys.path if isinstance(entry, (str, bytes))]

    # Processes and peers.

    def on_popen(self, arguments: tuple) -> None:
        """A program is about to be started by ``subprocess``."""
        executable, argv, directory, environment = arguments
        self.started(executable or "", argv, directory, environment, 4)

    def on_exec(self, arguments: tuple) -> None:
        """This process becomes another program, or spawns one."""
        path, argv, environment = arguments
        self.started(path, argv, None, environment, 4)

    def on_system(self, arguments: tuple) -> None:
        """A shell command."""
        self.started("/bin/sh", ["sh", "-c", arguments[0]], None, None, 4)

    def started(self, program, argv, directory, environment, depth: int) -> None:
        """Write what is started, whether the agent goes with it, and who on the stack asked for it."""
        if isinstance(argv, (str, bytes)) or hasattr(argv, "__fspath__"):
            argv = [argv]
        texts = [os.fsdecode(part) for part in argv]
        stack = self.stack(depth) if environment is not None else ()
        payload = (
            os.fsdecode(program),
            tuple(texts),
            self.absolute(directory or "."),
            self.carries_agent(environment),
            stack,
        )
        self.plain(b"X", repr(payload).encode("utf-8", "surrogateescape"))

    def stack(self, depth: int) -> tuple:
        """Source files on the stack that are not the standard library's, innermost first, at most 20."""
        found: list = []
        frame = sys._getframe(depth)
        while frame is not None and len(found) < 20:
            file = frame.f_code.co_filename
            if file not in found and self.kind_of_file(file):
                found.append(file)
            frame = frame.f_back
        return tuple(found)

    @staticmethod
    def carries_agent(environment) -> bool:
        """Say whether a new program's environment still leads to the agent."""
        own = "LICHEN_TRACE_DIR"
        if environment is None:
            return os.fsencode(own) in getattr(os.environ, "_data", ())
        try:
            return own in environment or os.fsencode(own) in environment
        except Exception:  # any mapping or list may be given here
            return False

    def on_connect(self, arguments: tuple) -> None:
        """A connection or a datagram to an address."""
        self.addressed(b"N", arguments)

    def on_bind(self, arguments: tuple) -> None:
        """An address of this process's own."""
        self.addressed(b"B", arguments)

    def addressed(self, kind: bytes, arguments: tuple) -> None:
        """Write a socket's family and an address."""
        if arguments[1] is None:
            return
        address = arguments[1]
        if isinstance(address, (list, tuple)):
            address = tuple(
                part if isinstance(part, (str, int)) else os.fsdecode(part) for part in address[:2]
            )
        elif isinstance(address, (bytes, bytearray)):
            address = os.fsdecode(bytes(address))
        payload = repr((int(arguments[0].family), address))
        key = (kind, payload)
        if key not in self.imported:
            self.imported.add(key)
            self.plain(kind, payload.encode("utf-8", "surrogateescape"))

    def on_input(self, arguments: tuple) -> None:
        """``input()`` reads standard input."""
        if b"R" not in self.imported:
            self.imported.add(b"R")
            self.plain(b"R", b"")

    # Looking at paths.

    def probe(self, path, status, error, directory_descriptor) -> None:
        """Write that a path was looked at, with what the caller can have learnt."""
        if isinstance(path, int):
            return
        level, caller = self.looker()
        if not level or self.probed.get(path, 0) >= level:
            return
        name = self.absolute(path, directory_descriptor)
        if not name or name.startswith(self.directory):
            return
        if directory_descriptor is None:
            self.probed[path] = level
        extra = b"\0" + os.fsencode(caller)
        if error is not None:
            self.log.write(
                STATED.pack(
                    b"S", ABSENT, level, len(os.fsencode(name) + extra), time.monotonic_ns(), 0, 0, 0, 0, 0
                )
                + os.fsencode(name)
                + extra
            )
        elif status is None:
            self.stated(b"S", name, level, extra)
        else:
            self.state(b"S", status, level, os.fsencode(name) + extra)

    def looker(self) -> tuple:
        """Find who looks at a path and how closely: level 0 is not worth writing."""
        level = LEVEL_TIMES
        frame = sys._getframe(4)
        while frame is not None:
            code = frame.f_code
            file = code.co_filename
            kind = self.kind_of_file(file)
            if kind:
                return (min(level, LEVEL_STATUS) if kind == 1 else level), file
            name = code.co_name
            if name in SILENT_FUNCTIONS or any(part in file for part in SILENT_FILES):
                return 0, ""
            if name in TYPE_FUNCTIONS:
                level = LEVEL_TYPE
            elif name == "getsize" or name not in TRANSPARENT_FUNCTIONS:
                level = min(level, LEVEL_STATUS)
            frame = frame.f_back
        return min(level, LEVEL_STATUS), ""

    # Leaving.

    def finish(self) -> None:
        """At a normal exit: every module's source, and the libraries in memory."""
        for name, module in list(sys.modules.items()):
            spec = getattr(module, "__spec__", None)
            origin = getattr(spec, "origin", None) or getattr(module, "__file__", None)
            if isinstance(origin, str) and "/" in origin and self.kind_of_file(origin):
                self.plain(b"V", os.fsencode(str(name)) + b"\0" + os.fsencode(self.absolute(origin) or ""))
        if not self.preload:
            self.plain(b"Q", b"\0".join(mapped_files()))

    def hello(self, *, forked: bool) -> None:
        """Say which process this is and in which Python it runs."""
        facts = {
            "pid": posix.getpid(),
            "ppid": posix.getppid(),
            "forked": forked,
            "preload": self.preload,
            "cwd": posix.getcwd(),
            "executable": sys.executable,
            "argv": list(getattr(sys, "orig_argv", sys.argv)),
            "program": list(sys.argv[:1]),
            "version": "%d.%d.%d" % sys.version_info[:3],
            "implementation": sys.implementation.name,
            "prefix": sys.prefix,
            "base_prefix": sys.base_prefix,
            "stdlib": self.stdlib,
            "pycache_prefix": sys.pycache_prefix,
            "path": self.named_path(),
        }
        self.plain(b"H", repr(facts).encode("utf-8", "surrogateescape"))

    def forked(self) -> None:
        """In the child of a fork: a file of its own."""
        try:
            self.log.open()
            self.hello(forked=True)
        except Exception:  # see the package's rules
            self.log.add = discard
            self.log.fail("fork")


def open_flags(flags: int) -> int:
    """Pack what matters of open(2) flags into a byte: access mode, create, truncate, append, exclusive."""
    return (
        (flags & 3)
        | (4 if flags & posix.O_CREAT else 0)
        | (8 if flags & posix.O_TRUNC else 0)
        | (16 if flags & posix.O_APPEND else 0)
        | (32 if flags & posix.O_EXCL else 0)
    )


def mapped_files() -> list:
    """Files mapped into this process, apart from the system's own libraries."""
    descriptor = posix.open("/proc/self/maps", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        text = b"".join(iter(lambda: posix.read(descriptor, 1 << 16), b""))
    finally:
        posix.close(descriptor)
    found = {line[73:] for line in text.split(b"\n") if line[73:74] == b"/"}
    return sorted(path for path in found if not path.startswith((b"/usr/lib", b"/lib", b"/dev/")))


class Wrapped:
    """A function of ``os`` that also tells the agent; not a function itself, so that a class attribute does not bind it."""

    def __init__(self, agent, original) -> None:
        self.agent = agent
        self.original = original
        self.__wrapped__ = original
        self.__name__ = self.__qualname__ = original.__name__
        self.__doc__ = original.__doc__
        self.__module__ = "os"
        self.__text_signature__ = original.__text_signature__

    def __reduce__(self) -> str:
        return self.__qualname__

    def __repr__(self) -> str:
        return repr(self.original)


class Look(Wrapped):
    """``os.stat`` and ``os.lstat``."""

    def __call__(self, path, *arguments, **options):
        """Call the original, then tell."""
        try:
            status = self.original(path, *arguments, **options)
        except OSError as error:
            guarded(self.agent.probe, path, None, error, options.get("dir_fd"))
            raise
        if path.__class__ is str:
            known = self.agent.probed.get(path, 0)
            if known == LEVEL_TIMES or (known and sys._getframe(1).f_code.co_name in TYPE_FUNCTIONS):
                return status
        guarded(self.agent.probe, path, status, None, options.get("dir_fd"))
        return status


class May(Wrapped):
    """``os.access``."""

    def __call__(self, path, *arguments, **options):
        """Tell, then call the original."""
        if not (path.__class__ is str and path in self.agent.probed):
            guarded(self.agent.probe, path, None, None, options.get("dir_fd"))
        return self.original(path, *arguments, **options)


class OpenAt(Wrapped):
    """``os.open``, whose audit event leaves out the directory descriptor."""

    def __call__(self, path, *arguments, **options):
        """Tell when the path is relative to a descriptor, then call the original."""
        descriptor = options.get("dir_fd")
        if descriptor is None or not arguments or self.agent.preload:
            return self.original(path, *arguments, **options)
        guarded(self.agent.changed, path, arguments[0], descriptor)
        guarded(self.agent.opening_at.add, path)
        try:
            return self.original(path, *arguments, **options)
        finally:
            guarded(self.agent.opening_at.discard, path)


def wrap_probes(agent: Agent) -> None:
    """Put wrappers in place of the functions of ``os`` that look at paths."""
    for name, kind in (("stat", Look), ("lstat", Look), ("access", May), ("open", OpenAt)):
        original = getattr(posix, name)
        wrapper = kind(agent, original)
        for support in (
            os.supports_dir_fd,
            os.supports_fd,
            os.supports_effective_ids,
            os.supports_follow_symlinks,
        ):
            if original in support:
                support.add(wrapper)
        setattr(os, name, wrapper)


def guarded(function, *arguments):
    """Call an agent function; whatever goes wrong in it stays in it."""
    try:
        function(*arguments)
    except Exception:  # see the package's rules
        pass


def begin() -> None:
    """Start tracing this process, if a tracer asked for it."""
    directory = os.environ.get("LICHEN_TRACE_DIR")
    if not directory:
        return
    agent = Agent(directory)
    handlers, log = agent.handlers.get, agent.log

    def hook(event: str, arguments: tuple) -> None:
        handler = handlers(event)
        if handler is not None:
            try:
                handler(arguments)
            except Exception as error:  # see the package's rules
                if not isinstance(error, (FileNotFoundError, RecursionError)):
                    log.fail("hook-" + event + "-" + type(error).__name__)

    agent.preload = posix.access(MAGIC_PATH, 0)
    if agent.preload:  # the library sees every open, at a tenth of the cost
        del agent.handlers["open"]
    agent.hello(forked=False)
    import lichen_agent_variables

    lichen_agent_variables.watch(agent)
    wrap_probes(agent)
    os.register_at_fork(after_in_child=agent.forked)
    import atexit

    atexit.register(guarded, agent.finish)
    sys.addaudithook(hook)
