"""Which installed distribution a file belongs to, and whether its version says what is in it.

A version number identifies content only when the distribution came from an index, and then only one build of it: a distribution
installed from a directory, an archive or a repository (``direct_url.json``), an editable one, one without a list of its files,
files that no distribution lists, and files changed after they were installed count as code and are hashed like the project's
own. Builds of one version are told apart by the digests in their lists.

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
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lichen.errors import LichenError

__all__ = [
    "ALL_INSTALLED", "LISTED", "Distribution", "SiteDirectory", "builds_of", "changed_installed_files", "is_own",
    "normal_name", "only_announces", "start_files",
]  # fmt: skip

ALL_INSTALLED = "(all that is installed)"
"""Stands among the distributions of a run that asked which there are: their names and versions, Lichen's own left out."""
LISTED = "names in "
"""Before the relative path of an installed folder that a run listed, among its distributions."""

HashFile = Callable[[str], bytes]
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


_TOPS = re.compile(r'^"*([^,/"\r\n]+)', re.MULTILINE)
"""What stands before the first slash or comma of each line of a list of files."""


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
    _listed: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str, only: Iterable[str] | None = None) -> SiteDirectory:
        """Read the metadata of what is installed in a directory; unreadable metadata is skipped.

        Args:
            path: The directory.
            only: Names of the distributions wanted; all of them when None.
        """
        site = cls(path)
        wanted = None if only is None else {normal_name(name) for name in only}
        with contextlib.suppress(OSError):
            for entry in sorted(os.listdir(path)):
                match = re.fullmatch(r"(.+?)-([^-]+)\.dist-info", entry) or re.fullmatch(
                    r"(.+?)-([^-]+?)(?:-py[\d.]+)?\.egg-info", entry
                )
                if match and (wanted is None or normal_name(match[1]) in wanted):
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
                tops = set(_TOPS.findall(text))
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

    def is_as_installed(
        self, path: str, distribution: Distribution, hash_file: HashFile | None = None
    ) -> bool:
        """Say whether an installed file still has the content its distribution came with.

        Only a file whose status changed after the distribution's own list was written is hashed; installers write the list last.
        A file edited later cannot have an earlier status change, whatever modification time it was given.

        Args:
            path: Of the file, in this directory.
            distribution: That it belongs to.
            hash_file: Returns the SHA-256 of a file, 32 bytes, from a cache; files are read when None.
        """
        try:
            info = os.stat(path)
            listed = self._listed_ns(distribution)
        except OSError:
            return False
        expected, size = self.recorded(distribution).get(path[len(self.path) + 1 :], ("", ""))
        if size.isdigit() and info.st_size != int(size):
            return False
        if max(info.st_mtime_ns, info.st_ctime_ns) <= listed:
            return True
        algorithm, _, digest = expected.partition("=")
        if not digest or algorithm not in hashlib.algorithms_guaranteed:
            return False
        try:
            if algorithm == "sha256" and hash_file is not None:
                found = hash_file(path)
            else:
                with open(path, "rb") as file:
                    found = hashlib.file_digest(file, algorithm).digest()
        except (OSError, LichenError):
            return False
        return base64.urlsafe_b64encode(found).rstrip(b"=").decode() == digest

    def _listed_ns(self, distribution: Distribution) -> int:
        """Return when a distribution's list was last changed, nanoseconds since the epoch."""
        known = self._listed.get(distribution.metadata)
        if known is None:
            info = os.stat(f"{distribution.metadata}/RECORD")
            known = self._listed[distribution.metadata] = max(info.st_mtime_ns, info.st_ctime_ns)
        return known

    def build_of(self, distribution: Distribution) -> str:
        """Digest what a distribution installed, twelve hexadecimal digits; empty when it has no list.

        Only digests of files in this directory count: scripts beside the interpreter name its path, and metadata says who installed.
        """
        rows = sorted(
            f"{path}\0{digest}"
            for path, (digest, _) in self.recorded(distribution).items()
            if digest and not path.startswith(("../", "/")) and _is_content(path)
        )
        return (
            hashlib.sha256("\n".join(rows).encode("utf-8", "surrogateescape")).hexdigest()[:12]
            if rows
            else ""
        )


