r"""The project: the directory a run belongs to, and how its paths are named in the ledger.

A path inside the project is named ``{project}/…``, so that a colleague's checkout elsewhere gives equal names. Paths outside keep
their absolute form. Names on disk that are not UTF-8 are carried as Python carries them (surrogate escapes) and
written with ``\\udcXX`` made visible as ``%XX``, so that every manifest is valid JSON.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from lichen.errors import EncodingError, NotALedgerError
from lichen.runs.work.ignore import IgnoreRules
from lichen.runs.workspace.config import PROJECT_FILE, ProjectConfig, UserConfig

__all__ = ["LEDGER_DIRECTORY", "PROJECT_MARK", "Project", "locate_ledger"]

LEDGER_DIRECTORY = ".lichen"
PROJECT_MARK = "{project}"
_ROOT_SIGNS = (PROJECT_FILE, LEDGER_DIRECTORY, ".git", "pyproject.toml")
_STATE_OF_CHECKOUT = re.compile(
    r"(.*/)?\.git/((worktrees/[^/]+/)?(HEAD|index|refs(/.*)?)|packed-refs|reftable/.*)"
)
"""Files of version control whose content a program can want to know, such as which commit is checked out."""
_REFERENCES = re.compile(r"(.*/)?\.git/(worktrees/[^/]+/)?refs(/.*)?")
"""Folders of version control whose names a program can want to know: branches and tags."""
_VERSION_CONTROL = re.compile(r"(^|/)(\.git/(?!index(\.lock)?$)|\.hg/)")
_ALWAYS_IGNORED = ("__pycache__/", f"{LEDGER_DIRECTORY}/", ".git/", ".hg/", ".ipynb_checkpoints/", "*.pyc")


@dataclass(frozen=True)
class Project:
    """A project root with its settings.

    Args:
        root: Absolute, resolved directory.
        config: What ``lichen.toml`` says.
        extra_ignore: Patterns given on the command line.
    """

    root: Path
    config: ProjectConfig = field(default_factory=ProjectConfig)
    extra_ignore: tuple[str, ...] = ()

    @classmethod
    def find(cls, start: Path, *, extra_ignore: Iterable[str] = ()) -> Project:
        """Find the project around a directory: the nearest parent with a project sign, else the directory itself.

        Signs are ``lichen.toml``, ``.lichen``, ``.git`` and ``pyproject.toml``, looked for upward; the home directory and
        the file system's root are never taken for a project because of a stray sign.
        """
        start = start.resolve()
        home = Path.home()
        root = start
        for candidate in (start, *start.parents):
            if candidate in (home, Path(candidate.anchor)) and candidate != start:
                break
            if any((candidate / sign).exists() for sign in _ROOT_SIGNS):
                root = candidate
                break
        return cls(root, ProjectConfig.read(root), tuple(extra_ignore))

    @cached_property
    def _ignore(self) -> IgnoreRules:
        return IgnoreRules.parse([*_ALWAYS_IGNORED, *self._chosen_lines])

    @cached_property
    def _chosen(self) -> IgnoreRules:
        return IgnoreRules.parse(self._chosen_lines)

    @cached_property
    def _chosen_lines(self) -> list[str]:
        lines = [*self.config.ignore]
        file = self.root / ".lichenignore"
        if file.is_file():
            lines += file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        return [*lines, *self.extra_ignore]

    @cached_property
    def rules_digest(self) -> str:
        """Digest of the user's own ignore lines, in order; comments and blank lines say nothing."""
        said = [line.strip() for line in self._chosen_lines if line.strip() and not line.startswith("#")]
        return hashlib.sha256("\n".join(said).encode("utf-8", "surrogateescape")).hexdigest()[:32]

    @cached_property
    def _prefix(self) -> str:
        return str(self.root).rstrip("/") + "/"

    def contains(self, path: str) -> bool:
        """Say whether an absolute path lies in the project."""
        return path.startswith(self._prefix) or path == str(self.root)

    def is_ignored(self, path: str) -> bool:
        """Say whether an absolute path is left out of outputs and listings, and of inputs but for :meth:`is_read_for_good`."""
        relative = path[len(self._prefix) :] if self.contains(path) else path.lstrip("/")
        return self._ignore.is_ignored(relative)

    def is_chosen_ignored(self, path: str) -> bool:
        """Say whether an absolute path is ignored because the user said so, in a file, in settings or on the command line."""
        if not self._chosen.rules:
            return False
        relative = path[len(self._prefix) :] if self.contains(path) else path.lstrip("/")
        return self._chosen.is_ignored(relative)

    def is_version_control(self, path: str) -> bool:
        """Say whether a path is part of what version control keeps; its index, which looking refreshes, is not counted."""
        relative = path[len(self._prefix) :] if self.contains(path) else path
        return _VERSION_CONTROL.search(relative) is not None

    def is_read_for_good(self, path: str) -> bool:
        """Say whether a path that is ignored for its name counts all the same when a run has read it.

        So it is with bytecode that no source stands behind, and with what says which commit is checked out. What the user told
        Lichen to ignore stays ignored.
        """
        relative = path[len(self._prefix) :] if self.contains(path) else path.lstrip("/")
        if _STATE_OF_CHECKOUT.fullmatch(relative):
            return not self._chosen.is_ignored(relative)
        is_bytecode = relative.endswith(".pyc") and "__pycache__/" not in relative
        return is_bytecode and not self._chosen.is_ignored(relative)

    def ignored_in(self, directory: str, names: Sequence[str]) -> set[str]:
        """Say which entries of a directory are left out: as :meth:`is_ignored` says of each, but quicker.

        Branches and tags are left out only where the user says so: who lists them wants to know their names.

        Args:
            directory: Absolute path.
            names: Names of entries, without slashes.
        """
        if directory == str(self.root):
            relative = ""
        elif directory.startswith(self._prefix):
            relative = directory[len(self._prefix) :]
        else:
            relative = directory.lstrip("/")
        rules = self._chosen if _REFERENCES.fullmatch(relative) else self._ignore
        return rules.ignored_in(relative, names)

    def names_in(self, directory: str, names: Sequence[str]) -> list[str]:
        """Return the manifest names of entries of a directory, as :meth:`name_of` gives each."""
        prefix, ends = self.ends_in(directory, names)
        return [prefix + end for end in ends]

    def ends_in(self, directory: str, names: Sequence[str]) -> tuple[str, Sequence[str]]:
        """Return what the manifest names of entries of a directory begin with, and how each goes on."""
        prefix = self.name_of(f"{directory}/x")[:-1]
        text = "".join(names)
        if text.isascii() and "%" not in text:
            return prefix, names
        return prefix, [visible(name) for name in names]

    def name_of(self, path: str) -> str:
        """Return the name under which an absolute path stands in a manifest."""
        if path == str(self.root):
            return PROJECT_MARK
        if path.startswith(self._prefix):
            path = f"{PROJECT_MARK}/{path[len(self._prefix) :]}"
        return visible(path)

    def path_of(self, name: str) -> str:
        """Return the absolute path a manifest name stands for here; the inverse of :meth:`name_of`.

        Raises:
            EncodingError: No path has such a name; a manifest somebody else wrote may hold anything.
        """
        raw = invisible(name)
        if "\0" in raw:
            raise EncodingError(f"{name[:80]!r} is the name of no path: it holds a NUL character")
        if raw == PROJECT_MARK:
            return str(self.root)
        if raw.startswith(PROJECT_MARK + "/"):
            return self._prefix + raw[len(PROJECT_MARK) + 1 :]
        return raw

    def paths_of(self, names: Sequence[str]) -> list[str]:
        """Return the absolute paths of many manifest names, as :meth:`path_of` gives each.

        Raises:
            EncodingError: No path has one of the names.
        """
        text = "".join(names)
        if "%" in text or "\0" in text:
            return [self.path_of(name) for name in names]
        mark, start, prefix = PROJECT_MARK + "/", len(PROJECT_MARK) + 1, self._prefix
        return [prefix + name[start:] if name.startswith(mark) else self.path_of(name) for name in names]

    def generalise(self, text: str) -> str:
        """Replace the project root inside a text, so that equal work elsewhere reads the same."""
        return visible(text.replace(self._prefix, PROJECT_MARK + "/").replace(str(self.root), PROJECT_MARK))


