"""What witnesses said of a ledger: cosigned checkpoints and the policy, beside the ledger and not in its log.

::

    <ledger>/witness.policy                      which witnesses are asked, and how many are enough
    <ledger>/cosigned/<tree size>.checkpoint     a checkpoint with the cosignatures collected for it

Rules upheld:

* A file is written whole and forced to the disk before it takes its name; a crash leaves the old one or the new one.
* Nothing here needs to be believed: whoever reads a checkpoint verifies it.
* Kept are the newest checkpoint that satisfies the policy, and what is newer; at most `KEPT_COUNT_MAX` of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lichen.crypto.note import NoteKey, NoteSignature, SignedNote
from lichen.errors import EncodingError, LichenError, StorageError, UsageError, VerificationError
from lichen.ledger.checkpoint import parse_checkpoint
from lichen.ledger.policy import POLICY_BYTES_MAX, Policy, parse_policy
from lichen.ledger.quorums import QuorumStrength, check_quorums_intersect
from lichen.ledger.receipt_format import Receipt, StateAnswer

if TYPE_CHECKING:
    from lichen.ledger.reader import LedgerReader

__all__ = ["POLICY_FILE_NAME", "CosignedCheckpoints", "read_ledger_policy", "read_policy", "use_policy"]

POLICY_FILE_NAME: Final = "witness.policy"
DIRECTORY_NAME: Final = "cosigned"
KEPT_COUNT_MAX: Final = 64
_NAME = re.compile(r"(0|[1-9][0-9]{0,18})\.checkpoint")
_NOTE_BYTES_MAX: Final = 1_000_000


def read_policy(path: Path) -> Policy:
    """Read a policy file.

    Raises:
        UsageError: There is none, or it cannot be read.
        EncodingError: Not a policy; the message names file and line.
    """
    try:
        with path.open("rb") as file:
            data = file.read(POLICY_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(
            f"cannot read the policy {path}: {error.strerror}", remedy="Name a policy file."
        ) from error
    try:
        return parse_policy(data)
    except EncodingError as error:
        raise EncodingError(f"{path}: {error.message}", remedy=error.remedy) from error


def read_ledger_policy(directory: Path) -> Policy | None:
    """Read the policy under which a ledger is witnessed; None when it has none.

    Raises:
        EncodingError: The file is not a policy.
        UsageError: It cannot be read, or its quorums need not have a witness in common.
    """
    path = directory / POLICY_FILE_NAME
    if not path.exists():
        return None
    policy = read_policy(path)
    check_quorums_intersect(policy)
    return policy


def use_policy(directory: Path, data: bytes, log_key: NoteKey, faulty_count: int = 0) -> QuorumStrength:
    """Have a ledger witnessed under a policy from now on.

    Args:
        directory: The ledger's.
        data: The policy file's octets.
        log_key: The ledger's key, under its origin.
        faulty_count: How many of the witnesses may lie.

    Returns:
        What the policy withstands.

    Raises:
        EncodingError: Not a policy.
        UsageError: Its quorums need not share an honest witness; or it lists logs, and this ledger is none of them.
        StorageError: The directory cannot be written.
    """
    policy = parse_policy(data)
    strength = check_quorums_intersect(policy, faulty_count)
    if policy.logs and log_key not in {log.key for log in policy.logs}:
        raise UsageError(
            "the policy lists logs, and this ledger is none of them",
            remedy=f"Add the line: log {log_key.vkey}",
        )
    if any(witness.key.key == log_key.key for witness in policy.witnesses):
        raise UsageError(
            "a witness in the policy has this ledger's own log key: a log cannot witness itself",
            remedy="Use the keys of witnesses that others run.",
        )
    with _as_storage_error(directory):
        _write(directory / POLICY_FILE_NAME, data)
    return strength


class CosignedCheckpoints:
    """The cosigned checkpoints of one ledger.

    Args:
        directory: The ledger's.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory / DIRECTORY_NAME

    def sizes(self) -> list[int]:
        """Tree sizes for which there are cosignatures, rising."""
        try:
            names = [path.name for path in self.directory.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"cannot read {self.directory}: {error.strerror}") from error
        return sorted(int(found[1]) for name in names if (found := _NAME.fullmatch(name)))

    def read(self, tree_size: int) -> SignedNote | None:
        """The checkpoint of a size with its cosignatures; None when there is none that can be read."""
        try:
            with self._path(tree_size).open("rb") as file:
                text = file.read(_NOTE_BYTES_MAX).decode("utf-8")
            checkpoint, note = parse_checkpoint(text)
        except (OSError, UnicodeDecodeError, EncodingError):
            return None
        return note if checkpoint.tree_size == tree_size else None

    def add(self, checkpoint: str, signature: NoteSignature) -> SignedNote:
        """Keep a cosignature; an older one of the same witness on the same checkpoint makes room for it.

        Args:
            checkpoint: The checkpoint as the log signed it.
            signature: A cosignature on it that was verified.

        Returns:
            The checkpoint with all cosignatures there are.

        Raises:
            VerificationError: Cosignatures for another tree of that size are there.
            StorageError: The disk refused.
        """
        head, note = parse_checkpoint(checkpoint)
        with _as_storage_error(self.directory), self._locked():
            known = self.read(head.tree_size)
            if known is not None and known.text != note.text:
                raise VerificationError(
                    f"{self._path(head.tree_size)} is of another tree of the same size",
                    remedy="This ledger was replaced. Move the directory cosigned away, and keep it: it shows what was signed.",
                )
            others = [] if known is None else known.signatures[1:]
            kept = [
                line for line in others if (line.name, line.key_hash) != (signature.name, signature.key_hash)
            ]
            merged = SignedNote(note.text, (note.signatures[0], *kept, signature))
            _write(self._path(head.tree_size), merged.to_text().encode())
        return merged

    def size_known(self, key: NoteKey) -> int:
        """Largest tree that a witness is known to have cosigned; 0 when none is."""
        for size in reversed(self.sizes()):
            note = self.read(size)
            if note is not None and any(
                (line.name, line.key_hash) == (key.name, key.hash) for line in note.signatures
            ):
                return size
        return 0

    def newest(self, policy: Policy, size_min: int = 0) -> SignedNote | None:
        """The newest checkpoint that satisfies a policy.

        Args:
            policy: Which cosignatures are enough.
            size_min: Smallest tree that will do.
        """
        for size in reversed(self.sizes()):
            if size < size_min:
                return None
            note = self.read(size)
            with contextlib.suppress(VerificationError):
                if note is not None and policy.judge(note, int(time.time())).is_reached:
                    return note
        return None

    def prune(self, policy: Policy) -> None:
        """Remove what a newer checkpoint with a quorum makes superfluous.

        Raises:
            StorageError: The disk refused.
        """
        quorum = self.newest(policy)
        enough = parse_checkpoint(quorum.to_text())[0].tree_size if quorum is not None else -1
        sizes = self.sizes()
        newer = [size for size in sizes if size > enough][-(KEPT_COUNT_MAX - 1) :]
        with _as_storage_error(self.directory), self._locked():
            for size in sizes:
                if size != enough and size not in newer:
                    self._path(size).unlink(missing_ok=True)

    def upgrade(self, receipt: Receipt, ledger: LedgerReader) -> Receipt:
        """Put a receipt under a checkpoint that witnesses cosigned, where there is one.

        Args:
            receipt: A receipt of this ledger.
            ledger: The ledger, for the proof under another size.

        Returns:
            The receipt under the newest checkpoint that satisfies the ledger's policy and covers its entry; under its own
            checkpoint with the cosignatures collected so far, when there is none; or the receipt as it was.
        """
        try:
            policy = read_ledger_policy(self.directory.parent)
        except LichenError:
            policy = None
        if policy is None:
            return receipt
        own_size = receipt.head.tree_size
        note = self.newest(policy, size_min=receipt.index + 1)
        if note is None or (isinstance(receipt.about, StateAnswer) and _size_of(note) != own_size):
            note = self.read(own_size)  # a state stands under its own checkpoint and no other
        if note is None:
            return receipt
        size = _size_of(note)
        proof = receipt.proof if size == own_size else tuple(ledger.prove_inclusion(receipt.index, size))
        about = receipt.about
        if size != own_size and about.succession:
            links = [link for link in about.succession if link.index + 1 < size]
            about = dataclasses.replace(
                about,
                succession=tuple(
                    dataclasses.replace(link, proof=tuple(ledger.prove_inclusion(link.index, size)))
                    for link in links
                ),
            )
        return dataclasses.replace(receipt, proof=proof, checkpoint=note.to_text(), about=about)

    def _path(self, tree_size: int) -> Path:
        return self.directory / f"{tree_size}.checkpoint"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.directory.mkdir(exist_ok=True)
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _size_of(note: SignedNote) -> int:
    return parse_checkpoint(note.to_text())[0].tree_size


def _write(path: Path, data: bytes) -> None:
    """Write a file whole: under another name first, forced to the disk, then renamed."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _as_storage_error(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write {directory}: {error.strerror}", remedy="Make room or mend its permissions."
        ) from error
