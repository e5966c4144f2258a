"""Looks at paths: ``os.stat``, ``os.lstat``, ``os.access`` and ``os.readlink`` raise no audit event, so they are wrapped.

How closely a caller looks is told by the names in its code: who never says ``st_mtime`` has not looked at the time, and who
names no field at all may have kept the whole result.

``os.open`` is wrapped too, because its audit event leaves out the directory descriptor.
"""

# Runs on Python 3.8, raises nothing, imports nothing it can do without.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, disallow-any-generics=False
# mypy: no-warn-return-any, no-warn-unreachable, no-strict-optional, disable-error-code="import-not-found"

from __future__ import annotations

import os
import posix
import sys
import time

from lichen_agent_log import (
    ABSENT,
    LEVEL_LINK,
    LEVEL_MODE,
    LEVEL_STATUS,
    LEVEL_TIMES,
    LEVEL_TYPE,
    STATED,
    absolute,
    guarded,
)

TYPE_FUNCTIONS = frozenset(
    (
        "exists", "lexists", "isfile", "isdir", "islink", "isjunction", "ismount", "samefile", "is_file", "is_dir", "is_symlink",
        "is_mount", "is_fifo", "is_socket", "is_block_device", "is_char_device", "is_junction", "_exists", "_isdir",
    )
)  # fmt: skip
TRANSPARENT_FUNCTIONS = frozenset(("stat", "lstat", "getmtime", "getctime", "getatime", "wrapper"))
TIME_READERS = frozenset(("gettarinfo", "from_file"))  # archives hold times
SILENT_FUNCTIONS = frozenset(
    ("realpath", "_joinrealpath", "_realpath", "resolve", "_resolve", "updatecache", "checkcache")
)
TIME_NAMES = frozenset(
    (
        "st_mtime", "st_mtime_ns", "st_ctime", "st_ctime_ns", "st_atime", "st_atime_ns", "st_birthtime", "getmtime", "getctime",
        "getatime",
    )
)  # fmt: skip
TYPE_TESTS = frozenset(
    ("S_ISREG", "S_ISDIR", "S_ISLNK", "S_ISFIFO", "S_ISSOCK", "S_ISBLK", "S_ISCHR", "S_IFMT")
)
SILENT_FILES = ("/importlib/", "/linecache.py", "/inspect.py", "/zipimport.py", "/site.py", "/tokenize.py")


class Looks:
    """Finds out who looked at a path, how closely, and writes it once."""

    def __init__(self, agent) -> None:
        self.agent = agent
        self.log = agent.log
        self.probed: dict = {}
        self.missed: dict = {}
        self.levels: dict = {}
        self.followed: set = set()

    def probe(self, path, status, error, directory_descriptor, access=None) -> None:
        """Write that a path was looked at, with what the caller can have learnt."""
        if isinstance(path, int):
            return
        level, caller = self.looker()
        if access is not None and level:  # an answer about permission, and nothing of size or times
            level = LEVEL_MODE if access and level > LEVEL_STATUS else LEVEL_TYPE
        known = self.probed if error is None else self.missed
        if not level or known.get(path, 0) >= level:
            return
        name = absolute(path, directory_descriptor)
        if not name or name.startswith(self.agent.directory):
            return
        if directory_descriptor is None:
            known[path] = level
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
            self.log.stated(b"S", name, level, extra)
        else:
            self.log.state(b"S", status, level, os.fsencode(name) + extra)

    def forget(self) -> None:
        """Relative names mean other files from now on."""
        self.probed.clear()
        self.missed.clear()

    def looker(self) -> tuple:
        """Find who looks at a path and how closely: level 0 is not worth writing."""
        level, archived = LEVEL_TIMES, False
        frame = sys._getframe(4)
        while frame is not None:
            code = frame.f_code
            file = code.co_filename
            kind = self.agent.kind_of_file(file)
            if kind and archived:
                return LEVEL_TIMES, file
            if kind:
                return min(level, LEVEL_STATUS if kind == 1 else self.level_of(code)), file
            name = code.co_name
            archived = archived or name in TIME_READERS
            if name in SILENT_FUNCTIONS or any(part in file for part in SILENT_FILES):
                return 0, ""
            if name in TYPE_FUNCTIONS:
                level = LEVEL_TYPE
            elif name == "getsize" or name not in TRANSPARENT_FUNCTIONS:
                level = min(level, LEVEL_STATUS)
            frame = frame.f_back
        return LEVEL_TIMES if archived else min(level, LEVEL_STATUS), ""

    def level_of(self, code) -> int:
        """Say how closely a function of the user's looks at a status, by the names it uses."""
        level = self.levels.get(code)
        if level is None:
            names = set(code.co_names)
            level = LEVEL_TIMES
            if not names & TIME_NAMES and any(name.startswith("st_") for name in names):
                level = LEVEL_MODE if "st_mode" in names and not names & TYPE_TESTS else LEVEL_STATUS
            self.levels[code] = level
        return level

    def follow(self, path, directory_descriptor) -> None:
        """Write that the target of a link was read."""
        name = absolute(path, directory_descriptor)
        if not name or name in self.followed or name.startswith(self.agent.directory):
            return
        frame = sys._getframe(3)
        while frame is not None:
            file = frame.f_code.co_filename
            if self.agent.kind_of_file(file):
                break
            if any(part in file for part in SILENT_FILES):
                return
            frame = frame.f_back
        self.followed.add(name)
        self.log.stated(b"S", name, LEVEL_LINK, b"\0", follow=False)


