"""The name of a whole directory: the CID that ``ipfs add -r --cid-version=1`` prints for it.

A directory is a node with one link per entry, sorted by name, so its CID depends on every name and every byte below it
and on nothing else: not on times, modes or the order in which the file system lists. Symbolic links are named by where
they point and never followed, so they can lead neither out nor round in a circle. One that grows past 256 KiB of names
and CIDs is split into shards (``hamt``).

Like ``ipfs add``, entries whose name starts with a dot are left out unless asked for; they are reported, not forgotten.

Source:
    https://specs.ipfs.tech/unixfs/; thresholds are Kubo's defaults.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from lichen.content.cid import Cid
from lichen.content.dag_pb import Link, directory_data, encode_node, link_to, symlink_data
from lichen.content.files import StatKey, StrPath, file_changed, kind_name, raise_read_error, show_path
from lichen.content.hamt import build_shards
from lichen.content.unixfs import CHUNK_SIZE, DIGEST_SIZE, ArtefactHash, BlockLayout, hash_file
from lichen.errors import UsageError

__all__ = ["DirectoryFile", "DirectoryHash", "build_directory", "hash_directory"]

NODE_SIZE_MAX = 2**18  # (= 262144) bytes of names and CIDs that still go into one node


class DirectoryFile(NamedTuple):
    """One regular file below a directory.

    Args:
        path: Relative to the directory, with ``/``; undecodable bytes as surrogates.
        names: What it is called.
    """

    path: str
    names: ArtefactHash


@dataclass(frozen=True, slots=True)
class DirectoryHash:
    """The name of a directory and what went into it.

    Args:
        cid: What IPFS calls it; its digest is the SHA-256 of the directory's topmost raw block.
        size_bytes: Bytes of all files in it.
        files: Its regular files, sorted by path.
        symlink_count: Symbolic links in it, named by their target's path and not followed.
        left_out: Hidden files and directories that were left out, sorted paths.
        nodes: Raw blocks of the directory nodes and links, children before parents.
    """

    cid: Cid
    size_bytes: int
    files: tuple[DirectoryFile, ...]
    symlink_count: int
    left_out: tuple[str, ...]
    nodes: tuple[bytes, ...]


@dataclass(slots=True)
class _Open:
    """A directory whose entries are being named."""

    path: Path
    relative: str
    state: StatKey
    entries: Iterator[Path]
    links: list[Link] = field(default_factory=list)


def hash_directory(
    path: StrPath, *, hidden: bool = False, hash_one: Callable[[str], ArtefactHash] = hash_file
) -> DirectoryHash:
    """Name a directory with all that is in it.

    Args:
        path: The directory, or a symbolic link to it.
        hidden: Whether entries whose name starts with a dot count; ``ipfs add`` needs ``--hidden`` for the same name.
        hash_one: Names one file given its path; a digest cache's ``hash_file`` spares reading what has not changed.

    Raises:
        UsageError: Not a directory; or below it a pipe, socket or device, or something that may not be read.
        FileChangedError: Something below it was written to in the meantime.
        StorageError: The disk failed.
    """
    naming = _Naming(hidden, hash_one)
    root = naming.run(Path(path))
    return DirectoryHash(
        cid=Cid.from_bytes(root.cid),
        size_bytes=root.content_size,
        files=tuple(sorted(naming.files)),
        symlink_count=naming.symlink_count,
        left_out=tuple(sorted(naming.left_out)),
        nodes=tuple(naming.nodes),
    )


def build_directory(links: Sequence[Link]) -> tuple[Link, list[bytes]]:
    """Join named entries to a directory: one node, or shards where one would be too large.

    Args:
        links: The entries, with distinct names, in any order.

    Returns:
        The nameless link to the directory, and the raw blocks of its nodes, the topmost last.

    Raises:
        UsageError: Two names cannot be told apart by their hash.
    """
    if sum(len(link.name) + len(link.cid) for link in links) > NODE_SIZE_MAX:
        return build_shards(links)
    links = sorted(links, key=lambda link: link.name)
    block = encode_node(links, directory_data())
    return link_to(block, links), [block]


class _Naming:
    """One walk over a directory, depth first with an explicit stack, since trees may be deeper than Python's."""

    def __init__(self, hidden: bool, hash_one: Callable[[str], ArtefactHash]) -> None:
        self.hidden = hidden
        self.hash_one = hash_one
        self.files: list[DirectoryFile] = []
        self.left_out: list[str] = []
        self.nodes: list[bytes] = []
        self.symlink_count = 0

    def run(self, path: Path) -> Link:
        """Walk the directory and return the nameless link to its node."""
        stack = [self._enter(path, "", follow=True)]
        while True:
            here = stack[-1]
            child = next(here.entries, None)
            if child is None:
                link = self._leave(stack.pop())
                if not stack:
                    return link
                stack[-1].links.append(link._replace(name=os.fsencode(here.path.name)))
                continue
            relative = f"{here.relative}/{child.name}".lstrip("/")
            if child.name.startswith(".") and not self.hidden:
                self.left_out.append(relative)
                continue
            mode = _status(child, follow=False).st_mode
            if stat.S_ISDIR(mode):
                stack.append(self._enter(child, relative, follow=False))
            elif stat.S_ISREG(mode):
                here.links.append(self._file(child, relative))
            elif stat.S_ISLNK(mode):
                here.links.append(self._symlink(child))
            else:
                raise UsageError(
                    f"{show_path(child)} is {kind_name(mode)}, which has no content to name",
                    remedy="Move it out of the directory.",
                )

    def _enter(self, path: Path, relative: str, *, follow: bool) -> _Open:
        status = _status(path, follow=follow)
        if not stat.S_ISDIR(status.st_mode):
            raise UsageError(
                f"{show_path(path)} is {kind_name(status.st_mode)}, where a directory is meant",
                remedy="Name a directory.",
            )
        try:
            entries = sorted(path.iterdir())
        except OSError as error:
            raise_read_error(path, error)
        return _Open(path, relative, StatKey.of(status), iter(entries))

    def _leave(self, here: _Open) -> Link:
        """Build the node of a directory whose entries are all named."""
        if StatKey.of(_status(here.path, follow=not here.relative)) != here.state:
            raise file_changed(here.path)
        link, blocks = build_directory(here.links)
        self.nodes += blocks
        return link

    def _file(self, path: Path, relative: str) -> Link:
        names = self.hash_one(str(path))
        self.files.append(DirectoryFile(relative, names))
        return Link(
            names.cid.to_bytes(), names.size_bytes, _dag_size(names.size_bytes), os.fsencode(path.name)
        )

    def _symlink(self, path: Path) -> Link:
        try:
            target = os.readlink(path)  # noqa: PTH115 - a Path would tidy the text that is to be named
        except OSError as error:
            raise_read_error(path, error)
        block = encode_node((), symlink_data(os.fsencode(target)))
        self.nodes.append(block)
        self.symlink_count += 1
        return link_to(block, (), os.fsencode(path.name))


def _status(path: Path, *, follow: bool) -> os.stat_result:
    try:
        return path.stat(follow_symlinks=follow)
    except OSError as error:
        raise_read_error(path, error)


def _dag_size(size_bytes: int) -> int:
    """Bytes of all raw blocks of a file; they depend on its size alone."""
    if size_bytes <= CHUNK_SIZE:
        return size_bytes
    leaf_count = -(-size_bytes // CHUNK_SIZE)
    return BlockLayout(bytes(leaf_count * DIGEST_SIZE), size_bytes).root().total_size
