"""Make a ledger of an archive again, and believe nothing of it on the way.

Every entry is derived anew before it is taken, as in any copy of a ledger that is written elsewhere (`lichen.ledger.replica`):
signature, key, rules, state, seal, checkpoint. The log's signatures are those of the archive, each checked against what the
entries lead to. So the ledger that comes out has the same bytes in every entry and checkpoint, or it does not come out.

At the end the files of the archive are made again from the restored ledger and its store, and compared: bundles, tiles, heads, keys,
facts and the CAR file of every artefact. Four are not: README and verifier, which are for readers; the list of artefacts, which says
what the archive lacks as well and is held against the entries and the artefacts; and the checkpoint, of which the text and the
log's signature are checked. Further signature lines on it are kept as they are, for whoever has the keys of witnesses to judge.

Rules upheld:

* The ledger's directory gets its name when everything in it is there and was checked.
* No secret is made: without the log's key put beside it, what was restored is read and not written.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from lichen.archive.artefacts import DIRECTORY, INCLUDED, ArtefactList, ArtefactRow
from lichen.archive.documents import facts_document, keys_document
from lichen.archive.log_files import LogFiles
from lichen.archive.names import (
    FACTS_NAME,
    KEYS_NAME,
    README_NAME,
    TILE_WIDTH,
    VERIFIER_NAME,
    Piece,
    car_name,
    pieces,
)
from lichen.archive.sources import Earlier, check_listing, read_earlier, read_plain
from lichen.content.car import export_artefact, import_artefact
from lichen.content.cid import Cid
from lichen.content.directory_store import DirectoryStore
from lichen.content.files import open_regular
from lichen.crypto.keys import PublicKey
from lichen.crypto.sealed import MAGIC
from lichen.encoding.base import b64_decode, b64u_decode
from lichen.encoding.entry import ENTRY_OVERHEAD_BYTES, PAYLOAD_BYTES_MAX
from lichen.errors import EncodingError, LichenError, StorageError, UsageError, VerificationError
from lichen.ledger.checkpoint import open_checkpoint, parse_checkpoint
from lichen.ledger.cosigned import CosignedCheckpoints
from lichen.ledger.ledger import Ledger
from lichen.ledger.replica import Replica, is_seal

if TYPE_CHECKING:
    from lichen.ledger.ports import Contract, View
    from lichen.ledger.views import Progress

__all__ = ["Restored", "restore"]

BATCH_COUNT: Final = 1_000
HEAD_LINE_BYTES_MAX: Final = 200
BUNDLE_BYTES_MAX: Final = 256 * (2 + ENTRY_OVERHEAD_BYTES + PAYLOAD_BYTES_MAX)
_REMEDY: Final = (
    "The archive was changed, or was never whole; `verify_ledger.py` in it says where. Fetch another copy."
)


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored.

    Attributes:
        directory: The ledger's directory.
        ledger_id: 64 hexadecimal digits.
        size: Entries.
        root: Root over them, hexadecimal; the archive's.
        access: ``private`` or ``public``.
        artefact_count: Artefacts put into the store.
        missing: CIDs of artefacts that the archive does not hold; a directory is held as its files.
        unjudged_count: Signature lines on the checkpoint that are not the log's, kept and not judged.
    """

    directory: Path
    ledger_id: str
    size: int
    root: str
    access: str
    artefact_count: int
    missing: tuple[str, ...]
    unjudged_count: int


def restore(
    archive: Path,
    directory: Path,
    contracts: Sequence[Contract],
    views: Sequence[View] = (),
    *,
    progress: Progress | None = None,
) -> Restored:
    """Restore a ledger and its artefacts.

    Args:
        archive: Directory of the archive.
        directory: Directory to make.
        contracts: Contracts this program has.
        views: Query tables to fill.
        progress: Told how many entries are done.

    Returns:
        What was restored.

    Raises:
        UsageError: No archive, or something is in the way.
        EncodingError: The archive is malformed.
        VerificationError: It does not hold.
        FormatVersionError: A newer Lichen wrote it.
        StorageError: Disk full, or not writable. The directory is not there then.
    """
    archive, directory = archive.absolute(), directory.absolute()
    if directory.is_symlink() or (
        directory.exists() and (not directory.is_dir() or any(directory.iterdir()))
    ):
        raise UsageError(f"{directory} is there already and not empty", remedy="Name a new directory.")
    source = read_earlier(archive)
    check_listing(archive, source.digests)
    staging = directory.parent / f".{directory.name}.partial"
    try:
        with _alone(staging, directory):
            restored = _Restoring(source, staging, progress).run(contracts, views)
            count = _restore_artefacts(source, DirectoryStore(staging / "store"))
            (staging / ".gitignore").write_text("*\n", encoding="ascii")
            staging.rename(directory)
    except OSError as error:
        raise StorageError(
            f"cannot restore into {directory}: {error.strerror}",
            remedy="Make room or mend permissions, and type the same again.",
        ) from error
    missing = sorted(
        row.cid for row in source.artefacts.rows.values() if row.status not in (INCLUDED, DIRECTORY)
    )
    return Restored(
        directory,
        restored.id,
        source.head.tree_size,
        source.head.root.hex(),
        restored.access,
        count,
        tuple(missing),
        restored.unjudged_count,
    )