def _is_content(path: str) -> bool:
    """Say whether an installed path is what a program reads rather than what installers note for each other."""
    if path.endswith(".pyc"):
        return False
    folder, _, name = path.rpartition("/")
    return not folder.endswith(".dist-info") or name == "entry_points.txt"


def builds_of(sites: Iterable[SiteDirectory], names: Iterable[str]) -> dict[str, str]:
    """Tell builds of installed distributions apart.

    Args:
        sites: ``site-packages`` directories, in the order of the search.
        names: Distributions to look at.

    Returns:
        Digest by name, for those that list their files; all of them separated by ``, `` where several directories hold one.
    """
    wanted = {normal_name(name): name for name in names}
    found: dict[str, list[str]] = {}
    for site in sites:
        for normal in wanted.keys() & site.distributions.keys():
            build = site.build_of(site.distributions[normal])
            if build:
                found.setdefault(wanted[normal], []).append(build)
    return {name: ", ".join(builds) for name, builds in found.items()}


def is_own(metadata: str) -> bool:
    """Say whether a metadata directory is that of Lichen itself, which announces its command and nothing that a script would load.

    Args:
        metadata: Path of a ``dist-info`` or ``egg-info`` directory.
    """
    if not Path(metadata).name.startswith(("lichen-", "lichen.egg-info")):
        return False
    try:
        words = Path(metadata, "entry_points.txt").read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        return False
    return words == ["[console_scripts]", "lichen", "=", "lichen.cli.main:main"]


def only_announces(path: str) -> bool:
    """Say whether a file is one in which Lichen itself announces its command: who lists entry points reads it and takes nothing from it.

    Args:
        path: Of an installed file.
    """
    folder, _, name = path.rpartition("/")
    return name in ("entry_points.txt", "top_level.txt") and is_own(folder)


def start_files(directories: Iterable[str]) -> list[str]:
    """List the installed files that every start of an interpreter obeys, sorted: path files and what they import, customizations.

    Those by which an editable Lichen is found are left out while they are as installed: a script that imports it has its sources
    among its code.

    Args:
        directories: ``site-packages`` directories.
    """
    found = []
    for directory in directories:
        with contextlib.suppress(OSError):
            names = os.listdir(directory)
            own = _own_start_files(directory, names)
            found += [
                f"{directory}/{name}"
                for name in names
                if name not in own
                and (
                    name.endswith(".pth")
                    or name.startswith(("sitecustomize", "usercustomize"))
                    or (name.startswith("__editable__") and name.endswith(".py"))
                )
            ]
    return sorted(found)


def _own_start_files(directory: str, names: Iterable[str]) -> set[str]:
    """Names of the files that an editable installation of Lichen laid down for the start of an interpreter, as they were installed."""
    laid = [name for name in names if name.startswith(("__editable__.lichen-", "__editable___lichen_"))]
    if not laid:
        return set()
    site = SiteDirectory.read(directory, ["lichen"])
    distribution = site.distributions.get("lichen")
    if distribution is None or not is_own(distribution.metadata):
        return set()
    recorded = site.recorded(distribution)
    return {
        name
        for name in laid
        if name in recorded and site.is_as_installed(f"{directory}/{name}", distribution)
    }


def changed_installed_files(
    sites: Iterable[SiteDirectory], names: Iterable[str], hash_file: HashFile | None = None
) -> list[str]:
    """List files of installed distributions whose content is no longer what was installed.

    Args:
        sites: ``site-packages`` directories.
        names: Distributions to look at.
        hash_file: See :meth:`SiteDirectory.is_as_installed`.

    Returns:
        Absolute paths of changed files, sorted; bytecode and metadata left out.
    """
    wanted = {normal_name(name) for name in names}
    changed = []
    for site in sites:
        for name in wanted & site.distributions.keys():
            distribution = site.distributions[name]
            for relative in site.recorded(distribution):
                path = f"{site.path}/{relative}"
                outside = relative.startswith(("../", "/")) or not _is_content(relative)
                if not outside and not site.is_as_installed(path, distribution, hash_file):
                    changed.append(path)
    return sorted(changed)


def is_generated(path: str) -> bool:
    """Say whether every interpreter start reads this file, and it says nothing but where things lie."""
    return _GENERATED.match(path) is not None
