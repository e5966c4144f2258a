"""Write a ledger as an archive: static files that anybody can check, and that any web server can serve.

Rules upheld:

* The archive holds what is sealed, and so signed for; entries that no seal covers yet are left out, and counted.
* The root over the tiles that were written is the one the log signed, or nothing gets its name.
* An update takes over what cannot change (full tiles, artefacts) and refuses an archive of another log, or of a past that
  this ledger does not have.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lichen.archive.artefacts import ArtefactList
from lichen.archive.assemble import verifier_source
from lichen.archive.documents import facts_document, keys_document, readme_document
from lichen.archive.log_files import LOG_KEY_KIND, MEMBER_KIND, LogFiles, NamedWithin
from lichen.archive.names import (
    CHECKPOINT_NAME,
    FACTS_NAME,
    KEYS_NAME,
    README_NAME,
    SUMS_NAME,
    TILE_WIDTH,
    VERIFIER_NAME,
    Piece,
)
from lichen.archive.sources import Earlier, read_earlier
from lichen.archive.staging import Staging
from lichen.encoding.statement import Statement
from lichen.errors import CorruptLedgerError, UsageError, VerificationError
from lichen.ledger.checkpoint import parse_checkpoint
from lichen.ledger.cosigned import CosignedCheckpoints

if TYPE_CHECKING:
    from lichen.content.store import ArtefactStore
    from lichen.ledger.ledger import Ledger
    from lichen.ledger.views import Progress

__all__ = ["ArchiveReport", "write_archive"]


@dataclass(slots=True)
class ArchiveReport:
    """What was written.

    Attributes:
        directory: The archive.
        ledger_id: 64 hexadecimal digits.
        size: Entries in it.
        unsealed_count: Entries of the ledger that are not in it, because no seal covers them yet.
        artefacts: How many artefacts are ``included``, ``left-out``, ``missing``, or a ``directory``.
        missing: CIDs of those that the store does not hold.
        damaged: CIDs of those whose bytes in the store are not what they are named for.
        plain_count: Included artefacts that anybody can read.
        file_count: Files in the archive.
        written_count: Files that were written; the others were taken over.
    """

    directory: Path
    ledger_id: str
    size: int
    unsealed_count: int
    artefacts: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    plain_count: int = 0
    file_count: int = 0
    written_count: int = 0


def write_archive(
    ledger: Ledger,
    target: Path,
    *,
    store: ArtefactStore | None = None,
    named_within: NamedWithin = lambda _: (),
    update: bool = False,
    progress: Progress | None = None,
) -> ArchiveReport:
    """Write the archive of a ledger, or bring one up to date.

    Seals first when the ledger can be written.

    Args:
        ledger: The ledger.
        target: Directory to make; with ``update`` the archive that is there.
        store: Where artefacts are; None leaves out all that the archive does not hold yet.
        named_within: Artefacts that records name through others.
        update: Add to an archive what was appended since.
        progress: Told how far it is: entries and artefacts done, and how many there are.

    Returns:
        What was written.

    Raises:
        UsageError: There is something at the target, or nothing to update; or keys changed in entries that are not sealed.
        VerificationError: The archive to update is of another ledger, or of a past this one does not have.
        CorruptLedgerError: The ledger is damaged.
        StorageError: Disk full, or not writable; the target is as it was.
    """
    target = target.absolute()
    earlier = read_earlier(target) if update else None
    if earlier is None:
        _check_free(target)
    if not ledger.read_only:
        ledger.seal(force=True)
    with Staging(target) as staging:
        return _Writing(ledger, staging, earlier, store, named_within, progress).run()


def _check_free(target: Path) -> None:
    """Check that nothing is in the way.

    Raises:
        UsageError: Something is.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise UsageError(f"{target} is there already and is no directory", remedy="Name another place.")
    if target.is_dir() and any(target.iterdir()):
        raise UsageError(
            f"{target} is not empty", remedy="Name a new directory, or add to an archive with --update."
        )


def _cosigned(ledger: Ledger) -> str:
    """The newest checkpoint, with the cosignatures that were collected for it."""
    checkpoint = ledger.checkpoint()
    head, note = parse_checkpoint(checkpoint)
    collected = CosignedCheckpoints(ledger.directory).read(head.tree_size)
    if collected is None or collected.text != note.text:
        return checkpoint
    for signature in collected.signatures:
        if signature.name != ledger.origin:  # the log's own is there, and known to hold
            note = note.with_signature(signature)
    return note.to_text()


