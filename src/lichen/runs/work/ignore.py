r"""Path patterns of ``.lichenignore`` and ``--ignore``: what a run touches without depending on it.

The subset of gitignore that people use: ``*`` and ``?`` within a name, ``**`` across names, a trailing ``/`` for
directories, a leading ``/`` to anchor at the project root, ``!`` to take back, ``#`` for comments; the last
matching line decides.

Source: gitignore(5), "PATTERN FORMAT". Differs: no backslash escapes except ``\#`` and ``\!``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

__all__ = ["IgnoreRules", "Rule"]


class Rule(NamedTuple):
    """One line.

    Args:
        pattern: Matches whole paths below the root: what the line names, and what lies below that.
        ignored: False for a line that takes back.
        line: Expression for the same within one line of text: of names when ``by_name``, else of paths.
        by_name: The line has no slash inside, so it is about a name at any depth.
        literal: Its longest piece without wildcards; a text that lacks it matches nowhere.
    """

    pattern: re.Pattern[str]
    ignored: bool
    line: str
    by_name: bool
    literal: str

    def is_in(self, text: str) -> bool:
        """Say whether any line of a text matches; for :meth:`IgnoreRules.ignored_in`."""
        return self.literal in text and _in_lines(self.line).search(text) is not None


@dataclass(frozen=True)
class IgnoreRules:
    """Compiled ignore lines, in order.

    Args:
        rules: Matched against root-relative paths with ``/`` separators.
    """

    rules: tuple[Rule, ...] = ()

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
            by_name = "/" not in line.rstrip("/")
            body = _translate(line, "[^/]")
            whole = f"(?:.*/)?{body}(?:/.*)?" if by_name else f"{body}(?:/.*)?"
            in_text = _translate(line, "[^/\\n]") + ("" if by_name else "(?:/.*)?")
            literal = max(_WILDCARDS.split(line.strip("/"))[::2], key=len)
            rules.append(Rule(re.compile(whole, re.DOTALL), ignored, in_text, by_name, literal))
        return cls(tuple(rules))

    def is_ignored(self, relative_path: str) -> bool:
        """Say whether a path is ignored.

        Args:
            relative_path: Path below the project root, ``/`` separated, without a leading slash.

        Returns:
            True when the last matching line ignores the path or one of its parents.
        """
        ignored = False
        for rule in self.rules:
            if rule.pattern.fullmatch(relative_path):
                ignored = rule.ignored
        return ignored

    def ignored_in(self, directory: str, names: Sequence[str]) -> set[str]:
        """Say which names in a directory are ignored; the same as asking for each, at a small part of the cost.

        Args:
            directory: Path below the project root without slashes at its ends; empty for the root itself.
            names: Names of entries, without slashes.
        """
        prefix = f"{directory}/" if directory else ""
        verdict = False
        open_rules: list[Rule] = []
        for rule in self.rules:
            if directory and rule.pattern.fullmatch(directory):
                verdict = rule.ignored
                open_rules.clear()  # nothing before it decides any more
            else:
                open_rules.append(rule)
        text = "\n".join(names)
        if text.count("\n") == len(names) - 1 and "\n" not in directory:
            paths = prefix + f"\n{prefix}".join(names)
            if not any(rule.is_in(text if rule.by_name else paths) for rule in open_rules):
                return set(names) if verdict else set()
        return {name for name in names if self.is_ignored(prefix + name)}


@lru_cache(maxsize=256)
def _in_lines(line: str) -> re.Pattern[str]:
    return re.compile(f"^(?:{line})$", re.MULTILINE)


_WILDCARDS = re.compile(r"(/\*\*/|\*\*/|/\*\*|\*|\?)")


def _translate(line: str, letter: str) -> str:
    """Write a line as an expression, with ``letter`` for any character of a name."""
    parts = []
    for piece in _WILDCARDS.split(line.strip("/")):
        if piece == "/**/":
            parts.append("/(?:.*/)?")
        elif piece == "**/":
            parts.append("(?:.*/)?")
        elif piece == "/**":
            parts.append("/.*")
        elif piece == "*":
            parts.append(f"{letter}*")
        elif piece == "?":
            parts.append(letter)
        else:
            parts.append(re.escape(piece))
    return "".join(parts)
