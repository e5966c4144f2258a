"""A ledger behind a URL as `lichen.runs` knows ledgers: a verified copy that is brought up to date, and appends that go out.

Questions are asked of the copy, so nothing that a server says is believed and nothing is asked twice. Rules upheld here:

* A checkpoint counts when the pinned log key signed it. It must extend the last one seen: the copy's own entries and the
  new ones must lead to its root. A fork, a smaller tree, an altered entry is refused, and what shows it is kept.
* A record counts as appended when its receipt verifies, and the copy has it at that index.
* A server that is away is no error: the copy answers, and what is to be appended is raised as `NetworkError` for the spool.

Source: RFC 9162 section 8.3; C2SP tlog-tiles. Differs: the copy replays contracts and state too (`lichen.ledger.replica`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from lichen.crypto.hashes import sha256
from lichen.crypto.note import NoteKey, SignedNote
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement
from lichen.errors import (
    EncodingError,
    LichenError,
    NotFoundError,
    Rejected,
    RemoteProtocolError,
    RollbackError,
    VerificationError,
)
from lichen.ledger.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint
from lichen.ledger.ports import Appended
from lichen.ledger.receipt import Receipt, verify_receipt
from lichen.ledger.replica import Replica, is_seal
from lichen.ledger.tree import TILE_WIDTH
from lichen.net.remote.diagnosis import diagnose
from lichen.net.remote.memory import Evidence, Remembered, keep_evidence, remember
from lichen.net.tile_paths import LENGTH_BYTES, pack_bundle

if TYPE_CHECKING:
    from lichen.content.cid import Cid
    from lichen.content.directory_store import DirectoryStore
    from lichen.crypto.keys import PublicKey, SigningKey
    from lichen.net.remote.remote_log import RemoteLog

__all__ = ["Delivery", "RemoteLedger", "deliveries", "signature_in"]

STALE_SECONDS: Final = 5
"""A checkpoint smaller than one seen so lately may be an older publication, which servers and caches show for a second."""

Delivery = tuple[int, list[bytes], dict[int, bytes]]
"""Index of the first entry, entries in their compact form ending with a seal, the log's signatures by index of a seal."""

ArtefactsOf = Callable[[Statement], Iterable["Cid"]]
"""Names the artefacts that a record needs, as far as this machine has them."""


def signature_in(note: str, origin: str, log_key: PublicKey) -> bytes | None:
    """The signature of one key of the log on a checkpoint, 64 bytes; None when it did not sign."""
    identity = NoteKey(origin, log_key)
    for signature in SignedNote.from_text(note).signatures:
        if (signature.name, signature.key_hash) == (identity.name, identity.hash):
            return signature.signature
    return None


