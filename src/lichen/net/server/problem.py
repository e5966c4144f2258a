"""What went wrong with a request, told to programs and people alike.

Every answer that is no success is a JSON object: ``type`` (a stable URN ending in the error's code), ``title``, ``status``,
``detail``, and where they help ``remedy``, ``rule`` and ``index``.

Source: RFC 9457 (problem details), RFC 9110 sections 10.2.3 and 15.
"""

from __future__ import annotations

import http
import json
from collections.abc import Mapping

from lichen.errors import (
    CorruptLedgerError,
    EncodingError,
    LichenError,
    NotFoundError,
    Rejected,
    StorageError,
    UsageError,
    VerificationError,
)

__all__ = ["CONTENT_TYPE", "Problem", "problem_of"]

CONTENT_TYPE = "application/problem+json"

_STATUSES: tuple[tuple[type[LichenError], int], ...] = (  # the first that fits
    (CorruptLedgerError, 503),
    (NotFoundError, 404),
    (EncodingError, 400),
    (VerificationError, 422),
    (UsageError, 400),
    (StorageError, 503),
)
_RULE_STATUSES = {
    "ledger.malformed": 400,
    "ledger.bad-signature": 403,
    "members.not-admitted": 403,
    "members.forged-author": 403,
    "members.key-revoked": 403,
}


class Problem(Exception):  # noqa: N818 - what RFC 9457 calls it
    """A request that is not answered as asked.

    Args:
        status: HTTP status, 400 to 599.
        code: Stable name; becomes the end of ``type``.
        detail: What happened.
        remedy: What to do; empty when there is nothing to do.
        headers: Further headers, such as ``Retry-After``.
        extra: Further members of the object.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        remedy: str = "",
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.remedy = remedy
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})

    def told(self) -> dict[str, object]:
        """Say the problem as an object."""
        told: dict[str, object] = {
            "type": f"urn:lichen:problem:{self.code}",
            "title": http.HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.remedy:
            told["remedy"] = self.remedy
        return told | self.extra

    def body(self) -> bytes:
        """Write the problem as JSON."""
        return json.dumps(self.told(), ensure_ascii=True).encode("ascii")

    @classmethod
    def busy(cls, detail: str, *, seconds: int = 1, status: int = 503, code: str = "busy") -> Problem:
        """Build the answer to a caller who should come back later."""
        return cls(
            status,
            code,
            detail,
            remedy=f"try again in {seconds} s",
            headers={"Retry-After": str(seconds)},
        )


def problem_of(error: LichenError) -> Problem:
    """Say an error of the ledger in HTTP's words."""
    if isinstance(error, Rejected):
        status = _RULE_STATUSES.get(error.rule, 422)
        return Problem(status, "rejected", error.message, remedy=error.remedy, extra={"rule": error.rule})
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            headers = {"Retry-After": "5"} if status == 503 else None
            return Problem(status, error.code, error.message, remedy=error.remedy, headers=headers)
    return Problem(500, error.code, error.message, remedy=error.remedy)
