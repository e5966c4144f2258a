"""`lichen`: the door. The front page is shown at once; everything else goes through the table of commands.

Rules upheld: nothing is imported before it is known to be needed, since the help of a command line is what people wait
for most often; and nothing is imported from the project in whose directory Lichen was called.
"""

from __future__ import annotations

import sys

__all__ = ["main"]

STATUS_BROKEN_PIPE = 141
GARBAGE_THRESHOLDS = (50_000, 20, 50)
"""When cycles are looked for: seldom, because loading modules makes many objects and no garbage; a server still gets its turn."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command line and return its exit status; most commands end the process themselves.

    Args:
        arguments: Words after `lichen`; those of the process when None.
    """
    if arguments is None:
        _fill_standard_streams()
        from lichen.cli.own_path import leave_projects_out

        leave_projects_out(__file__.rpartition("/cli/")[0])
    words = sys.argv[1:] if arguments is None else arguments
    if words in ([], ["--help"], ["-h"]) and not _wants_completion():
        from lichen.cli.front_page import front_page

        return _write(front_page())
    if words in (["--version"], ["-V"]):
        from lichen import __version__

        return _write(f"lichen {__version__}\n")
    import gc

    gc.set_threshold(*GARBAGE_THRESHOLDS)
    from lichen.cli.table import table

    table.main(words)
    return 0


def _fill_standard_streams() -> None:
    """Put the null device where a standard stream is closed: the next file opened, such as the ledger, would stand in its place.

    A command that is run finds the stream closed all the same.
    """
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    import os

    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor, inheritable=False)
                os.close(null)
            setattr(sys, name, open(descriptor, "w" if descriptor else "r", closefd=False))  # noqa: SIM115


def _wants_completion() -> bool:
    import os

    return "_LICHEN_COMPLETE" in os.environ


def _write(text: str) -> int:
    """Write to standard output; a reader that has gone is no error."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return STATUS_BROKEN_PIPE
    return 0
