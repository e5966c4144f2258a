"""What one Python process opens, lists, looks for, imports, starts and talks to, written down as it happens.

An audit hook sees opens, listings, imports, new processes and sockets; ``os.stat``, ``os.lstat``, ``os.access`` and ``os.open``
are wrapped because looking at a path raises no audit event and a directory descriptor is not in the event. Each
path is written once per kind. Records go into a memory-mapped file, so they outlive ``os._exit`` and SIGKILL; space is
allocated before it is mapped, so a full disk ends the log, never the program.

The format of the log is described, and read, in ``agent_log.py`` of the tracer.
"""

# Runs on Python 3.8, raises nothing, imports nothing it can do without.
# ruff: noqa: PTH208, SIM905, UP031
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, disallow-any-generics=False
# mypy: no-warn-return-any, no-warn-unreachable, no-strict-optional, disable-error-code="import-not-found"

from __future__ import annotations

import _imp
import os
import posix
import sys
import time

from lichen_agent_log import (
    ABSENT,
    LEVEL_LINK,
    LEVEL_STATUS,
    STATED,
    Log,
    absolute,
    guarded,
    mapped_files,
    on_way,
    open_flags,
)

PASSING = frozenset(
    (
        "open open64 __open __open64 openat openat64 creat creat64 fopen fopen64 _IO_fopen freopen freopen64 shm_open opendir "
        "scandir glob ftw nftw stat stat64 lstat lstat64 fstatat fstatat64 statx access faccessat euidaccess eaccess readlink "
        "readlinkat realpath canonicalize_file_name getenv secure_getenv __secure_getenv chdir rename renameat unlink unlinkat "
        "remove mkdir mkdirat rmdir symlink link truncate syscall connect dlmopen shmget msgget mq_open"
    ).split()
)
"""Functions of the C library by which files, variables and peers are found."""
NAMES_MAX = 200_000  # in a listing that is taken down name by name
OWN_FILES = tuple("lichen_agent%s.py" % part for part in ("", "_imports", "_log", "_looks", "_variables"))


