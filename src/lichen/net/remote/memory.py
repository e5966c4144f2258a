"""What is remembered of a ledger behind a URL: whose it is, which key signs for it, and the last checkpoint seen.

::

    <LICHEN_HOME>/remotes/<host>-<digest of the URL>/
        remote.json       what this file writes
        ledger.sqlite     the verified copy
        store/ spool/ …   as beside any ledger
        evidence/         what a server was caught with

Rules upheld here:

* The ledger's id and its log's key are fixed when the address is first used, or were given; they never change by themselves.
* The checkpoint is remembered beside the copy, so that taking the copy away does not make a server's past forgotten.
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
import time
import urllib.parse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from lichen.crypto.hashes import sha256
from lichen.crypto.keys import PublicKey
from lichen.encoding.foreign_json import read_json
from lichen.errors import EncodingError, LichenError, StorageError, VerificationError
from lichen.runs.records.spool import write_durably

__all__ = ["Evidence", "Remembered", "directory_of", "forget", "keep_evidence", "read_remembered", "remember"]

_FILE: Final = "remote.json"
EVIDENCE_COUNT_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is known of a ledger behind a URL.

    Attributes:
        url: Where it is.
        ledger: Its id, 64 hexadecimal digits.
        log_key: Its log's public key, as did:key.
        access: ``private`` or ``public``.
        checkpoint: The newest checkpoint seen: a signed note; empty before the first.
        seen_unix_ms: When that was, by this machine's clock.
    """

    url: str
    ledger: str
    log_key: str
    access: str
    checkpoint: str = ""
    seen_unix_ms: int = 0

    @property
    def key(self) -> PublicKey:
        """The log's public key."""
        return PublicKey.from_did_key(self.log_key)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a server was caught with.

    Attributes:
        kind: ``fork``, ``smaller-tree``, ``altered-entry``, ``wrong-receipt``, ``wrong-key`` or ``wrong-ledger``.
        reason: What does not hold.
        files: Content by file name.
    """

    kind: str
    reason: str
    files: dict[str, bytes]


def directory_of(home: Path, url: str) -> Path:
    """Directory of what is kept for a URL."""
    parts = urllib.parse.urlsplit(url)
    host = re.sub(r"[^A-Za-z0-9.]+", "-", parts.netloc).strip("-.")[:60]
    return home / "remotes" / f"{host}-{sha256(url.encode()).hex()[:12]}"


def read_remembered(directory: Path) -> Remembered | None:
    """Read what is known; None when the address was never used.

    Raises:
        VerificationError: The file is there, but holds something else.
        StorageError: It cannot be read.
    """
    path = directory / _FILE
    try:
        value = read_json(path.read_bytes())
        found = Remembered(**value)
        _ = found.key
        if not all(type(getattr(found, name)) is str for name in ("url", "ledger", "access", "checkpoint")):
            raise EncodingError("a field is of another type")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}", remedy="check its permissions") from error
    except (ValueError, TypeError, AttributeError, LichenError) as error:
        raise VerificationError(
            f"{path} is damaged: {error}",
            remedy="remove it after asking a colleague for the ledger's id and log key, and compare: `lichen join`",
        ) from error
    return found


def remember(directory: Path, what: Remembered) -> None:
    """Write what is known, durably and whole.

    Raises:
        StorageError: It cannot be written.
    """
    path = directory / _FILE
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_durably(path.parent, path.name, json.dumps(asdict(what), indent=1).encode() + b"\n")
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror}", remedy="make room or mend permissions"
        ) from error


def forget(directory: Path) -> None:
    """Forget whose ledger it is, because it turned out to be another than was meant; copy and evidence stay."""
    with contextlib.suppress(FileNotFoundError):
        (directory / _FILE).unlink()


def keep_evidence(directory: Path, evidence: Evidence) -> Path | None:
    """Keep what a server was caught with.

    Returns:
        The directory it lies in; None when it cannot be kept.
    """
    base = directory / "evidence"
    with contextlib.suppress(OSError):
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        if sum(1 for _ in base.iterdir()) >= EVIDENCE_COUNT_MAX:
            return base
        stamp = time.strftime("%Y-%m-%dT%H%M%SZ", time.gmtime())
        place = Path(tempfile.mkdtemp(prefix=f"{stamp}-{evidence.kind}-", dir=base))
        for name, data in {"reason.txt": evidence.reason.encode() + b"\n", **evidence.files}.items():
            write_durably(place, name, data)
        return place
    return None
