r"""Path patterns of ``.lichenignore`` and ``--ignore``: what a run touches without depending on it.

The subset of gitignore that people use: ``*`` and ``?`` within a name, ``**`` across names, a trailing ``/`` for
directories, a leading ``/`` to anchor at the project root, ``!`` to take back, ``#`` for comments; the last
matching line decides.

Source: gitignore(5), "PATTERN FORMAT". Differs: no backslash escapes except ``\#`` and ``\!``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["IgnoreRules"]


@dataclass(frozen=True)
class IgnoreRules:
    """Compiled ignore lines, in order.

    Args:
        rules: Pairs of (pattern, ignored); matched against root-relative paths with ``/`` separators.
    """

    rules: tuple[tuple[re.Pattern[str], bool], ...] = ()

    @classmethod
    def parse(cls, lines: Iterable[str]) -> IgnoreRules:
        """Compile ignore lines.

        Args:
            lines: Lines as they stand in ``.lichenignore``.

        Returns:
            Rules that remember the order.
        """
        rules = []
        for raw in lines:
            line = raw.rstrip("\n").rstrip()
            if not line or line.startswith("#"):
                continue
            ignored = not line.startswith("!")
            if not ignored or line.startswith(("\\#", "\\!")):
                line = line[1:]
            rules.append((re.compile(_translate(line), re.DOTALL), ignored))
        return cls(tuple(rules))

    def is_ignored(self, relative_path: str) -> bool:
        """Say whether a path is ignored.

        Args:
            relative_path: Path below the project root, ``/`` separated, without a leading slash.

        Returns:
            True when the last matching line ignores the path or one of its parents.
        """
        ignored = False
        for pattern, verdict in self.rules:
            if pattern.fullmatch(relative_path):
                ignored = verdict
        return ignored


def _translate(line: str) -> str:
    anchored = "/" in line.rstrip("/")
    body = line.strip("/")
    parts = []
    for piece in re.split(r"(/\*\*/|\*\*/|/\*\*|\*|\?)", body):
        if piece == "/**/":
            parts.append("/(?:.*/)?")
        elif piece == "**/":
            parts.append("(?:.*/)?")
        elif piece == "/**":
            parts.append("/.*")
        elif piece == "*":
            parts.append("[^/]*")
        elif piece == "?":
            parts.append("[^/]")
        else:
            parts.append(re.escape(piece))
    prefix = "" if anchored else "(?:.*/)?"
    return f"{prefix}{''.join(parts)}(?:/.*)?"
