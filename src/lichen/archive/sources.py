"""An archive that is there already: its list of files, its head, its artefacts; nothing outside its directory is read."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lichen.archive.artefacts import ArtefactList
from lichen.archive.names import ARTEFACTS_NAME, CHECKPOINT_NAME, FACTS_NAME, KEYS_NAME, SUMS_NAME
from lichen.content.files import open_regular, raise_read_error
from lichen.encoding.canonical import parse_canonical
from lichen.errors import EncodingError, FormatVersionError, UsageError, VerificationError
from lichen.ledger.checkpoint import Checkpoint, parse_checkpoint

__all__ = ["Earlier", "check_listing", "read_earlier", "read_plain", "read_sums"]

SMALL_FILE_BYTES_MAX: Final = 2**24
SUMS_BYTES_MAX: Final = 2**32
_LINE: Final = re.compile(rb"([0-9a-f]{64})  ([A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*)")


@dataclass(frozen=True, slots=True)
class Earlier:
    """What an archive says of itself, not yet checked against its entries.

    Attributes:
        directory: Where it lies.
        digests: SHA-256 by name of every file.
        head: Its newest checkpoint; the signature was not checked.
        artefacts: What became of the artefacts.
        members: Ids of all members.
        log_keys: Keys (base64url) that took the place of the log's first one, with the first index each speaks for.
    """

    directory: Path
    digests: dict[str, bytes]
    head: Checkpoint
    artefacts: ArtefactList
    members: set[str]
    log_keys: set[tuple[int, str]]


def read_earlier(directory: Path) -> Earlier:
    """Read what an archive says of itself.

    Raises:
        UsageError: There is no archive.
        EncodingError: It is malformed.
        FormatVersionError: A newer Lichen wrote it.
        StorageError: The system refused.
    """
    aside = directory.with_name(directory.name + ".earlier")
    if not directory.exists() and aside.is_dir():
        aside.rename(directory)  # an update was stopped in the moment between two renames
    if not (directory / SUMS_NAME).is_file():
        raise UsageError(
            f"{directory} is not an archive of a ledger: it holds no {SUMS_NAME}",
            remedy="Write one first: lichen archive, without --update.",
        )
    digests = read_sums(directory)
    _check_format(directory)
    head, _ = parse_checkpoint(read_plain(directory, CHECKPOINT_NAME).decode("utf-8", "replace"))
    artefacts = ArtefactList.read(directory / ARTEFACTS_NAME)
    return Earlier(directory, digests, head, artefacts, *_keys_of(directory))


def read_sums(directory: Path) -> dict[str, bytes]:
    """Read the list of files of an archive.

    Returns:
        SHA-256 by name, none of which leads out of the archive.

    Raises:
        EncodingError: Malformed, out of order, or with a name that leads elsewhere.
    """
    data = read_plain(directory, SUMS_NAME, SUMS_BYTES_MAX)
    *lines, rest = data.split(b"\n")
    if rest:
        raise EncodingError(f"{directory / SUMS_NAME} does not end with a newline")
    digests: dict[str, bytes] = {}
    last = ""
    for number, line in enumerate(lines, 1):
        found = _LINE.fullmatch(line)
        name = "" if found is None else found[2].decode("ascii")
        if found is None or {".", ".."} & set(name.split("/")) or name <= last:
            raise EncodingError(
                f"line {number} of {directory / SUMS_NAME} is malformed, or out of order",
                remedy="The archive was changed or cut; fetch it again.",
            )
        last = name
        digests[name] = bytes.fromhex(found[1].decode("ascii"))
    return digests


def check_listing(directory: Path, digests: dict[str, bytes]) -> None:
    """Check that an archive holds exactly the files of its list, all of them plain.

    Raises:
        VerificationError: It holds fewer, others, or something that is no plain file, such as a symbolic link.
    """
    there = set(_walk(directory, ""))
    for name in sorted(digests.keys() - there):
        raise VerificationError(f"{name} is missing from {directory}", remedy="Fetch the archive again.")
    for name in sorted(there - digests.keys() - {SUMS_NAME}):
        raise VerificationError(
            f"{name} does not belong to the archive in {directory}",
            remedy="Remove it, or fetch the archive again.",
        )


def read_plain(directory: Path, name: str, size_bytes_max: int = SMALL_FILE_BYTES_MAX) -> bytes:
    """Read a plain file of an archive.

    Raises:
        UsageError: It is missing, or something else than a plain file.
        EncodingError: It is larger than any such file.
        StorageError: The system refused.
    """
    with open_regular(directory / name, follow_symlinks=False) as (descriptor, status):
        if status.st_size > size_bytes_max:
            raise EncodingError(f"{directory / name} is larger than it can be: {status.st_size} bytes")
        pieces = []
        while piece := os.read(descriptor, 2**20):
            pieces.append(piece)
    return b"".join(pieces)


def _keys_of(directory: Path) -> tuple[set[str], set[tuple[int, str]]]:
    """Ids of all members, and later keys of the log, from the list of keys."""
    keys = parse_canonical(read_plain(directory, KEYS_NAME).removesuffix(b"\n"))
    try:
        members = {str(member["member"]) for member in keys["members"]}
        return members, {(int(key["first"]), str(key["key"])) for key in keys.get("successors", ())}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EncodingError(f"{directory / KEYS_NAME} does not list members") from error


def _check_format(directory: Path) -> None:
    facts = parse_canonical(read_plain(directory, FACTS_NAME).removesuffix(b"\n"))
    declared = facts.get("format") if isinstance(facts, dict) else None
    if type(declared) is int and declared > 1:
        raise FormatVersionError(
            f"the archive {directory} is of format {declared}, this program reads format 1",
            remedy="Install a newer version of Lichen.",
        )
    if declared != 1:
        raise EncodingError(f"{directory / FACTS_NAME} does not describe an archive")


def _walk(directory: Path, folder: str) -> Iterator[str]:
    try:
        with os.scandir(directory / folder) as listed:
            entries = list(listed)
    except OSError as error:
        raise_read_error(directory / folder, error)
    for entry in entries:
        name = folder + entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(directory, name + "/")
        elif stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
            yield name
        else:
            raise VerificationError(
                f"{name} in {directory} is no plain file", remedy="An archive has no links; fetch it again."
            )
