"""A directory as it is now: names, which of them are directories, which symbolic links."""

# There can be 100,000 names.
from __future__ import annotations

import os
from typing import NamedTuple

from lichen.content.columns import TYPE_DIRECTORY, TYPE_LINK, TYPE_REGULAR, loaded

__all__ = ["Listing", "read_listing", "without_slashes"]


class Listing(NamedTuple):
    """A directory.

    Attributes:
        names: Sorted, a slash behind directories.
        links: Which of them are symbolic links.
        folders: Which of them are directories, without the slash.
        bare: All names without slashes, sorted.
    """

    names: list[str]
    links: set[str]
    folders: list[str]
    bare: list[str]


def read_listing(directory: str) -> Listing:
    """List a directory by absolute path, by the C library where that is in use.

    Raises:
        OSError: It cannot be listed.
    """
    return _listed_by_columns(directory) or _listed(directory)


def _listed(directory: str) -> Listing:
    """List a directory.

    Raises:
        OSError: It cannot be listed.
    """
    with os.scandir(directory) as entries:
        found = list(entries)
    special = [entry for entry in found if not entry.is_file(follow_symlinks=False)]
    links = {entry.name for entry in special if entry.is_symlink()}
    folders = {entry.name for entry in special if entry.name not in links and entry.is_dir()}
    return _listing_of(directory, [entry.name for entry in found], links, folders)


def _listed_by_columns(directory: str) -> Listing | None:
    """Do the same by the C library where that is in use; None where it is not, or cannot tell."""
    library = loaded()
    found = library.entries(directory) if library is not None else None
    if found is None:
        return None
    names, types = found
    links, folders = set(), set()
    if types.count(TYPE_REGULAR) != len(types):
        links = {name for name, type_ in zip(names, types, strict=True) if type_ == TYPE_LINK}
        folders = {name for name, type_ in zip(names, types, strict=True) if type_ == TYPE_DIRECTORY}
    return _listing_of(directory, names, links, folders)


def _listing_of(directory: str, names: list[str], links: set[str], folders: set[str]) -> Listing:
    folders |= {name for name in links if os.path.isdir(f"{directory}/{name}")}  # noqa: PTH112
    bare = sorted(names)
    names = sorted(f"{name}/" if name in folders else name for name in bare) if folders else bare
    return Listing(names, links, sorted(folders), bare)


def without_slashes(entries: list[str]) -> list[str]:
    """Return names without the slash behind directories."""
    if "/\0" not in "\0".join(entries) + "\0":
        return entries
    return [entry.rstrip("/") for entry in entries]