@contextlib.contextmanager
def _alone(staging: Path, directory: Path) -> Iterator[None]:
    """An empty directory to fill, with other processes kept out; gone again when the block fails.

    Raises:
        UsageError: Another process restores into the same place.
    """
    staging.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(
                f"another process restores into {directory}", remedy="Wait until it is done."
            ) from error
        try:
            _empty(staging)  # of what an interrupted attempt left
            yield
        except LichenError:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    finally:
        os.close(lock)


def _empty(directory: Path) -> None:
    for left in list(directory.iterdir()):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()


@dataclass(frozen=True, slots=True)
class _Identity:
    """Which ledger came out."""

    id: str
    access: str
    unjudged_count: int


class _Restoring:
    """One archive becoming a ledger."""

    def __init__(self, source: Earlier, directory: Path, progress: Progress | None) -> None:
        self._source = source
        self._directory = directory
        self._progress = progress
        self._size = source.head.tree_size
        self._heads_name = ""
        self._heads: dict[str, list[str]] = {}

    def run(self, contracts: Sequence[Contract], views: Sequence[View]) -> _Identity:
        """Take every block, then compare."""
        blocks = self._blocks()
        entries, signatures = next(blocks, ([], {}))
        with Replica.found(self._directory, entries, signatures, contracts, views) as ledger:
            self._check_id(ledger)
            for entries, signatures in blocks:
                self._tell(ledger.size)
                ledger.extend(ledger.size, entries, signatures)
            unjudged_count = self._compare(ledger)
            identity = _Identity(ledger.id, ledger.genesis.access, unjudged_count)
        Replica.open_copy(self._directory, contracts, views).close()  # fills the views
        return identity

    def _check_id(self, ledger: Ledger) -> None:
        if ledger.origin != self._source.head.origin:
            raise VerificationError(
                "the checkpoint of the archive is of another ledger than its entries",
                expected=self._source.head.origin,
                calculated=ledger.origin,
                remedy=_REMEDY,
            )

    def _tell(self, done: int) -> None:
        if self._progress is not None:
            self._progress(done, self._size)

    def _blocks(self) -> Iterator[tuple[list[bytes], dict[int, bytes]]]:
        """Entries up to a seal, at least `BATCH_COUNT` where there are as many, and the signatures of the checkpoints."""
        entries: list[bytes] = []
        signatures: dict[int, bytes] = {}
        for index, data in enumerate(self._entries()):
            entries.append(data)
            if not is_seal(data):
                continue
            size, _, signature = self._head_of(index)
            if size != index + 1:
                raise VerificationError(
                    f"the checkpoint behind the seal at entry {index} is missing", remedy=_REMEDY
                )
            signatures[index] = signature
            if len(entries) >= BATCH_COUNT:
                yield entries, signatures
                entries, signatures = [], {}
        if entries:
            yield entries, signatures

    def _head_of(self, index: int) -> tuple[int, bytes, bytes]:
        """The checkpoint behind a seal, as the archive has it: size (0 when it has none), root, signature."""
        number = index // TILE_WIDTH
        name = Piece(number, min(TILE_WIDTH, self._size - number * TILE_WIDTH)).name("checkpoints")
        if name != self._heads_name:
            text = self._read(name, TILE_WIDTH * HEAD_LINE_BYTES_MAX).decode("ascii", "replace")
            lines = [line.split(" ") for line in text.splitlines()]
            self._heads_name, self._heads = name, {line[0]: line[1:] for line in lines}
        found = self._heads.get(str(index + 1), [])
        if len(found) != 2:
            return 0, bytes(32), b""
        return index + 1, b64_decode(found[0], 32), b64_decode(found[1], 64)

    def _entries(self) -> Iterator[bytes]:
        """Compact entries, in order."""
        for piece in pieces(self._size):
            name = piece.name("tile/entries")
            data, at, count = self._read(name, BUNDLE_BYTES_MAX), 0, 0
            while at < len(data):
                end = at + 2 + int.from_bytes(data[at : at + 2], "big")
                if end > len(data):
                    raise EncodingError(f"{name} is cut short", remedy=_REMEDY)
                yield data[at + 2 : end]
                at, count = end, count + 1
            if count != piece.width:
                raise EncodingError(f"{name} holds {count} entries, not {piece.width}", remedy=_REMEDY)

    def _read(self, name: str, size_bytes_max: int) -> bytes:
        """Read a file of the archive and compare it with its digest."""
        data = read_plain(self._source.directory, name, size_bytes_max)
        _check_digest(self._source, name, hashlib.sha256(data).digest())
        return data

    # -- comparing -------------------------------------------------------------------------------------------------

    def _compare(self, ledger: Ledger) -> int:
        """Make the files of the archive again from the restored ledger, and compare.

        Returns:
            Signature lines on the checkpoint that were kept and not judged.
        """
        source = self._source
        made: set[str] = set()

        def put(name: str, data: bytes) -> None:
            _check_digest(source, name, hashlib.sha256(data).digest())
            self._read(name, max(len(data), 1))
            made.add(name)

        named = ArtefactList()
        files = LogFiles(ledger, self._size, put, named)
        root = files.make()
        if root != source.head.root:
            raise VerificationError(
                "the checkpoint of the archive is not over its entries",
                expected=source.head.root,
                calculated=root,
                remedy=_REMEDY,
            )
        unjudged_count = self._check_head(ledger, files)
        put(KEYS_NAME, keys_document(ledger, files.members, files.log_keys))
        put(FACTS_NAME, facts_document(ledger, self._size, source.artefacts.counts()))
        put("artefacts.jsonl", source.artefacts.to_bytes())
        _compare_names(named, source.artefacts)
        cars = {car_name(Cid.parse(row.cid)) for row in _included(source.artefacts)}
        for name in (README_NAME, VERIFIER_NAME, "checkpoint"):
            self._read(name, 2**24)
            made.add(name)
        if odd := sorted(source.digests.keys() ^ (made | cars)):
            raise VerificationError(f"{odd[0]} does not belong to an archive of this log", remedy=_REMEDY)
        return unjudged_count

    def _check_head(self, ledger: Ledger, files: LogFiles) -> int:
        """Check the newest checkpoint, and keep its cosignatures, which only those who have the keys of witnesses can judge."""
        note = read_plain(self._source.directory, "checkpoint").decode("utf-8", "replace")
        log_key = ledger.genesis.log_key
        if files.log_keys:
            log_key = PublicKey(b64u_decode(files.log_keys[-1][1], 32))
        open_checkpoint(note, ledger.origin, log_key)
        signatures = parse_checkpoint(note)[1].signatures
        others = [signature for signature in signatures if signature.name != ledger.origin]
        for signature in others:
            CosignedCheckpoints(self._directory).add(ledger.checkpoint(), signature)
        if len(signatures) != len(others) + 1:
            raise VerificationError(
                "the checkpoint of the archive has several signatures in the log's name", remedy=_REMEDY
            )
        return len(others)


