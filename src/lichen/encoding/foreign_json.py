"""JSON that somebody else wrote: a file of the user's, a server's answer, what another process left.

Python's reader has two ways to say that a text is no JSON it can read: ``ValueError``, and ``RecursionError`` for a
text of many opening brackets. Whoever forgets the second has a program that a file of brackets can end; here both are one.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["read_json"]


def read_json(data: str | bytes) -> Any:
    """Read JSON text of whatever origin.

    Args:
        data: The text; bytes are UTF-8, -16 or -32 as RFC 8259's readers guess it.

    Returns:
        The value.

    Raises:
        ValueError: It is no JSON, or is nested too deep to be read.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
