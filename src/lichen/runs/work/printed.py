"""Keep known secrets out of the output that a public ledger keeps.

A command that prints the password it was given would publish it: whoever reads the ledger reads the output. Values that are
known to be secret, because a variable or an option says so, are masked in it. What is kept is then no longer what the
command printed, so such a run answers nobody. Output in which a secret is written in another way, such as encoded or broken
over lines, is not recognised, and neither are output files looked into.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from lichen.runs.work.secrets import MASK, mask_secrets, mask_variables

__all__ = ["known_secrets", "mask_printed"]

_LENGTH_MIN: Final = 6  # what is shorter stands in any text by chance


def known_secrets(argv: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Gather the values that are secret by their name or form.

    Args:
        argv: The command line.
        environ: The environment the command ran in.

    Returns:
        By value, where it was; the longest first, so that one within another is masked whole.
    """
    found: dict[str, str] = {}
    masked, _ = mask_secrets(argv)
    for position, (word, shown) in enumerate(zip(argv, masked, strict=True)):
        for value in _behind(word, shown):
            found.setdefault(value, f"argument {position}")
    variables, _ = mask_variables(environ)
    for name, shown in variables.items():
        for value in _behind(environ[name], shown):
            found.setdefault(value, f"variable {name}")
    return dict(sorted(found.items(), key=lambda item: (-len(item[0]), item[0])))


def _behind(text: str, shown: str) -> list[str]:
    """Return what the masks in a masked text stand for; nothing where that cannot be told."""
    if text == shown:
        return []
    between = (re.escape(part) for part in shown.split(MASK))
    match = re.fullmatch("(.+?)".join(between), text, re.DOTALL) if shown.count(MASK) <= 4 else None
    return [value for value in match.groups() if len(value) >= _LENGTH_MIN] if match else []


def mask_printed(data: bytes, secrets: Mapping[str, str]) -> tuple[bytes, list[str]]:
    """Mask secrets in what a command printed.

    Args:
        data: Output, in any encoding that holds ASCII as it is.
        secrets: As `known_secrets` returns them.

    Returns:
        The output, and where the secrets in it came from.
    """
    found = []
    for value, where in secrets.items():
        raw = value.encode("utf-8", "surrogateescape")
        if raw in data:
            data = data.replace(raw, MASK.encode())
            found.append(where)
    return data, found
