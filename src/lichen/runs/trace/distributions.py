"""Which installed distribution a file belongs to, and whether its version says what is in it.

A version number identifies content only when the distribution came from an index: a distribution installed from a
directory, an archive or a repository (``direct_url.json``), an editable one, files that no distribution lists, and files changed
after they were installed count as code and are hashed like the project's own.

Source: Python packaging's "Recording installed projects" and "Direct URL" specifications.
"""

# Paths are the run's own strings, undecodable bytes and all, and there can be 100,000 of them.
# ruff: noqa: PTH116, PTH123, PTH208

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Distribution", "SiteDirectory", "normal_name"]

_GENERATED = re.compile(
    r".*/(__editable__|_editable_|_distutils_hack/|_virtualenv\.|[^/]*\.pth$|easy[-_]install)"
)


@dataclass(frozen=True, slots=True)
class Distribution:
    """One installed distribution.

    Attributes:
        name: As its metadata directory spells it.
        version: Version.
        from_index: False when the version does not identify the content.
        metadata: Its ``dist-info`` or ``egg-info`` directory.
    """

    name: str
    version: str
    from_index: bool
    metadata: str


def normal_name(name: str) -> str:
    """Return the one spelling under which names of distributions compare equal."""
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass
class SiteDirectory:
    """One ``site-packages`` directory.

    Attributes:
        path: The directory.
        owners: Top-level file or directory name -> distributions that put files there.
        distributions: All distributions, by normal name.
    """

    path: str
    owners: dict[str, list[Distribution]] = field(default_factory=dict)
    distributions: dict[str, Distribution] = field(default_factory=dict)
    _recorded: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str) -> SiteDirectory:
        """Read the metadata of everything installed in a directory; unreadable metadata is skipped."""
        site = cls(path)
        with contextlib.suppress(OSError):
            for entry in sorted(os.listdir(path)):
                match = re.fullmatch(r"(.+?)-([^-]+)\.dist-info", entry) or re.fullmatch(
                    r"(.+?)-([^-]+?)(?:-py[\d.]+)?\.egg-info", entry
                )
                if match:
                    site._add(match[1], match[2], f"{path}/{entry}")
        return site

    def _add(self, name: str, version: str, metadata: str) -> None:
        from_index = not Path(metadata, "direct_url.json").exists()
        distribution = Distribution(name, version, from_index, metadata)
        self.distributions[normal_name(name)] = distribution
        tops = set()
        for listing in ("RECORD", "installed-files.txt", "SOURCES.txt", "top_level.txt"):
            with contextlib.suppress(OSError):
                text = Path(metadata, listing).read_text(encoding="utf-8", errors="surrogateescape")
                tops = {line.partition(",")[0].partition("/")[0].strip('"\r') for line in text.splitlines()}
                break
        tops |= {f"{top}.py" for top in tops} if Path(metadata, "RECORD").exists() is False else set()
        for top in tops - {"", "..", "."}:
            self.owners.setdefault(top, []).append(distribution)

    def owner_of(self, path: str) -> Distribution | None:
        """Find the distribution a file in this directory belongs to, None when none lists it.

        Namespace packages are shared; then the listings of all sharers are searched.
        """
        relative = path[len(self.path) + 1 :]
        candidates = self.owners.get(relative.partition("/")[0], [])
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        for candidate in candidates:
            if relative in self.recorded(candidate):
                return candidate
        return None

    def recorded(self, distribution: Distribution) -> dict[str, tuple[str, str]]:
        """Return relative path -> (hash, size) as installed, both as text."""
        table = self._recorded.get(distribution.metadata)
        if table is None:
            table = {}
            with (
                contextlib.suppress(OSError, csv.Error, UnicodeError),
                Path(distribution.metadata, "RECORD").open(encoding="utf-8", newline="") as file,
            ):
                table = {row[0]: (row[1], row[2]) for row in csv.reader(file) if len(row) >= 3}
            self._recorded[distribution.metadata] = table
        return table

    def is_as_installed(self, path: str, distribution: Distribution) -> bool:
        """Say whether an installed file still has the content its distribution came with.

        Only a file modified after the distribution's own listing was written is hashed; installers write the listing last.
        """
        try:
            modified = os.stat(path).st_mtime_ns
            written = os.stat(f"{distribution.metadata}/RECORD").st_mtime_ns
        except OSError:
            return distribution.from_index
        if modified <= written:
            return True
        expected, size = self.recorded(distribution).get(path[len(self.path) + 1 :], ("", ""))
        algorithm, _, digest = expected.partition("=")
        if not digest or algorithm not in hashlib.algorithms_guaranteed or not size.isdigit():
            return False
        try:
            if os.stat(path).st_size != int(size):
                return False
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, algorithm).digest()
        except OSError:
            return False
        return base64.urlsafe_b64encode(found).rstrip(b"=").decode() == digest


def changed_installed_files(directories: Iterable[str], names: Iterable[str]) -> list[str]:
    """List files of installed distributions whose content is no longer what was installed.

    Args:
        directories: ``site-packages`` directories.
        names: Distributions to look at.

    Returns:
        Absolute paths of changed source and extension files, sorted.
    """
    wanted = {normal_name(name) for name in names}
    changed = []
    for directory in directories:
        site = SiteDirectory.read(directory)
        for name in wanted & site.distributions.keys():
            distribution = site.distributions[name]
            for relative in site.recorded(distribution):
                path = f"{directory}/{relative}"
                if relative.endswith((".py", ".so")) and not site.is_as_installed(path, distribution):
                    changed.append(path)
    return sorted(changed)


def is_generated(path: str) -> bool:
    """Say whether every interpreter start reads this file, and it says nothing but where things lie."""
    return _GENERATED.match(path) is not None
