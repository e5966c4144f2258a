"""What goes wrong, in two classes: what is claimed does not hold, or it could not be looked at."""

from __future__ import annotations

__all__ = ["Fault", "Unreadable"]


class Fault(Exception):
    """Something that the archive claims does not hold.

    Args:
        message: What, and why.
        index: The first entry at which it shows; None when it is about the archive as a whole.
    """

    def __init__(self, message: str, index: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.index = index


class Unreadable(Exception):
    """There is no archive here, or the system would not let it be read."""
