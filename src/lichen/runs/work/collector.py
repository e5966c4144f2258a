"""Hundreds of thousands of small objects and no cycle among them: the garbage collector would only double the cost."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

__all__ = ["without_collector"]


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Collect no cycles meanwhile; what is counted away is freed as ever.

    What was made counts as old afterwards: it is looked at with everything else, not at once for being much.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            if not gc.get_freeze_count():  # nobody has put anything aside for good
                gc.freeze()
                gc.unfreeze()
            gc.enable()