def visible(path: str) -> str:
    """Make undecodable bytes of a path visible: ``%`` becomes ``%25`` and byte 0xFF becomes ``%FF``."""
    if "%" not in path and path.isascii():
        return path
    raw = path.replace("%", "%25")
    return "".join(f"%{ord(char) - 0xDC00:02X}" if 0xDC80 <= ord(char) <= 0xDCFF else char for char in raw)


def invisible(name: str) -> str:
    """Undo :func:`visible`.

    Raises:
        EncodingError: No path is made visible in this way.
    """
    if "%" not in name:
        return name
    head, *rest = name.split("%")
    parts = [head]
    for piece in rest:
        if _ESCAPED.match(piece) is None:
            raise EncodingError(f"{name[:80]!r} is the name of no path: % stands before {piece[:2]!r}")
        code = int(piece[:2], 16)
        parts.append(("%" if code == 0x25 else chr(0xDC00 + code)) + piece[2:])
    return "".join(parts)


_ESCAPED = re.compile(r"25|[89A-F][0-9A-F]")  # the percent sign itself, and bytes that are not UTF-8


def locate_ledger(option: str | None, project: Project, user: UserConfig) -> Path:
    """Say which ledger directory a command means.

    Looked for in this order: the option, ``LICHEN_LEDGER``, ``ledger`` in ``lichen.toml``, the nearest ``.lichen`` upward,
    ``ledger.default`` of the user.

    Raises:
        NotALedgerError: None of these names one.
    """
    named = option or os.environ.get("LICHEN_LEDGER")
    if named:
        return _ledger_directory(Path(named).expanduser())
    if project.config.ledger:
        return _ledger_directory(project.root / Path(project.config.ledger).expanduser())
    cwd = Path.cwd()
    for candidate in (cwd, *cwd.parents):
        if (candidate / LEDGER_DIRECTORY / "ledger.sqlite").exists():
            return candidate / LEDGER_DIRECTORY
    default = user.get_text("ledger.default")
    if default:
        return _ledger_directory(Path(default).expanduser())
    raise NotALedgerError(
        f"no ledger in {cwd} or above it",
        remedy="Run `lichen init` here, or name one with --ledger DIR or LICHEN_LEDGER.",
    )


def _ledger_directory(path: Path) -> Path:
    """Accept the ledger directory, the project around it, or the file in it."""
    if path.name == "ledger.sqlite":
        return path.parent
    if (path / LEDGER_DIRECTORY / "ledger.sqlite").exists() and not (path / "ledger.sqlite").exists():
        return path / LEDGER_DIRECTORY
    return path