def deliveries(
    remote: RemoteLog, start: int, checkpoint: Checkpoint, last_signature: bytes | None, block_max: int
) -> Iterator[Delivery]:
    """Fetch entries in whole blocks; at most a block and a bundle are held at a time.

    Args:
        remote: The server.
        start: First index wanted.
        checkpoint: Up to where.
        last_signature: The log's signature on it, so that it need not be fetched; None when it is not known which it is.
        block_max: Most entries that a block of this ledger may have.

    Raises:
        RemoteProtocolError: A block is longer than any may be, or something is no entry.
        NetworkError: The server cannot be reached any more.
    """
    stop = checkpoint.tree_size
    held: list[bytes] = []
    known = {} if last_signature is None else {stop - 1: last_signature}
    signatures = dict(known)
    first = start
    for number in range(start // TILE_WIDTH, -(-stop // TILE_WIDTH)):
        width = min(TILE_WIDTH, stop - number * TILE_WIDTH)
        begin = max(start, number * TILE_WIDTH)
        entries = remote.bundle(number, width)[begin - number * TILE_WIDTH :]
        try:
            seals = [begin + place for place, data in enumerate(entries) if is_seal(data)]
        except EncodingError as error:
            raise RemoteProtocolError(f"{remote.url} sent what is no entry: {error.message}") from error
        if any(index not in signatures for index in seals):
            signatures |= remote.checkpoint_signatures(number, width)
        held += entries
        if seals:
            count = seals[-1] + 1 - first
            yield first, held[:count], signatures
            held, first = held[count:], seals[-1] + 1
            signatures = dict(known)
        if len(held) > block_max + 1:
            raise RemoteProtocolError(
                f"{remote.url} sent {len(held)} entries without a seal; this ledger closes a block after {block_max}"
            )


class RemoteLedger(Replica):
    """A served ledger. Made by `found` or `open_copy`, then `attach`."""

    _remote: RemoteLog
    _remembered: Remembered
    _artefacts_of: ArtefactsOf
    _store: DirectoryStore
    _notify: Callable[[str], object]

    @property
    def takes_records(self) -> bool:
        """True: they go to the server, though the copy itself is written by nobody but `catch_up`."""
        return True

    def attach(
        self,
        remote: RemoteLog,
        remembered: Remembered,
        store: DirectoryStore,
        artefacts_of: ArtefactsOf,
        notify: Callable[[str], object],
    ) -> None:
        """Say where the ledger is.

        Args:
            remote: Its server.
            remembered: What is known of it.
            store: Artefacts on this machine.
            artefacts_of: Names the artefacts that a record needs.
            notify: Told what the user should know.
        """
        self._remote = remote
        self._remembered = remembered
        self._store = store
        self._artefacts_of = artefacts_of
        self._notify = notify
        self.read_only = False  # what is appended goes to the server

    def close(self) -> None:
        """See `Ledger.close`."""
        try:
            super().close()
        finally:
            self._remote.close()

    # -- the copy --------------------------------------------------------------------------------------------------

    def catch_up(self, note: str | None = None) -> int:
        """Take over what the server has, after checking all of it.

        Args:
            note: A checkpoint that came another way, such as in a receipt; None to ask for the published one.

        Returns:
            How many entries are new here.

        Raises:
            RollbackError: The server's log is behind, or beside, what was seen before.
            VerificationError: Something that it sent does not hold.
            NetworkError: It cannot be reached.
        """
        is_published = note is None
        text = self._remote.checkpoint() if note is None else note
        checkpoint = self._opened(text)
        known = self._seen()
        if checkpoint.tree_size <= self.size:
            root = self.root_at(checkpoint.tree_size)
            if root != checkpoint.root:
                self._convict_of_fork(text, self.checkpoint(), root, checkpoint)
        if checkpoint.tree_size < max(self.size, known.tree_size):
            if is_published and abs(_now_ms() - self._remembered.seen_unix_ms) > STALE_SECONDS * 1_000:
                self._convict_of_shrinking(text, checkpoint, known)
            return 0
        count = 0
        if checkpoint.tree_size > self.size:
            try:
                count = self._grow(text, checkpoint)
            except (NotFoundError, RemoteProtocolError) as error:
                if self._signer_of(text) is None:
                    self._convict_of_signature(text, error)
                raise
        root = self.root_at(known.tree_size)
        if root != known.root:
            self._convict_of_fork(text, self._remembered.checkpoint, root, checkpoint)
        self._remember(text)
        return count

    def _opened(self, text: str) -> Checkpoint:
        """Open a checkpoint that the log signed, with a key that is known here, or one that further entries may bring."""
        try:
            checkpoint = parse_checkpoint(text)[0]
            if checkpoint.tree_size > self.size and self._signer_of(text) is None:
                return self._of_this_ledger(checkpoint)
            return open_checkpoint(text, self.origin, self._signer_of(text) or self._remembered.key)
        except LichenError as error:
            self._convict_of_signature(text, error)

    def _signer_of(self, text: str) -> PublicKey | None:
        """The key of the log, of those that are known here, that a checkpoint says it is signed with."""
        known = reversed(self.log_keys)
        return next((key for key in known if signature_in(text, self.origin, key) is not None), None)

    def _of_this_ledger(self, checkpoint: Checkpoint) -> Checkpoint:
        if checkpoint.origin != self.origin:
            raise VerificationError(
                "the checkpoint is of another ledger", expected=self.origin, calculated=checkpoint.origin
            )
        return checkpoint

    def _convict_of_signature(self, text: str, error: LichenError) -> NoReturn:
        evidence = Evidence("wrong-key", error.message, {"offered.checkpoint": text.encode()})
        self._convict(evidence, "a checkpoint that this ledger's log did not sign", error)

    def _seen(self) -> Checkpoint:
        """The newest checkpoint that was ever seen, also by a copy that is gone; it was verified when it was."""
        return parse_checkpoint(self._remembered.checkpoint or self.checkpoint())[0]

    def _grow(self, text: str, checkpoint: Checkpoint) -> int:
        """Take the entries up to a checkpoint."""
        signer = self._signer_of(text)
        signature = None if signer is None else signature_in(text, self.origin, signer)
        block_max = self.genesis.sealing.entries_max
        count = 0
        for start, entries, signatures in deliveries(
            self._remote, self.size, checkpoint, signature, block_max
        ):
            is_last = start + len(entries) == checkpoint.tree_size
            try:
                count += self.extend(start, entries, signatures, root=checkpoint.root if is_last else None)
            except VerificationError as error:
                self._refuse_delivery(text, checkpoint, start, entries, error)
        if self.size < checkpoint.tree_size:
            raise RemoteProtocolError(
                f"{self._remote.url} shows {checkpoint.tree_size} entries that do not end with a seal"
            )
        if signer is None:  # a key that the new entries brought
            try:
                open_checkpoint(text, self.origin, self.log_keys[-1])
            except LichenError as error:
                self._convict_of_signature(text, error)
        return count

    def _remember(self, text: str) -> None:
        if self._remembered.checkpoint != text or _now_ms() - self._remembered.seen_unix_ms > 1_000:
            self._remembered = replace(self._remembered, checkpoint=text, seen_unix_ms=_now_ms())
            remember(self.directory, self._remembered)

    # -- appending -------------------------------------------------------------------------------------------------

    def append_signed(self, statement: Statement, key: SigningKey, *, seal: bool = False) -> Appended:
        """Sign a record and submit it; see `append`."""
        return self.append(Entry.signed(statement.to_bytes(), key), seal=seal)

    def append(self, entry: Entry, *, seal: bool = False) -> Appended:
        """Submit an entry and its artefacts, and check the receipt; the block behind it is always closed.

        Returns:
            Its index.

        Raises:
            Rejected: A rule said no; the entry has no index.
            NetworkError: The server did not take it, or nobody knows: submit the same bytes again.
            VerificationError: The server said that it took it, and cannot show it.
        """
        self._send_artefacts(entry)
        index, text = self._remote.submit(entry)
        try:
            receipt = Receipt.parse(text)
            verified = verify_receipt(receipt, None, self.origin)
            if (verified.index, verified.entry) != (index, entry):
                raise VerificationError("it is about another entry")
        except LichenError as error:
            files = {"receipt.txt": text.encode(), "submitted.entry": entry.to_bytes()}
            self._convict(
                Evidence("wrong-receipt", error.message, files), "a receipt that does not hold", error
            )
        self.catch_up(receipt.checkpoint)
        if self.entry(index) != entry:
            raise VerificationError(f"entry {index} of {self._remote.url} is not the one that was submitted")
        return Appended(index, sha256(entry.payload))

    def append_all_signed(
        self, statements: Sequence[Statement], key: SigningKey, *, seal: bool = False
    ) -> list[Appended | Rejected]:
        """Sign records and submit them; see `append_many`."""
        return self.append_many(
            [Entry.signed(statement.to_bytes(), key) for statement in statements], seal=seal
        )

    def append_many(self, entries: Sequence[Entry], *, seal: bool = False) -> list[Appended | Rejected]:
        """Submit entries and their artefacts, many in one request; the block behind each request is closed.

        Returns:
            For each entry its index, or the rule that refused it.

        Raises:
            NetworkError: The server did not take all of them, or nobody knows: submit them all again. What is in the ledger
                already is answered as the first time.
            VerificationError: The server said that it took one, and cannot show it.
        """
        results: list[Appended | Rejected] = []
        for batch in self._batches(entries):
            results += self._append_batch(batch)
        return results

    def _batches(self, entries: Sequence[Entry]) -> Iterator[list[Entry]]:
        """Group entries as the server takes them in one request."""
        if not entries:
            return
        count_max, size_max = (1, 0) if len(entries) == 1 else self._remote.batch_bounds()
        batch: list[Entry] = []
        size = 0
        for entry in entries:
            size_bytes = LENGTH_BYTES + len(entry.to_bytes())
            if batch and (len(batch) >= count_max or size + size_bytes > size_max):
                yield batch
                batch, size = [], 0
            batch.append(entry)
            size += size_bytes
        yield batch

    def _append_batch(self, batch: Sequence[Entry]) -> list[Appended | Rejected]:
        if len(batch) == 1:
            try:
                return [self.append(batch[0], seal=True)]
            except Rejected as refusal:
                return [refusal]
        for entry in batch:
            self._send_artefacts(entry)
        told, checkpoint = self._remote.submit_many(batch)
        self.catch_up(checkpoint)
        return [self._found(entry, each) for entry, each in zip(batch, told, strict=True)]

    def _found(self, entry: Entry, told: int | Rejected) -> Appended | Rejected:
        """Check that an entry stands where the server says.

        Raises:
            VerificationError: It does not.
        """
        if isinstance(told, Rejected):
            return told
        if not 0 <= told < self.size or self.entry(told) != entry:
            self._refuse_place(entry, told)
        return Appended(told, sha256(entry.payload))

    def _refuse_place(self, entry: Entry, index: int) -> NoReturn:
        problem = VerificationError(f"entry {index} is not the one that was submitted")
        files = {"submitted.entry": entry.to_bytes(), "seen.checkpoint": self.checkpoint().encode()}
        self._convict(
            Evidence("wrong-receipt", problem.message, files), "an index that does not hold", problem
        )

    def seal(self, *, force: bool = False) -> int | None:
        """Do nothing: the server closes blocks."""
        return None

    def _send_artefacts(self, entry: Entry) -> None:
        """Let the server keep what the record names, before it takes the record: whoever is answered by it needs them."""
        for cid in self._artefacts_of(Statement.from_bytes(entry.payload)):
            try:
                self._remote.put_artefact(cid, self._store)
            except NotFoundError:
                continue  # not here either; the record stands without it
            except RemoteProtocolError as error:
                self._notify(f"the server does not keep {cid}: {error.message}")

    # -- what a server is caught with ------------------------------------------------------------------------------

    def _refuse_delivery(
        self,
        text: str,
        checkpoint: Checkpoint,
        start: int,
        entries: Sequence[bytes],
        error: VerificationError,
    ) -> NoReturn:
        found = diagnose(self, self._remote, checkpoint, start, entries)
        if found.is_fork:
            self._convict_of_fork(text, self.checkpoint(), found.root, checkpoint, found.proof)
        files = {
            "seen.checkpoint": self.checkpoint().encode(),
            "offered.checkpoint": text.encode(),
            f"entries-from-{start}.bundle": pack_bundle(entries),
        }
        reason = f"{error.message}; {found.words}" if found.words else error.message
        self._convict(Evidence("altered-entry", reason, files), "entries that do not hold", error)

    def _convict_of_fork(
        self,
        offered: str,
        seen: str,
        root: bytes | None,
        checkpoint: Checkpoint,
        proof: tuple[bytes, ...] = (),
    ) -> NoReturn:
        """Refuse a log that showed two histories."""
        from lichen.ledger.split_view import SplitView, verify_split_view

        files = {"seen.checkpoint": seen.encode(), "offered.checkpoint": offered.encode()}
        same_size = parse_checkpoint(seen)[0].tree_size == checkpoint.tree_size
        shown = SplitView(seen, offered, None if same_size else root, () if same_size else proof)
        try:
            verify_split_view(shown, self.log_keys)
            files["split-view.json"] = shown.to_bytes()
        except LichenError:
            pass  # two signed checkpoints are there all the same; whoever has the entries can compare
        reason = (
            f"the log signed two histories that exclude each other, at sizes up to {checkpoint.tree_size}"
        )
        place = keep_evidence(self.directory, Evidence("fork", reason, files))
        raise RollbackError(
            f"{self._remote.url} shows another history than before: {reason}",
            expected=root,
            calculated=checkpoint.root,
            remedy=_where(place) + "Do not rely on this server; show the evidence to the other members.",
        )

    def _convict_of_shrinking(self, text: str, checkpoint: Checkpoint, known: Checkpoint) -> NoReturn:
        size = max(self.size, known.tree_size)
        reason = f"it shows {checkpoint.tree_size} entries, and had {size}"
        files = {
            "seen.checkpoint": (self._remembered.checkpoint or self.checkpoint()).encode(),
            "offered.checkpoint": text.encode(),
        }
        place = keep_evidence(self.directory, Evidence("smaller-tree", reason, files))
        raise RollbackError(
            f"{self._remote.url} is behind what was seen before: {reason}",
            expected=size,
            calculated=checkpoint.tree_size,
            remedy=_where(place) + "An older copy may have been put in its place: ask whoever runs it.",
        )

    def _convict(self, evidence: Evidence, what: str, error: LichenError) -> NoReturn:
        place = keep_evidence(self.directory, evidence)
        raise VerificationError(
            f"{self._remote.url} sent {what}: {evidence.reason}",
            expected=getattr(error, "expected", None),
            calculated=getattr(error, "calculated", None),
            remedy=_where(place) + "Nothing of it was taken.",
        ) from error


def _where(place: Path | None) -> str:
    return "" if place is None else f"The evidence is in {place}. "


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
