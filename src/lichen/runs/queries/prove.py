"""Answers that can be handed on: whether something is on record, yes or no, each with a receipt that anyone can check.

The ledger's state holds a key for every fingerprint, published file, withdrawal and flag, and its root is in every seal. So
a *no* can be proved as well as a *yes*: the lookup of the key ends at another key. What such a receipt shows is what the
log committed to; that the state was made from the entries is shown by replaying them (`lichen audit`).

Which key stands for a *planned* run is known only where a run of the same command is on record: inputs are found by tracing, so
what a command reads, and with that its fingerprint, is known from the last time it ran, or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lichen.contracts.claims import LEVELS, Claim, flagged_claim, last_entry, withdrawn_claim, work_claim
from lichen.contracts.registry import exact_fingerprint, same_work_fingerprint
from lichen.errors import NotFoundError, StorageError, UsageError
from lichen.ledger.receipt_format import MAGIC

if TYPE_CHECKING:
    from lichen.runs.reuse.lookup import Answer
    from lichen.runs.workspace.workspace import Workspace

__all__ = [
    "Proved",
    "planned_claims",
    "planned_notes",
    "prove",
    "sealed_answer",
    "standing_notes",
    "work_claims",
    "write_receipts",
]


@dataclass(frozen=True)
class Proved:
    """A claim with its answer and the receipt for it.

    Args:
        claim: The question.
        value: Value of its key; None when that is absent.
        size: Entries the answer covers: those before the seal.
        open_count: Entries on record that it does not cover, because no seal does yet.
        sealer: Who sealed.
        seal_index: Where the seal stands.
        sealed_unix_ms: When, by the sealer's clock.
        receipt: Text of the receipt.
    """

    claim: Claim
    value: bytes | None
    size: int
    open_count: int
    sealer: str
    seal_index: int
    sealed_unix_ms: int
    receipt: str

    @property
    def is_on_record(self) -> bool:
        """True for a yes."""
        return self.value is not None

    @property
    def answer(self) -> str:
        """The answer as a sentence, with how far it goes and whose word it is."""
        return sealed_answer(self.claim, self.value, self.size, self.sealer, self.seal_index)

    def to_json(self) -> dict[str, Any]:
        """Return it as a table for JSON, without the receipt."""
        return {
            "question": self.claim.question,
            "is_on_record": self.is_on_record,
            "answer": self.answer,
            "contract": self.claim.contract,
            "key": self.claim.key.hex(),
            "value": None if self.value is None else self.value.hex(),
            "size": self.size,
            "open_count": self.open_count,
            "seal_index": self.seal_index,
            "sealed_unix_ms": self.sealed_unix_ms,
        }


def sealed_answer(claim: Claim, value: bytes | None, size: int, sealer: str, seal_index: int) -> str:
    """Put an answer into a sentence that says how far it goes.

    Args:
        claim: The question.
        value: Value of its key, or None.
        size: Entries under the seal.
        sealer: Who sealed.
        seal_index: Where the seal stands.
    """
    by = "the log" if sealer == "log" else sealer
    return f"{claim.answer(value)}, among the first {size:,} entries, as sealed by {by} at entry {seal_index}"


def prove(workspace: Workspace, claims: Iterable[Claim]) -> list[Proved]:
    """Answer claims from the newest sealed state, each with a receipt.

    Where the ledger can be written, pending entries are sealed first, so that the answer covers them too.

    Args:
        workspace: The ledger.
        claims: What is asked.

    Returns:
        One answer per claim, in the same order.

    Raises:
        CorruptLedgerError: The ledger is damaged on the way.
    """
    from lichen.encoding.statement import Statement
    from lichen.ledger.cosigned import CosignedCheckpoints
    from lichen.ledger.seal import Seal

    ledger, cosigned = workspace.ledger, CosignedCheckpoints(workspace.directory)
    proved = []
    for claim in claims:
        receipt = cosigned.upgrade(ledger.state_receipt(claim.contract, claim.key), ledger)
        about = receipt.about
        seal = Seal.from_statement(Statement.from_bytes(about.entry.payload))
        proved.append(
            Proved(
                claim=claim,
                value=getattr(about, "value", None),
                size=seal.tree_size,
                open_count=max(0, ledger.size - receipt.index - 1),
                sealer=seal.sealer,
                seal_index=receipt.index,
                sealed_unix_ms=seal.time_unix_ms,
                receipt=receipt.to_text(),
            )
        )
    return proved


def work_claims(workspace: Workspace, fingerprint: bytes, level: str | None = None) -> list[Claim]:
    """Decide which keys answer whether work with a fingerprint is on record.

    Args:
        workspace: The ledger.
        fingerprint: 32 bytes, of either class.
        level: ``exact`` or ``same-work``; None when it is not known of which class the fingerprint is.

    Returns:
        The key of the class that was given. Without one: the key that is there; when none is, both, so that their
        absence together answers, of whichever class the fingerprint is.

    Raises:
        UsageError: No such class, or no such fingerprint.
    """
    if level is not None:
        return [work_claim(level, fingerprint)]
    claims = [work_claim(name, fingerprint) for name in LEVELS]
    there = [claim for claim in claims if workspace.ledger.state_get(claim.contract, claim.key) is not None]
    return there[:1] or claims


def planned_claims(workspace: Workspace, answer: Answer) -> list[Claim]:
    """Decide which keys answer whether a planned run has been done before.

    Args:
        workspace: The ledger.
        answer: What a look-up for it said: it names what runs of the same command read before, as that is now.

    Returns:
        The keys of the exact fingerprints on record; when there is none, for everything that was asked that key and the one of
        the fingerprint without the seed, whose absence says more.

    Raises:
        NotFoundError: What the command would read is not known.
    """
    from lichen.runs.reuse.lookup import uncompared_line

    if not answer.asked:
        left_out = "" if answer.uncompared is None else f"; {uncompared_line(answer.uncompared)}"
        raise NotFoundError(
            "no run of this command is on record that could be compared, so what it would read, and with that its fingerprint, is not "
            f"known{left_out}",
            remedy="Nothing in the state stands for a command alone: `lichen audit` shows that the entries are all there are,"
            " and `lichen log` that none of them is this. After a run of it there is a fingerprint to ask for.",
        )
    exact = {
        exact_fingerprint(each.parts): work_claim("exact", exact_fingerprint(each.parts))
        for each in answer.asked
    }
    there = [
        claim for claim in exact.values() if workspace.ledger.state_get(claim.contract, claim.key) is not None
    ]
    without_seed = {same_work_fingerprint(each.parts): None for each in answer.asked}
    return there or [*exact.values(), *(work_claim("same-work", fingerprint) for fingerprint in without_seed)]


def planned_notes(answer: Answer, proved: Sequence[Proved], reasons: Sequence[str]) -> list[str]:
    """Say what proofs about a planned run mean for its command line, and what they leave open.

    Args:
        answer: What the look-up said.
        proved: The proofs for `planned_claims`.
        reasons: Why the command would be answered or not, as `lichen why` says it.

    Returns:
        Sentences.
    """
    from lichen.runs.reuse.lookup import uncompared_line

    notes = []
    if any(one.is_on_record for one in proved):
        if answer.kind != "hit":
            notes.append(
                f"a yes is about equal work, and this command is not answered by it all the same: {' '.join(reasons)}"
            )
    else:
        count = len({exact_fingerprint(each.parts) for each in answer.asked})
        notes.append(
            f"this no is for what runs of this command read before, as it is now ({count} fingerprint{'s' if count > 1 else ''}, with the "
            "seed and without); a run that reads something else has another, and so has like work by another command line, or with "
            "other data, versions or variables, which may be on record: lichen find"
        )
    notes += [
        f"what entry {each.latest} read does not cover this command: {each.gap.describe()}"
        for each in answer.asked
        if each.gap is not None
    ]
    if answer.uncompared is not None:
        notes.append(f"not asked for: {uncompared_line(answer.uncompared)}")
    return [*notes, *answer.warnings]


def standing_notes(workspace: Workspace, proved: Iterable[Proved]) -> list[str]:
    """Say of what is on record whether its newest entry was withdrawn or flagged, which is a question of its own.

    Args:
        workspace: The ledger.
        proved: Answers; those that name no entry are passed over.
    """
    notes = {}
    for one in proved:
        entry = last_entry(one.claim, one.value)
        if entry is None:
            continue
        for claim, option, means in (
            (withdrawn_claim(entry), "--withdrawn", "; it answers no request any more"),
            (flagged_claim(entry), "--flagged", ""),
        ):
            value = workspace.ledger.state_get(claim.contract, claim.key)
            if value is not None:
                notes[claim.key] = (
                    f"{claim.answer(value)}{means} (to prove it: lichen find --prove FILE {option} {entry})"
                )
    return list(notes.values())


def write_receipts(path: Path, proved: Sequence[Proved]) -> None:
    """Write the receipts of answers to a file, one after another.

    Args:
        path: Where; a file of receipts that is there already is replaced, any other is not.
        proved: The answers.

    Raises:
        UsageError: Something else stands there, or there is no such directory.
        StorageError: It cannot be written; what was there before still is.
    """
    text = "".join(one.receipt for one in proved)
    try:
        if path.is_dir():
            raise UsageError(f"{path} is a directory", remedy="Name a file for the receipt.")
        if path.exists():
            with path.open("rb") as file:
                head = file.read(len(MAGIC))
            if head not in (b"", MAGIC.encode()):
                raise UsageError(
                    f"{path} exists and is no receipt", remedy="Name another file; it was not changed."
                )
        if not path.parent.is_dir():
            raise UsageError(f"{path.parent} is no directory", remedy="Make it first, or name another file.")
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            fresh.write_text(text, encoding="utf-8")
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror}", remedy="Name a place that can be written."
        ) from error
