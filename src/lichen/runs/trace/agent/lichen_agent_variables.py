"""Which environment variables a Python process looks at, and on whose behalf.

``os.environ`` keeps its identity and its class; only the two functions with which it encodes and decodes names are
replaced, so an error raised by a look-up has the traceback it always had. A look-up by the standard library counts
for the code that called it, except where a module only hands the environment on to a new process.

A copy of the whole environment is told apart from a loop over it, because a copy is usually made to be handed on:
``dict(os.environ)`` takes the names and then each value within one and the same instruction of its caller.
"""

# Runs on Python 3.8, raises nothing, imports nothing it can do without.
# ruff: noqa: S110, SIM105
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, disallow-any-generics=False
# mypy: no-warn-return-any, no-warn-unreachable, no-strict-optional, disable-error-code="import-not-found"

from __future__ import annotations

import os
import sys

LOOP, COPY = 0, 1
HANDING_ON = (
    "/subprocess.py", "/multiprocessing/", "/asyncio/", "/concurrent/", "/pty.py", "/shutil.py", "/webbrowser.py",
    "/urllib/request.py", "/site.py", "/sysconfig", "/importlib/",
)  # fmt: skip


class Variables:
    """Reports look-ups in one mapping of the environment, each name and caller once."""

    def __init__(self, agent) -> None:
        self.agent = agent
        self.seen: set = set()
        self.iterated: tuple = (None, 0)
        self.last_iteration: object = None

    def outside(self, frame):
        """Skip the frames of the mapping's own methods."""
        while frame is not None and frame.f_code.co_filename.endswith(
            ("/os.py", "<frozen os>", "_collections_abc>")
        ):
            frame = frame.f_back
        while frame is not None and frame.f_code.co_filename.endswith("/_collections_abc.py"):
            frame = frame.f_back
        return frame

    def caller(self, frame):
        """Find the first frame that is not the standard library's; None when it only hands the environment on."""
        while frame is not None:
            file = frame.f_code.co_filename
            if self.agent.kind_of_file(file):
                return file
            if any(part in file for part in HANDING_ON):
                return None
            frame = frame.f_back
        return None

    def one(self, key) -> None:
        """A name is encoded: report it when that is for a look-up and not part of a copy."""
        method = sys._getframe(2)
        if method.f_code.co_name != "__getitem__":
            return
        direct = method.f_back
        frame = self.outside(direct)
        if frame is None:
            return
        if self.iterated[0] == (frame.f_code, frame.f_lasti):
            name = direct.f_code.co_name
            if direct is frame or name in ("copy", "__or__", "__ror__"):
                self.whole(frame, COPY)
            return
        file = self.caller(frame)
        mark = (key, file)
        if file is not None and mark not in self.seen:
            self.seen.add(mark)
            self.agent.plain(b"E", os.fsencode(key) + b"\0" + os.fsencode(file))

    def all(self) -> None:
        """A name is decoded: report the loop or copy it belongs to."""
        method = sys._getframe(3)
        if method.f_code.co_name != "__iter__" or method is self.last_iteration:
            return
        self.last_iteration = method
        frame = self.outside(method.f_back)
        if frame is not None:
            self.iterated = ((frame.f_code, frame.f_lasti), 0)
            self.whole(frame, LOOP)

    def whole(self, frame, mode: int) -> None:
        """Write that the whole environment was taken; a copy is written after, and cancels, the loop it began as."""
        file = self.caller(frame)
        mark = (mode, file, frame.f_lasti)
        if file is not None and mark not in self.seen:
            self.seen.add(mark)
            self.agent.plain(
                b"W", repr((file, frame.f_lineno, frame.f_lasti)).encode("utf-8", "surrogateescape"), mode
            )


def watch(agent) -> None:
    """Report every later look-up in ``os.environ`` and ``os.environb``."""
    variables = Variables(agent)

    def wrap(original, report):
        def encode_or_decode(value):
            try:
                report(value)
            except Exception:  # see the package's rules
                pass
            return original(value)

        return encode_or_decode

    for environ in (os.environ, getattr(os, "environb", None)):
        if environ is not None and hasattr(environ, "encodekey"):
            environ.encodekey = wrap(environ.encodekey, variables.one)
            environ.decodekey = wrap(environ.decodekey, lambda value: variables.all())
