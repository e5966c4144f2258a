"""Records that the ledger could not take, kept until it can.

A run that is finished must not be lost because a disk was full or a database locked. Its record waits here, one file
a record, and the next command that can write flushes it. Rules upheld:

* a file appears whole and durable or not at all (temporary file, fsync, rename, fsync of the directory);
* a file is named after the digest of the record, so adding or flushing twice is the same as once; the ledger knows
  records by the same digest, so a crash between appending and removing does no harm;
* nothing is thrown away: what cannot be read is moved to ``damaged``, what the ledger's rules refuse to ``rejected``, and
  both are named to the caller.

File ``<sha256 of the record>.record``: a line ``lichen-spool-v1 <sha256 of the rest>``, then one JSON object: ``record``
(base64 of the bytes), ``reason``, ``time_unix_ms`` and ``outputs``, a list of ``{path, sha256, size_bytes}`` for those
outputs that the store could not take.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from lichen.encoding.foreign_json import read_json
from lichen.errors import LichenError, NotFoundError, Rejected, StorageError, VerificationError

__all__ = ["Spool", "SpooledOutput", "SpooledRecord", "write_durably"]

_MAGIC: Final = b"lichen-spool-v1 "
_SUFFIX: Final = ".record"
_DONE_RULES: Final = frozenset({"ledger.duplicate", "registry.double-credit"})  # it is on record already
_TOGETHER_COUNT: Final = 100  # records handed to the ledger at a time
_FILE_BYTES_MAX: Final = (
    64 * 2**20
)  # (= 67108864) a record has at most 48,000 bytes; the list of outputs may be long


@dataclass(frozen=True)
class SpooledOutput:
    """An output that the store could not take when the run ended.

    Args:
        path: Absolute path it was written to.
        sha256: Hexadecimal digest at that time.
        size_bytes: Its size.
    """

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class SpooledRecord:
    """A record that waits.

    Args:
        record: Its bytes: a statement still to be signed, or a signed entry.
        reason: Why it could not be appended.
        time_unix_ms: When that was.
        outputs: Outputs still to be stored.
        path: File it waits in.
    """

    record: bytes
    reason: str
    time_unix_ms: int
    outputs: tuple[SpooledOutput, ...]
    path: Path


class Spool:
    """A directory of records that wait.

    Args:
        directory: Where they wait; made when first needed.
        fallback: Another place, best on another disk, for when the first cannot be written.
    """

    def __init__(self, directory: Path, fallback: Path | None = None) -> None:
        self._directories = [directory] if fallback is None else [directory, fallback]

    def add(self, record: bytes, *, outputs: Sequence[SpooledOutput] = (), reason: str = "") -> Path:
        """Keep a record until it can be appended.

        Args:
            record: Statement or entry, as bytes.
            outputs: Outputs that the store does not have yet.
            reason: Why it could not be appended.

        Returns:
            The file it waits in.

        Raises:
            StorageError: No directory can be written either.
        """
        value = {
            "record": base64.b64encode(record).decode(),
            "reason": reason,
            "time_unix_ms": time.time_ns() // 1_000_000,
            "outputs": [asdict(output) for output in outputs],
        }
        body = json.dumps(value, separators=(",", ":")).encode() + b"\n"
        data = _MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body
        name = hashlib.sha256(record).hexdigest() + _SUFFIX
        failures = []
        for directory in self._directories:
            try:
                return write_durably(directory, name, data)
            except OSError as error:
                failures.append(f"{directory}: {error.strerror or error}")
        raise StorageError(
            f"the record cannot be kept for later: {'; '.join(failures)}",
            remedy="Free some disk space or make the directory writable, then run the command again.",
        )

    def waiting(self, on_problem: Callable[[str], object] | None = None) -> tuple[SpooledRecord, ...]:
        """The records that wait, oldest first.

        Args:
            on_problem: Told of each file that is damaged and was set aside.
        """
        found = []
        for path in self._paths():
            try:
                found.append(_read(path))
            except FileNotFoundError:
                continue  # another process has flushed it
            except (OSError, ValueError) as error:
                self._set_aside(path, "damaged", str(error), on_problem)
        return tuple(sorted(found, key=lambda spooled: (spooled.time_unix_ms, spooled.path.name)))

    def flush(
        self,
        append: Callable[[Sequence[bytes]], Sequence[Rejected | None]],
        *,
        store: Callable[[SpooledOutput], object] | None = None,
        on_problem: Callable[[str], object] | None = None,
    ) -> int:
        """Append what waits.

        Args:
            append: Appends records to the ledger, and says of each why it was refused, or None; a record that is there already
                counts as appended.
            store: Stores an output that was left over, or does nothing when the store has it. An output that is gone or is
                no longer what it was (NotFoundError, VerificationError) is reported and the record appended all the same,
                since what it says happened; after any other failure record and output go on waiting together.
            on_problem: Told of each record or output that could not be taken, with the file it is now in.

        Returns:
            How many records were appended. When another process is flushing, 0.

        Raises:
            LichenError: The ledger still fails; what was not appended goes on waiting.
        """
        with self._exclusively() as is_ours:
            if not is_ours:
                return 0
            count = 0
            waiting = self.waiting(on_problem)
            for start in range(0, len(waiting), _TOGETHER_COUNT):
                group = [
                    spooled
                    for spooled in waiting[start : start + _TOGETHER_COUNT]
                    if self._store_outputs(spooled, store, on_problem)
                ]
                refusals = append([spooled.record for spooled in group]) if group else ()
                for spooled, refusal in zip(group, refusals, strict=True):
                    if refusal is not None and refusal.rule not in _DONE_RULES:
                        self._set_aside(spooled.path, "rejected", str(refusal), on_problem)
                        continue
                    count += refusal is None
                    with contextlib.suppress(FileNotFoundError):
                        spooled.path.unlink()
            return count

    def _store_outputs(
        self,
        spooled: SpooledRecord,
        store: Callable[[SpooledOutput], object] | None,
        on_problem: Callable[[str], object] | None,
    ) -> bool:
        """Store what the record left over, and say whether nothing more can be done for it."""
        done = True
        for output in spooled.outputs if store is not None else ():
            assert store is not None
            try:
                store(output)
            except (LichenError, OSError) as error:
                is_lost = isinstance(error, NotFoundError | VerificationError | FileNotFoundError)
                done &= is_lost
                if on_problem is not None:
                    then = "" if is_lost else "; it waits for the next command"
                    said = error.message if isinstance(error, LichenError) else str(error)
                    on_problem(f"output {output.path} of a spooled run could not be stored: {said}{then}")
        return done

    def _paths(self) -> Iterator[Path]:
        for directory in self._directories:
            with contextlib.suppress(OSError):
                yield from sorted(path for path in directory.iterdir() if path.name.endswith(_SUFFIX))

    def _set_aside(self, path: Path, kind: str, why: str, on_problem: Callable[[str], object] | None) -> None:
        place = path.parent / kind / path.name
        try:
            place.parent.mkdir(mode=0o700, exist_ok=True)
            path.replace(place)
        except OSError as error:
            place, why = path, f"{why}; it could not be moved: {error.strerror or error}"
        if on_problem is not None:
            hint = "" if kind == "damaged" else f". To try again, move it back to {path.parent}"
            on_problem(f"spooled record {place} is {kind}: {why}{hint}")

    @contextlib.contextmanager
    def _exclusively(self) -> Iterator[bool]:
        """Whether no other process is flushing; locks the directory itself, so that no lock file is left."""
        present = next((directory for directory in self._directories if directory.is_dir()), None)
        if present is None:
            yield False
            return
        try:
            descriptor = os.open(present, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise StorageError(
                f"spooled records in {present} cannot be read: {error.strerror}",
                remedy="Make the directory readable, or run as the user it belongs to.",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
        except BlockingIOError:
            yield False
        finally:
            os.close(descriptor)


def write_durably(directory: Path, name: str, data: bytes) -> Path:
    """Write a file that is there whole after a crash, or not at all; only its owner can read it.

    Raises:
        OSError: It cannot be written; nothing is left of it.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = directory / name
    descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=directory)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(place)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
    _sync_directory(directory)
    return place


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> SpooledRecord:
    """Read one file.

    Raises:
        ValueError: It is not what its name and its first line say.
    """
    if path.stat().st_size > _FILE_BYTES_MAX:
        raise ValueError("it is too large for a spooled record")
    head, _, body = path.read_bytes().partition(b"\n")
    if not head.startswith(_MAGIC):
        raise ValueError("it does not begin as a spooled record does")
    if head.removeprefix(_MAGIC) != hashlib.sha256(body).hexdigest().encode():
        raise ValueError("its bytes are not those that were written")
    try:
        value = read_json(body)
        record = base64.b64decode(value["record"], validate=True)
        outputs = tuple(SpooledOutput(**output) for output in value["outputs"])
        spooled = SpooledRecord(record, str(value["reason"]), int(value["time_unix_ms"]), outputs, path)
    except (KeyError, TypeError, binascii.Error) as error:
        raise ValueError(f"a field is missing or malformed: {error}") from error
    if hashlib.sha256(record).hexdigest() + _SUFFIX != path.name:
        raise ValueError("its name is not the digest of its record")
    return spooled