class Wrapped:
    """A function of ``os`` that also tells the agent; not a function itself, so that a class attribute does not bind it."""

    def __init__(self, looks, original) -> None:
        self.looks = looks
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
            guarded(self.looks.probe, path, None, error, options.get("dir_fd"))
            raise
        if path.__class__ is str:
            known = self.looks.probed.get(path, 0)
            if known == LEVEL_TIMES or (known and sys._getframe(1).f_code.co_name in TYPE_FUNCTIONS):
                return status
        guarded(self.looks.probe, path, status, None, options.get("dir_fd"))
        return status


class May(Wrapped):
    """``os.access``."""

    def __call__(self, path, *arguments, **options):
        """Tell, then call the original."""
        access = arguments[0] if arguments else options.get("mode", 0)
        if not (
            path.__class__ is str and self.looks.probed.get(path, 0) >= (LEVEL_MODE if access else LEVEL_TYPE)
        ):
            guarded(self.looks.probe, path, None, None, options.get("dir_fd"), access)
        return self.original(path, *arguments, **options)


class ReadLink(Wrapped):
    """``os.readlink``."""

    def __call__(self, path, *arguments, **options):
        """Call the original, then tell."""
        target = self.original(path, *arguments, **options)
        guarded(self.looks.follow, path, options.get("dir_fd"))
        return target


class OpenAt(Wrapped):
    """``os.open``, whose audit event leaves out the directory descriptor."""

    def __call__(self, path, *arguments, **options):
        """Tell when the path is relative to a descriptor, then call the original."""
        descriptor = options.get("dir_fd")
        if descriptor is None or not arguments or self.looks.agent.preload:
            return self.original(path, *arguments, **options)
        guarded(self.looks.agent.changed, path, arguments[0], descriptor)
        guarded(self.looks.agent.opening_at.add, path)
        try:
            return self.original(path, *arguments, **options)
        finally:
            guarded(self.looks.agent.opening_at.discard, path)


def watch(agent) -> None:
    """Put wrappers in place of the functions of ``os`` that look at paths."""
    looks = Looks(agent)
    agent.on_change_of_directory = looks.forget
    for name, kind in (
        ("stat", Look),
        ("lstat", Look),
        ("access", May),
        ("open", OpenAt),
        ("readlink", ReadLink),
    ):
        original = getattr(posix, name)
        wrapper = kind(looks, original)
        for support in (
            os.supports_dir_fd,
            os.supports_fd,
            os.supports_effective_ids,
            os.supports_follow_symlinks,
        ):
            if original in support:
                support.add(wrapper)
        setattr(os, name, wrapper)