def _check_digest(source: Earlier, name: str, digest: bytes) -> None:
    if source.digests.get(name) != digest:
        raise VerificationError(
            f"{name} of {source.directory} is not what it must be",
            expected=source.digests.get(name),
            calculated=digest,
            remedy=_REMEDY,
        )


def _included(artefacts: ArtefactList) -> Iterator[ArtefactRow]:
    return (row for row in artefacts.rows.values() if row.status == INCLUDED)


def _compare_names(named: ArtefactList, listed: ArtefactList) -> None:
    """Check that the list of artefacts says of each which entry names it first, and names no other."""
    for cid, row in named.rows.items():
        if cid not in listed.rows or listed.rows[cid].entry != row.entry:
            raise VerificationError(f"the list of artefacts is wrong about {cid}", remedy=_REMEDY)
    for cid, row in listed.rows.items():
        if row.entry is not None and cid not in named.rows:
            raise VerificationError(f"no entry names {cid}, as the list of artefacts says", remedy=_REMEDY)


class _Digester:
    """What is written to it is hashed and not kept."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return len(data)


def _restore_artefacts(source: Earlier, store: DirectoryStore) -> int:
    """Put every artefact into the store, after comparing it with what the archive says of it."""
    count = 0
    for row in _included(source.artefacts):
        cid = Cid.parse(row.cid)
        name = car_name(cid)
        path = source.directory / name
        with open_regular(path, follow_symlinks=False), path.open("rb") as file:
            _check_digest(source, name, hashlib.file_digest(file, "sha256").digest())
            file.seek(0)
            names = import_artefact(store, file, expected=cid, size_bytes_max=row.size_bytes or 0)
        with store.open(cid) as stored:
            sealed = stored.read(len(MAGIC)) == MAGIC
        if (names.sha256, names.size_bytes, sealed) != (row.sha256, row.size_bytes, row.sealed):
            raise VerificationError(f"{name} is not what the list of artefacts says of it", remedy=_REMEDY)
        made = _Digester()
        export_artefact(store, cid, cast("BinaryIO", made))
        _check_digest(source, name, made.digest.digest())
        count += 1
    return count
