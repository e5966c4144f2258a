"""The same as `lichen find`, `show`, `log` and `verify`, from Python: ``lichen.open`` and ``lichen.find``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lichen.errors import UsageError

if TYPE_CHECKING:
    from lichen.ledger.audit import AuditReport
    from lichen.runs.keeping.verify import ReceiptReport
    from lichen.runs.python_api import StrPath
    from lichen.runs.queries.find import Found, Query
    from lichen.runs.queries.prove import Proved
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["LedgerHandle", "find", "open_ledger"]


class LedgerHandle:
    """A ledger, open for questions; made by :func:`open_ledger`.

    Attributes:
        directory: Where it lies.
        id: Its id, 64 hexadecimal digits.
        name: What people call it.
        size: Count of entries.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.directory = workspace.directory
        self.id: str = workspace.ledger.id
        self.name: str = workspace.ledger.genesis.name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the ledger."""
        self._workspace.close()

    @property
    def size(self) -> int:
        """Count of entries now."""
        return self._workspace.ledger.size

    def find(self, words: str | None = None, **conditions: Any) -> list[Found]:
        """Search the record; the arguments are those of :func:`find`, but for ``ledger``."""
        from lichen.runs.queries.find import find as search

        return search(self._workspace, _query(words, **conditions))

    def show(self, reference: int | str = "@last") -> dict[str, Any]:
        """Tell everything about one entry.

        Args:
            reference: Index, ``@last``, CID, digest or path of a file.

        Raises:
            NotFoundError: Nothing answers to it.
        """
        from lichen.runs.queries.show import describe

        return describe(self._workspace, str(reference))

    def log(
        self, *, limit: int | None = None, kind: str | None = None, member: str | None = None
    ) -> Iterator[dict[str, Any]]:
        """Tell the entries, newest first."""
        from lichen.runs.queries.show import log as tell

        return tell(self._workspace, limit=limit, kind=kind, member=member)

    def prove(
        self,
        *,
        fingerprint: str | None = None,
        level: str | None = None,
        sha256: str | None = None,
        withdrawn: int | None = None,
        flagged: int | None = None,
    ) -> list[Proved]:
        """Answer one question with yes or no, and with receipts that anyone can verify.

        Args:
            fingerprint: Was work with this fingerprint recorded? 64 hexadecimal digits.
            level: Its class, ``exact`` or ``same-work``; None asks for both.
            sha256: Was a file with this digest published? 64 hexadecimal digits.
            withdrawn: Was the entry at this index withdrawn?
            flagged: Was it flagged?

        Returns:
            The answers; two where a fingerprint of unknown class is on record in neither.

        Raises:
            UsageError: Not exactly one question, or not a fingerprint, digest or index.
        """
        from lichen.contracts.claims import artefact_claim, flagged_claim, withdrawn_claim
        from lichen.runs.queries.prove import prove, work_claims

        if sum(question is not None for question in (fingerprint, sha256, withdrawn, flagged)) != 1:
            raise UsageError("a proof answers one question: fingerprint, sha256, withdrawn or flagged")
        if fingerprint is not None:
            claims = work_claims(self._workspace, _digest(fingerprint), level)
        elif sha256 is not None:
            claims = [artefact_claim(_digest(sha256))]
        elif withdrawn is not None:
            claims = [withdrawn_claim(withdrawn)]
        else:
            claims = [flagged_claim(flagged if flagged is not None else -1)]
        return prove(self._workspace, claims)

    def verify(self, receipt: StrPath | None = None) -> AuditReport | ReceiptReport:
        """Verify a receipt against this ledger's log key, or, without one, derive the whole ledger again.

        Returns:
            What the receipt proves; or the audit's report, whose ``is_sound`` says whether everything held.

        Raises:
            VerificationError: The receipt does not hold.
        """
        from lichen.runs.keeping.verify import verify_ledger, verify_receipt_file

        if receipt is None:
            return verify_ledger(self._workspace)
        return verify_receipt_file(Path(receipt), workspace=self._workspace)


def open_ledger(path: StrPath | None = None) -> LedgerHandle:
    """Open a ledger for questions.

    Args:
        path: Ledger directory, or the project around it; found as `lichen find` finds it when None.

    Returns:
        The ledger; a context manager.

    Raises:
        NotALedgerError: There is none.

    Example:
        >>> with lichen.open() as ledger:  # doctest: +SKIP
        ...     ledger.show("@last")["status"]
        'trained'
    """
    from lichen.runs.workspace.workspace import Workspace

    return LedgerHandle(Workspace.find(os.fspath(path) if path is not None else None))


def find(words: str | None = None, *, ledger: StrPath | None = None, **conditions: Any) -> list[Found]:
    """Search the record for earlier work.

    Args:
        words: Text in the command line.
        ledger: Ledger directory; found as `lichen find` finds it when None.
        conditions: ``data`` (path), ``metric`` (``"accuracy>=0.9"``), ``file`` (path or SHA-256 in hexadecimal), ``fingerprint``
            (hexadecimal), ``member``, ``kind``, ``order`` (``newest``, ``energy``, ``metric``), ``limit``, ``failed`` (failed
            runs too).

    Returns:
        At most ``limit`` results.

    Raises:
        UsageError: A condition makes no sense.
        NotFoundError: A path does not exist.

    Example:
        >>> lichen.find(data="clinic.csv", metric="accuracy>=0.9", order="energy")  # doctest: +SKIP
        [Found(index=12, ...)]
    """
    with open_ledger(ledger) as handle:
        return handle.find(words, **conditions)


def _digest(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise UsageError(f"{text!r:.80} is not hexadecimal", remedy="Give 64 hexadecimal digits.") from None


_CONDITIONS = ("data", "metric", "file", "fingerprint", "member", "kind", "order", "limit", "failed")


def _query(words: str | None, **conditions: Any) -> Query:
    from lichen.runs.queries.find import Query, parse_metric_bound

    unknown = sorted(set(conditions) - set(_CONDITIONS))
    if unknown:
        raise UsageError(f"find has no condition {unknown[0]!r}", remedy=f"It has: {', '.join(_CONDITIONS)}.")
    given = {name: value for name, value in conditions.items() if value is not None}
    if "data" in given:
        given["data"] = Path(given["data"])
    if "metric" in given:
        given["metric"] = parse_metric_bound(given["metric"])
    if "file" in given:
        given["file"] = os.fspath(given["file"])
    if "failed" in given:
        given["with_failed"] = given.pop("failed")
    return Query(words=words, **given)