class Agent:
    """Hook, wrappers and the sets that keep each path from being written twice."""

    def __init__(self, directory: str) -> None:
        self.directory = directory + "/"
        self.log = Log(directory)
        self.preload = self.log.preload
        self.opened_read: set = set()
        self.opened_write: set = set()
        self.listed: dict = {}
        self.imported: set = set()
        self.walked: set = set()
        self.path_seen: tuple = ()
        self.opening_at: set = set()
        self.on_change_of_directory = self.opened_read.clear  # `Looks` puts its own function here
        self.stdlib = os.__file__.rpartition("/")[0] + "/"
        folder = __file__.rpartition("/")[0]
        self.file_kinds: dict = dict.fromkeys((folder + "/" + name for name in OWN_FILES), 0)
        self.plain = self.log.plain
        self.stated = self.log.stated
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
            "os.chmod": self.on_chmod,
            "os.chown": self.on_attributes,
            "os.getxattr": self.on_attributes,
            "os.setxattr": self.on_attributes,
            "os.removexattr": self.on_attributes,
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
            "ctypes.dlsym": self.on_dlsym,
            "builtins.input": self.on_input,
        }

    # Names.

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
        pack, now, stat, stated = STATED.pack, time.monotonic_ns, posix.stat, self.stated
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
                self.stated(b"S", absolute(name + suffix) or "", LEVEL_STATUS, b"\0")

    def on_dlopen(self, arguments: tuple) -> None:
        """A library named by its path is code; one named without is found among the mappings at exit."""
        name = arguments[0]
        if name and not isinstance(name, int) and "/" in os.fsdecode(name):
            self.changed(name, posix.O_RDONLY)

    def on_dlsym(self, arguments: tuple) -> None:
        """A function that finds files is taken from the C library itself, where the preload library does not see it called."""
        library, name = arguments
        if name in ("environ", "__environ", "_environ"):
            self.plain(b"W", repr(("", 0, 0)).encode("ascii"))
        if name in PASSING and name not in self.imported:
            native = sys.modules["_ctypes"]
            own = native.dlsym(native.dlopen("libc.so.6", posix.RTLD_NOW), name)
            if native.dlsym(library._handle, name) == own:
                self.imported.add(name)
                self.log.fail("unwatched-" + name)

    def changed(self, path, flags: int, directory_descriptor=None) -> None:
        """Write an open with its flags, once per path and flags."""
        name = absolute(path, directory_descriptor)
        key = (name, flags)
        if name and key not in self.opened_write and not name.startswith(self.directory):
            self.opened_write.add(key)
            self.stated(b"O", name, open_flags(flags))

    # Directories and names.

    def on_list(self, arguments: tuple) -> None:
        """A directory is listed; the import system and its metadata list directories for their own ends."""
        path = arguments[0]
        name = absolute("." if path is None else path)
        if not name:
            return
        file = sys._getframe(2).f_code.co_filename
        if file.startswith("<frozen importlib") or "/importlib/" in file:
            return
        try:
            state = posix.stat(name).st_mtime_ns
        except OSError:
            state = None
        if name in self.listed and self.listed[name] == state:
            return  # nothing came or went since it was taken down
        self.listed[name] = state
        try:
            names = os.listdir(name)
        except OSError:
            names = []
        # The last "/" tells an empty directory from one whose names are not known.
        self.stated(
            b"L", name, 0, os.fsencode("\0" + "/".join(names) + "/" if len(names) <= NAMES_MAX else "\0")
        )

    def on_chdir(self, arguments: tuple) -> None:
        """Relative names mean other files from now on, and which depends on the links on the way."""
        self.gone_through(absolute(arguments[0]) or "")
        self.opened_read.clear()
        self.opened_write.clear()
        self.on_change_of_directory()

    def gone_through(self, path: str) -> None:
        """Links on the way to a directory count."""
        if path and path not in self.walked:
            self.walked.add(path)
            self.stated(b"S", path, LEVEL_LINK, b"\0")

    def on_rename(self, arguments: tuple) -> None:
        """One path becomes another."""
        source = absolute(arguments[0], arguments[2])
        target = absolute(arguments[1], arguments[3])
        if source and target:
            self.stated(
                b"O", target, open_flags(posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC), follow=False
            )
            self.stated(b"M", source, 0, b"\0" + os.fsencode(target), follow=False)

    def on_link(self, arguments: tuple) -> None:
        """A second name for a file: its content is read and written."""
        source = absolute(arguments[0], arguments[2])
        target = absolute(arguments[1], arguments[3])
        if source and target:
            self.stated(b"O", source, 0)
            self.stated(b"O", target, open_flags(posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL), follow=False)

    def on_symlink(self, arguments: tuple) -> None:
        """A link is made; where it leads is seen when it is opened."""
        name = absolute(arguments[1], arguments[2])
        if name:
            self.stated(b"O", name, open_flags(posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL), follow=False)

    def on_remove(self, arguments: tuple) -> None:
        """A path is taken away."""
        name = absolute(arguments[0], arguments[1])
        if name and not name.startswith(self.directory):
            self.stated(b"D", name, 0, follow=False)

    def on_mkdir(self, arguments: tuple) -> None:
        """A directory is made."""
        name = absolute(arguments[0], arguments[2])
        if name:
            self.stated(b"C", name, 0)

    def on_chmod(self, arguments: tuple) -> None:
        """Permission bits are set; where they stand so already, nothing happens."""
        name = absolute(arguments[0], arguments[2])
        if name:
            try:
                changes = (posix.stat(name).st_mode ^ arguments[1]) & 0o7777
            except OSError:
                return
            if changes:
                self.stated(b"Z", name, 0)

    def on_attributes(self, arguments: tuple) -> None:
        """The owner is set, or an extended attribute set or read; those that security modules keep say nothing to programs."""
        attribute = arguments[1]
        if isinstance(attribute, (str, bytes)) and os.fsencode(attribute).startswith(b"security."):
            return
        directory = arguments[3] if not isinstance(attribute, (str, bytes)) else None
        name = absolute(arguments[0], directory)
        if name:
            self.stated(b"Z", name, 0)

    # Imports.

    def on_import(self, arguments: tuple) -> None:
        """A module is asked for (and ``sys.path`` as it is now), or an extension module's file is loaded."""
        name, file, path = arguments[0], arguments[1], arguments[2]
        if file is not None:
            self.plain(b"I", os.fsencode(name) + b"\0" + os.fsencode(absolute(file) or ""))
            return
        if name not in self.imported:
            self.imported.add(name)
            self.plain(b"I", name.encode("utf-8", "surrogateescape"))
            if path.__class__ is list and tuple(path) != self.path_seen:
                self.path_seen = tuple(path)
                self.plain(b"P", repr(self.named_path()).encode("utf-8", "surrogateescape"))

    def named_path(self) -> list:
        """``sys.path`` with every entry named from the root."""
        return [absolute(entry or ".") for entry in sys.path if isinstance(entry, (str, bytes))]

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
            absolute(directory or "."),
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

    # Leaving.

    def finish(self) -> None:
        """At a normal exit: every module's source, and the libraries in memory."""
        for name, module in list(sys.modules.items()):
            spec = getattr(module, "__spec__", None)
            origin = getattr(spec, "origin", None) or getattr(module, "__file__", None)
            if isinstance(origin, str) and "/" in origin and self.kind_of_file(origin):
                self.plain(b"V", os.fsencode(str(name)) + b"\0" + os.fsencode(absolute(origin) or ""))
            elif isinstance(origin, str) and "/" in origin and name not in self.imported:
                self.imported.add(name)  # by `importlib.import_module`, which raises no event
                self.plain(b"I", os.fsencode(str(name)))
        if not self.preload:
            self.plain(b"Q", b"\0".join(mapped_files()))

    def hello(self, *, forked: bool) -> None:
        """Say which process this is and in which Python it runs."""
        site = sys.modules.get("site")
        facts = {
            "user_site": getattr(site, "USER_SITE", None)
            if getattr(site, "ENABLE_USER_SITE", None)
            else None,
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
            "extensions": _imp.extension_suffixes(),
        }
        self.plain(b"H", repr(facts).encode("utf-8", "surrogateescape"))

    def forked(self) -> None:
        """In the child of a fork: a file of its own."""
        try:
            self.log.open()
            self.hello(forked=True)
        except Exception:  # see the package's rules
            self.log.stop("fork")


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

    if agent.preload:  # the library sees every open, at a tenth of the cost
        del agent.handlers["open"]
    agent.hello(forked=False)
    on_way[0] = agent.gone_through
    import lichen_agent_imports
    import lichen_agent_looks
    import lichen_agent_variables

    lichen_agent_variables.watch(agent)
    lichen_agent_looks.watch(agent)
    lichen_agent_imports.watch(agent)
    os.register_at_fork(after_in_child=agent.forked)
    import atexit

    atexit.register(guarded, agent.finish)
    sys.addaudithook(hook)