class _Writing:
    """One archive being written."""

    def __init__(
        self,
        ledger: Ledger,
        staging: Staging,
        earlier: Earlier | None,
        store: ArtefactStore | None,
        named_within: NamedWithin,
        progress: Progress | None,
    ) -> None:
        self._ledger = ledger
        self._staging = staging
        self._earlier = earlier
        self._store = store
        self._named_within = named_within
        self._progress = progress
        self._checkpoint = _cosigned(ledger)
        self._head, _ = parse_checkpoint(self._checkpoint)
        self._size = self._head.tree_size
        self._artefacts = earlier.artefacts if earlier is not None else ArtefactList()

    def run(self) -> ArchiveReport:
        """Write everything, then give the archive its name."""
        self._check_earlier()
        self._check_tail()
        files = LogFiles(
            self._ledger,
            self._size,
            self._staging.put,
            self._artefacts,
            take_over=self._take_over,
            named_within=self._named_within,
            progress=self._progress,
        )
        self._check_root(files.make())
        digests = self._earlier.digests if self._earlier is not None else {}
        directory = self._earlier.directory if self._earlier is not None else None
        total = len(self._artefacts.rows)
        for done in self._artefacts.write_all(self._staging, self._store, directory, digests):
            self._tell(self._size + done, self._size + total)
        counts = self._artefacts.counts()
        put = self._staging.put
        put(KEYS_NAME, keys_document(self._ledger, *self._named(files)))
        put(FACTS_NAME, facts_document(self._ledger, self._size, counts))
        put(README_NAME, readme_document(self._ledger, self._size))
        put(VERIFIER_NAME, verifier_source().encode("ascii"))
        put(CHECKPOINT_NAME, self._checkpoint.encode())
        put(SUMS_NAME, self._staging.sums())
        self._staging.publish()
        return self._report(counts)

    def _check_earlier(self) -> None:
        """Check that the archive to update is one of this log's past.

        Raises:
            VerificationError: It is not.
        """
        if self._earlier is None:
            return
        head, ledger = self._earlier.head, self._ledger
        where = self._earlier.directory
        if head.origin != ledger.origin:
            raise VerificationError(
                f"{where} is an archive of another ledger", expected=ledger.origin, calculated=head.origin
            )
        if head.tree_size > self._size:
            raise VerificationError(
                f"{where} holds {head.tree_size} entries, this ledger has sealed {self._size}: it is an older copy",
                remedy="Put the newer ledger back, or restore it from the archive: lichen restore.",
            )
        root = ledger.root_at(head.tree_size)
        if root != head.root:
            raise VerificationError(
                f"{where} and this ledger differ within their first {head.tree_size} entries: the log was split",
                expected=head.root,
                calculated=root,
                remedy="Keep both: two signed checkpoints of one size are evidence. Write the archive to another place.",
            )

    def _check_tail(self) -> None:
        """Check that no key changed in entries that no seal covers.

        Raises:
            UsageError: One did; its range could not be stated for the sealed entries.
        """
        for index, entry in self._ledger.entries(self._size):
            if Statement.from_bytes(entry.payload).kind in (MEMBER_KIND, LOG_KEY_KIND):
                raise UsageError(
                    f"entry {index} changes members and is not sealed yet",
                    remedy="Archive the ledger where its log.key is, which seals it first.",
                )

    def _take_over(self, piece: Piece) -> bytes | None:
        """Take a full piece from the earlier archive; its leaf hashes, or None when it is not there."""
        earlier = self._earlier
        if earlier is None or piece.stop > earlier.head.tree_size or not piece.is_full:
            return None
        names = [piece.name(folder) for folder in ("tile/0", "tile/entries", "checkpoints")]
        present = [name for name in names if name in earlier.digests]
        if present[:2] != names[:2]:
            return None
        if not all(
            self._staging.take(earlier.directory / name, name, earlier.digests[name]) for name in present
        ):
            return None
        hashes = (earlier.directory / names[0]).read_bytes()
        return hashes if len(hashes) == TILE_WIDTH * 32 else None

    def _named(self, files: LogFiles) -> tuple[set[str], set[tuple[int, str]]]:
        """Members, and later keys of the log, that entries name: new ones, and those taken over."""
        if self._earlier is None:
            return files.members, set(files.log_keys)
        return files.members | self._earlier.members, {*files.log_keys, *self._earlier.log_keys}

    def _check_root(self, root: bytes) -> None:
        """Compare what the tiles lead to with what the log signed.

        Raises:
            CorruptLedgerError: The root is another.
        """
        if root != self._head.root:
            raise CorruptLedgerError(
                f"the entries of {self._ledger.path} do not give the root that the log signed at size {self._size}",
                expected=self._head.root,
                calculated=root,
                remedy="Run `lichen verify`, and archive a whole copy.",
            )

    def _tell(self, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(done, total)

    def _report(self, counts: dict[str, int]) -> ArchiveReport:
        rows = self._artefacts.rows.values()
        return ArchiveReport(
            directory=self._staging.target,
            ledger_id=self._ledger.id,
            size=self._size,
            unsealed_count=self._ledger.size - self._size,
            artefacts=counts,
            missing=sorted(row.cid for row in rows if row.status == "missing"),
            damaged=sorted(self._artefacts.damaged),
            plain_count=sum(row.status == "included" and not row.sealed for row in rows),
            file_count=len(self._staging.digests),
            written_count=self._staging.written_count,
        )
