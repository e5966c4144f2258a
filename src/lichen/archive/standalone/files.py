"""The files of an archive: which there must be, what they hash to, and nothing beside them."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import stat
from typing import BinaryIO

from lichen.archive.standalone.faults import Fault, Unreadable

__all__ = ["OWN_FILES", "WIDTH", "Files", "car_name", "piece_name", "pieces", "tile_names"]

SUMS = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*)")
OWN_FILES = ("README.md", "archive.json", "artefacts.jsonl", "checkpoint", "keys.json", "verify_ledger.py")
READ_SIZE = 1 << 20
SUMS_SIZE_MAX = 1 << 32
BUNDLE_SIZE_MAX = 256 * (2 + 81 + 48000)
WIDTH = 256


def numbered(number: int) -> str:
    """A number in groups of three digits, as C2SP tlog-tiles writes it: 1234067 is x001/x234/067."""
    groups = ["%03d" % (number % 1000)]
    while number >= 1000:
        number //= 1000
        groups.append("x%03d" % (number % 1000))
    return "/".join(reversed(groups))


def pieces(count: int) -> list:
    """Numbers and widths of the tiles over so many hashes or entries; the last may be partial."""
    found = [(number, WIDTH) for number in range(count // WIDTH)]
    return [*found, (count // WIDTH, count % WIDTH)] if count % WIDTH else found


def piece_name(folder: str, number: int, width: int) -> str:
    """Name of a tile, or of what is cut as tiles are."""
    return "%s/%s%s" % (folder, numbered(number), "" if width == WIDTH else ".p/%d" % width)


def tile_names(size: int) -> list:
    """Names of all hash tiles of a log of this size, by level: pairs of name and width."""
    levels: list = []
    count = size
    while count:
        folder = "tile/%d" % len(levels)
        levels.append([(piece_name(folder, number, width), width) for number, width in pieces(count)])
        count //= WIDTH
    return levels


def car_name(cid: str) -> str:
    """Where the CAR file of an artefact lies."""
    return "artefacts/%s/%s.car" % (cid[-3:-1], cid)


class Files:
    """An archive's directory, of which nothing is read but plain files inside it.

    Args:
        root: The directory.

    Raises:
        Unreadable: Not an archive, or not readable.
        Fault: The list of files is malformed, or is not the list of the files there are.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        if not os.path.isdir(root):
            raise Unreadable("%s is not a directory" % root)
        if not os.path.lexists(os.path.join(root, SUMS)):
            raise Unreadable("%s is not an archive of a ledger: it holds no %s" % (root, SUMS))
        self.sums = self.read_sums()
        there = set(self.walk(""))
        missing, foreign = sorted(self.sums.keys() - there), sorted(there - self.sums.keys() - {SUMS})
        if missing:
            raise Fault("%s is missing%s" % (missing[0], more(missing)))
        if foreign:
            raise Fault("%s does not belong to the archive%s" % (foreign[0], more(foreign)))

    def read_sums(self) -> dict:
        """Digest by name, from the list that the archive carries."""
        try:
            lines = self.read(SUMS, SUMS_SIZE_MAX).decode("ascii").split("\n")
        except UnicodeDecodeError:
            raise Fault("%s is not plain text" % SUMS) from None
        if lines.pop():
            raise Fault("%s does not end with a newline" % SUMS)
        found: dict = {}
        last = ""
        for number, line in enumerate(lines, 1):
            match = LINE.fullmatch(line)
            if match is None or {".", ".."} & set(match[2].split("/")):
                raise Fault("line %d of %s is malformed" % (number, SUMS))
            if match[2] <= last:
                raise Fault("line %d of %s is out of order" % (number, SUMS))
            last = match[2]
            found[last] = bytes.fromhex(match[1])
        return found

    def walk(self, folder: str) -> list:
        """Names of all files; anything but plain files and folders is refused."""
        found = []
        with os.scandir(os.path.join(self.root, folder)) as listed:
            entries = list(listed)
        for entry in entries:
            name = folder + entry.name
            if entry.is_dir(follow_symlinks=False):
                found += self.walk(name + "/")
            elif entry.is_file(follow_symlinks=False):
                found.append(name)
            else:
                raise Fault("%s is neither a plain file nor a folder" % name)
        return found

    def open(self, name: str) -> BinaryIO:
        """Open a plain file of the archive for reading.

        Raises:
            Unreadable: The system refuses.
            Fault: It is something else than a plain file.
        """
        try:
            flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            file = os.fdopen(os.open(os.path.join(self.root, *name.split("/")), flags), "rb")
        except OSError as error:
            raise Unreadable("cannot read %s: %s" % (name, error.strerror)) from None
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise Fault("%s is not a plain file" % name)
        return file

    def read(self, name: str, size_max: int) -> bytes:
        """Read a small file whole.

        Raises:
            Fault: It is larger than any such file.
        """
        with self.open(name) as file:
            data = file.read(size_max + 1)
        if len(data) > size_max:
            raise Fault("%s is larger than it can be" % name)
        return data

    def check_sum(self, name: str) -> None:
        """Compare a file with its line in the list.

        Raises:
            Fault: It was changed.
        """
        digest = hashlib.sha256()
        with self.open(name) as file:
            for piece in iter(lambda: file.read(READ_SIZE), b""):
                digest.update(piece)
        if digest.digest() != self.sums.get(name):
            raise Fault("%s is not the file that %s lists" % (name, SUMS))

    @functools.lru_cache(maxsize=16)  # noqa: B019 - one such object lives as long as the program
    def bundle(self, number: int, width: int) -> list:
        """Compact entries of a bundle.

        Raises:
            Fault: It is cut short, or holds another count.
        """
        name = piece_name("tile/entries", number, width)
        data = self.read(name, BUNDLE_SIZE_MAX)
        entries: list = []
        at = 0
        while at < len(data):
            end = at + 2 + int.from_bytes(data[at : at + 2], "big")
            if at + 2 > len(data) or end > len(data):
                raise Fault("%s is cut short" % name, number * WIDTH + len(entries))
            entries.append(data[at + 2 : end])
            at = end
        if len(entries) != width:
            raise Fault("%s holds %d entries, not %d" % (name, len(entries), width), number * WIDTH)
        return entries

    def heads(self, number: int, width: int) -> list:
        """Lines about the checkpoints behind the seals of a bundle."""
        name = piece_name("checkpoints", number, width)
        if name not in self.sums:
            return []
        try:
            lines = self.read(name, 200 * WIDTH).decode("ascii").split("\n")
        except UnicodeDecodeError:
            raise Fault("%s is not plain text" % name) from None
        if lines.pop() or not lines:
            raise Fault("%s does not end with a newline" % name)
        return lines


def more(names: list) -> str:
    """How many others there are."""
    return "" if len(names) == 1 else ", and %d more" % (len(names) - 1)
