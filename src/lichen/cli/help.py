"""How the help of a command ends: with examples that can be typed."""

from __future__ import annotations

__all__ = ["EXIT_STATUS_LINE", "examples"]

EXIT_STATUS_LINE = "Exit statuses: `lichen help exit-codes`."


def examples(*lines: str) -> str:
    """Return the end of a command's help: commands that work as they stand, one per line.

    Args:
        lines: Commands; a line that starts with a blank continues the one before it.
    """
    title = "Example:" if sum(not line.startswith(" ") for line in lines) == 1 else "Examples:"
    return "\n".join(("\b", title, *(f"  {line}" for line in lines), "", "\b", EXIT_STATUS_LINE))
