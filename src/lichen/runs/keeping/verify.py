"""Check a receipt offline, or a whole ledger, and say in words what that proves and what it does not."""

from __future__ import annotations

import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lichen.contracts.claims import read_claim
from lichen.errors import EncodingError, NotFoundError, UsageError
from lichen.runs.queries.prove import sealed_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from lichen.crypto.keys import PublicKey
    from lichen.ledger.audit import AuditReport
    from lichen.ledger.policy import Policy
    from lichen.ledger.receipt import VerifiedReceipt
    from lichen.ledger.split_view import VerifiedSplitView
    from lichen.runs.workspace.workspace import Workspace

__all__ = [
    "ReceiptReport",
    "is_evidence",
    "verify_evidence",
    "verify_ledger",
    "verify_receipt_file",
    "verify_receipts",
]

_RECEIPT_BYTES_MAX = 1024 * 1024
_EVIDENCE_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True)
class ReceiptReport:
    """A receipt that held.

    Args:
        ledger_id: Hexadecimal id, from the checkpoint's origin.
        index: Entry it is about.
        tree_size: Of the checkpoint.
        kind: Kind of record; ``state`` when it is about a key of the state.
        member: Its author, or who sealed the state.
        state: ``logged`` or ``witnessed``.
        proves: Sentences.
        does_not_prove: Sentences.
        log_key_from: Where the log's key came from.
        statement: The record; None when it is about the state.
        answer: What the state says about the key, as a sentence; None when it is about an entry.
        cosigners: Names and times of the witnesses that cosigned, as pairs; none when no policy was given.
    """

    ledger_id: str
    index: int
    tree_size: int
    kind: str
    member: str
    state: str
    proves: tuple[str, ...]
    does_not_prove: tuple[str, ...]
    log_key_from: str
    statement: dict[str, Any] | None
    answer: str | None = None
    cosigners: tuple[tuple[str, int], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as a table for JSON."""
        cosigners = [{"witness": name, "time_unix_seconds": time} for name, time in self.cosigners]
        lists = {"proves": list(self.proves), "does_not_prove": list(self.does_not_prove)}
        return {**self.__dict__, **lists, "cosigners": cosigners}


def verify_receipt_file(
    path: Path, *, log_key: str | None = None, workspace: Workspace | None = None
) -> ReceiptReport:
    """Verify a file that holds one receipt, without asking anybody.

    Args:
        path: The receipt, as `lichen show --receipt` writes it.
        log_key: The log's public key, as did:key or base64url; taken from the workspace's genesis when None.
        workspace: A ledger whose log key is believed.

    Returns:
        What it proves.

    Raises:
        UsageError: No key to check against, or several receipts in the file.
        NotFoundError: No such file.
        EncodingError: Not a receipt.
        VerificationError: It does not hold.
    """
    reports = verify_receipts(path, log_key=log_key, workspace=workspace)
    if len(reports) > 1:
        raise UsageError(
            f"{path} holds {len(reports)} receipts", remedy="Use verify_receipts, which tells of each."
        )
    return reports[0]


def verify_receipts(
    path: Path,
    *,
    log_key: str | None = None,
    workspace: Workspace | None = None,
    policy: Policy | None = None,
    now_unix_seconds: int | None = None,
) -> list[ReceiptReport]:
    """Verify every receipt in a file, without asking anybody.

    Args:
        path: Receipts one after another, as `lichen find --prove` writes them, or a single one.
        log_key: The log's public key, as did:key or base64url; taken from the workspace's genesis when None.
        workspace: A ledger whose log key is believed.
        policy: Which witnesses must have cosigned, and which log keys are believed when it lists logs.
        now_unix_seconds: The reader's clock, for the times of cosignatures; this machine's when None.

    Returns:
        What each proves, in the order of the file; at least one.

    Raises:
        UsageError: No key to check against.
        NotFoundError: No such file.
        EncodingError: Something in it is no receipt.
        VerificationError: One does not hold; then none of them is told of.
    """
    from lichen.ledger.receipt import Receipt, verify_receipt
    from lichen.runs.keeping.setup import parse_public_key

    text = _read(path)
    try:
        receipts = [Receipt.parse(one) for one in _parted(text)]
    except EncodingError as error:
        raise EncodingError(
            f"{path}: {error.message}",
            remedy=error.remedy or "Name a file that `lichen show --receipt` or `lichen find --prove` wrote.",
        ) from error
    key: PublicKey | None
    if log_key is not None:
        key, origin, source = parse_public_key(log_key), None, "given"
    elif policy is not None and policy.logs:
        key, origin, source = None, None, "the policy"
    elif workspace is not None:
        key, origin = workspace.ledger.genesis.log_key, workspace.ledger.origin
        source = f"the genesis in {workspace.directory}"
    else:
        raise UsageError(
            "no key to check the receipt against",
            remedy="Give the log's public key with --log-key did:key:…, or a ledger with --ledger DIR.",
        )
    now = int(time.time()) if now_unix_seconds is None else now_unix_seconds
    return [
        _report(verify_receipt(receipt, key, origin, policy=policy, now_unix_seconds=now), source)
        for receipt in receipts
    ]


def is_evidence(path: Path) -> bool:
    """Say whether a file claims to be evidence of a split view, by its first bytes."""
    return _read(path, _EVIDENCE_BYTES_MAX).startswith('{"first":')


def verify_evidence(
    path: Path, *, log_key: str | None = None, workspace: Workspace | None = None
) -> tuple[VerifiedSplitView, str]:
    """Verify evidence of a split view, without asking anybody.

    Args:
        path: The evidence, as `lichen monitor` writes it.
        log_key: The log's public key, as did:key or base64url; taken from the workspace's genesis, or from the evidence's own
            first entry, when None.
        workspace: A ledger whose log key is believed, when the evidence is about that ledger.

    Returns:
        What it proves, and where the log's key came from.

    Raises:
        NotFoundError: No such file.
        EncodingError: Not evidence.
        VerificationError: It proves nothing.
    """
    from lichen.ledger.split_view import SplitView, verify_split_view
    from lichen.runs.keeping.setup import parse_public_key

    evidence = SplitView.from_bytes(_read(path, _EVIDENCE_BYTES_MAX).encode("utf-8"))
    if log_key is not None:
        return verify_split_view(evidence, [parse_public_key(log_key)]), "given"
    if workspace is not None and workspace.ledger.origin == evidence.origin:
        found = verify_split_view(evidence, workspace.ledger.log_keys, evidence.origin)
        return found, f"the genesis in {workspace.directory}"
    found = verify_split_view(evidence, [], evidence.origin)
    return (
        found,
        "the first entry in the evidence, which has the ledger's id; compare the id with the one you know",
    )


def _parted(text: str) -> list[str]:
    """Part a text before each line with which a receipt begins."""
    from lichen.ledger.receipt_format import MAGIC

    head, *rest = text.split(f"\n{MAGIC}\n")
    if not rest:
        return [text]
    return [head + "\n", *(f"{MAGIC}\n{one}\n" for one in rest[:-1]), f"{MAGIC}\n{rest[-1]}"]


def _report(verified: VerifiedReceipt, source: str) -> ReceiptReport:
    said = verified.statement.predicate if verified.statement is not None else {}
    proves, leaves_open, answer = list(verified.proves), list(verified.does_not_prove), None
    seal = verified.seal
    if verified.contract is not None and verified.key is not None and seal is not None:
        claim = read_claim(verified.contract, verified.key)
        if claim is not None:
            answer = sealed_answer(claim, verified.value, seal.tree_size, seal.sealer, verified.index)
            proves[1:] = [answer[0].upper() + answer[1:] + "."]
            leaves_open += claim.open_questions(verified.value)
        else:
            answer = proves[-1].removesuffix(".")
    return ReceiptReport(
        ledger_id=verified.origin.rpartition("/")[2],
        index=verified.index,
        tree_size=verified.tree_size,
        kind=verified.statement.kind if verified.statement is not None else "state",
        member=str(said.get("member", "log")) if seal is None else seal.sealer,
        state=verified.state,
        proves=tuple(proves),
        does_not_prove=tuple(leaves_open),
        log_key_from=source,
        statement=dict(said) or None,
        answer=answer,
        cosigners=tuple((each.name, each.time_unix_seconds) for each in verified.cosigners),
    )


def _read(path: Path, bytes_max: int = _RECEIPT_BYTES_MAX) -> str:
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode) and not stat.S_ISDIR(info.st_mode):
            raise UsageError(f"{path} is no regular file", remedy="Save the receipt to a file first.")
        if info.st_size > bytes_max:
            raise UsageError(f"{path} is larger than any receipt", remedy="Name the receipt, not the ledger.")
        with path.open("rb") as file:
            return file.read(bytes_max).decode("utf-8")
    except FileNotFoundError:
        raise NotFoundError(
            f"{path} does not exist", remedy="Write one: lichen show 12 --receipt > run.receipt"
        ) from None
    except IsADirectoryError:
        raise UsageError(
            f"{path} is a directory", remedy="Name the receipt; `lichen verify` alone checks the ledger."
        ) from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a receipt: it is not text") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def verify_ledger(workspace: Workspace, progress: Callable[[int, int], None] | None = None) -> AuditReport:
    """Re-derive everything in a ledger: signatures, contracts, tree, state, seals, checkpoint, views.

    Args:
        workspace: The ledger.
        progress: Told how far it is.

    Returns:
        What was checked; with the first bad index and why, when something is wrong.
    """
    from lichen.runs.keeping.audit import audit_ledger

    return audit_ledger(workspace, progress=progress, keep=False, with_artefacts=False).ledger
