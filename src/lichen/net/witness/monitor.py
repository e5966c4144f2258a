"""Compares what was seen of a log, by whom: this reader, its ledger here, and each witness of a policy.

A log that shows different people different histories cannot be told by looking at one of them. So the monitor asks every
witness for the checkpoint it cosigned last, adds the ones it saw itself, and checks each pair: equal sizes must have equal
roots, and the smaller must be the beginning of the larger. The proof of the latter comes from whoever has the log at hand.

Rules upheld:

* Only checkpoints that the log's key signed are compared; a witness that serves anything else is told of by name.
* A contradiction is verified as a stranger would verify it before it is called one, and leaves a file.
* What cannot be compared, since nobody here has the log to connect two sizes, is said to be open, not to be fine.

Source: RFC 9162, section 8 ("Gossip and monitoring"); C2SP tlog-witness, "Monitor Retrieval Mechanism".
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from lichen.crypto.keys import PublicKey
from lichen.crypto.note import SIGNATURE_COUNT_MAX, SignedNote
from lichen.errors import LichenError, StorageError, VerificationError
from lichen.ledger.checkpoint import Checkpoint, open_checkpoint
from lichen.ledger.policy import Policy, shown
from lichen.ledger.proof import verify_consistency
from lichen.ledger.split_view import SplitView, verify_split_view
from lichen.ledger.tree import EMPTY_ROOT
from lichen.net.witness.client import TIMEOUT_SECONDS, fetch_seen

if TYPE_CHECKING:
    from lichen.encoding.entry import Entry
    from lichen.net.witness.odd_times import OddTime

__all__ = [
    "LogSource",
    "Memory",
    "Report",
    "Sighting",
    "compare_sightings",
    "gather_sightings",
    "write_evidence",
]

KEPT_COUNT_MAX: Final = 16


class LogSource(Protocol):
    """Whoever has the log at hand, so that two sizes of it can be connected; a `LedgerReader` is one."""

    @property
    def sealed_size(self) -> int:
        """Tree size of its newest checkpoint."""

    def root_at(self, tree_size: int) -> bytes:
        """Root of the tree over its first entries."""

    def prove_consistency(self, size_first: int, size_second: int | None = None) -> list[bytes]:
        """Hashes that show that the tree of one size is the beginning of that of another."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A checkpoint that somebody saw.

    Attributes:
        source: Who, in words.
        note: The signed checkpoint.
        checkpoint: What it says; the log's signature was checked.
    """

    source: str
    note: str
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Report:
    """What the monitor found.

    Attributes:
        origin: The log.
        sightings: What was compared, smallest first.
        split_views: Contradictions, verified, each with the names of the two that saw it.
        open_pairs: Pairs nobody here could connect, as names and sizes.
        problems: Sources that gave nothing to compare, and why.
        odd_times: Times of the log and of witnesses that cannot be right.
    """

    origin: str
    sightings: tuple[Sighting, ...]
    split_views: tuple[tuple[str, str, SplitView], ...]
    open_pairs: tuple[tuple[str, str], ...]
    problems: tuple[tuple[str, LichenError], ...]
    odd_times: tuple[OddTime, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as a table for JSON; evidence is written by `write_evidence`."""
        return {
            "origin": self.origin,
            "seen": [
                {
                    "by": each.source,
                    "tree_size": each.checkpoint.tree_size,
                    "root": each.checkpoint.root.hex(),
                }
                for each in self.sightings
            ],
            "split_views": [{"first": first, "second": second} for first, second, _ in self.split_views],
            "open": [{"first": first, "second": second} for first, second in self.open_pairs],
            "problems": [
                {"source": source, "code": error.code, "message": error.message}
                for source, error in self.problems
            ],
            "odd_times": [each.to_json() for each in self.odd_times],
        }


def gather_sightings(
    origin: str,
    log_keys: Sequence[PublicKey],
    policy: Policy,
    others: Iterable[tuple[str, str]] = (),
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> tuple[list[Sighting], list[tuple[str, LichenError]]]:
    """Collect checkpoints of a log: from each witness of a policy, and what the caller has.

    Args:
        origin: The log.
        log_keys: Its public keys, trusted.
        policy: Witnesses to ask, at the URLs it gives.
        others: Pairs of source and signed note.
        timeout_seconds: For each witness.

    Returns:
        Checkpoints that the log signed; and the sources that gave none, with the reason.
    """
    found: list[Sighting] = []
    problems: list[tuple[str, LichenError]] = []

    def take(source: str, read: Callable[[], str | None]) -> None:
        try:
            note = read()
            if note is not None:
                found.append(Sighting(source, note, _opened(note, origin, log_keys)))
        except LichenError as error:
            problems.append((source, error))

    for source, note in others:
        take(source, lambda note=note: note)  # type: ignore[misc]
    for witness in policy.witnesses:
        take(
            f"witness {shown(witness.name)}",
            lambda witness=witness: fetch_seen(witness, origin, timeout_seconds=timeout_seconds),  # type: ignore[misc]
        )
    return found, problems


def compare_sightings(
    origin: str,
    log_keys: Sequence[PublicKey],
    sightings: Sequence[Sighting],
    logs: Sequence[LogSource] = (),
    *,
    genesis: Entry | None = None,
    problems: Sequence[tuple[str, LichenError]] = (),
) -> Report:
    """Check that all checkpoints are of one growing log.

    Neighbours by size are compared, and any two of one size: what holds between neighbours holds between all.

    Args:
        origin: The log.
        log_keys: Its public keys, trusted.
        sightings: What was seen.
        logs: Whoever has the log at hand.
        genesis: Entry 0, to stand in the evidence.
        problems: To stand in the report.

    Returns:
        What was found.
    """
    ordered = sorted(sightings, key=lambda each: each.checkpoint.tree_size)
    splits: list[tuple[str, str, SplitView]] = []
    unknown: list[tuple[str, str]] = []
    for first, second in _pairs(ordered):
        verdict = _compare(first, second, logs, genesis)
        if isinstance(verdict, SplitView):
            with contextlib.suppress(VerificationError):
                verify_split_view(verdict, log_keys, origin)
                splits.append((_named(first), _named(second), verdict))
        elif verdict is None:
            unknown.append((_named(first), _named(second)))
    return Report(origin, tuple(ordered), tuple(splits), tuple(unknown), tuple(problems))


def write_evidence(directory: Path, report: Report) -> list[Path]:
    """Write the evidence of a report, one file per contradiction; the same contradiction is the same file.

    Args:
        directory: Where.
        report: What was found.

    Returns:
        The files.

    Raises:
        StorageError: They cannot be written.
    """
    paths = []
    for _, _, evidence in report.split_views:
        data = evidence.to_bytes()
        path = directory / f"split-view-{hashlib.sha256(data).hexdigest()[:16]}.json"
        _write(path, data + b"\n")
        paths.append(path)
    return paths


class Memory:
    """The checkpoints of a log that this reader saw, across runs of the monitor.

    Args:
        home: Directory of the user's settings; ``monitor/`` is made in it when needed.
        origin: The log.
    """

    def __init__(self, home: Path, origin: str) -> None:
        self.directory = home / "monitor" / hashlib.sha256(origin.encode("utf-8")).hexdigest()

    def notes(self) -> list[str]:
        """The signed checkpoints, in no order."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for path in sorted(self.directory.glob("*.checkpoint")):
                with contextlib.suppress(OSError, UnicodeDecodeError):
                    found.append(path.read_text(encoding="utf-8"))
        return found

    def keep(self, report: Report) -> None:
        """Remember what was seen: the largest checkpoint, and what nobody could connect with it yet.

        Nothing is forgotten while histories contradict each other.

        Raises:
            StorageError: It cannot be written.
        """
        if report.split_views or not report.sightings:
            return
        is_connected = not report.open_pairs
        kept: dict[str, str] = {}
        largest = report.sightings[-1].checkpoint.tree_size
        for each in report.sightings if is_connected else report.sightings[-KEPT_COUNT_MAX:]:
            if not is_connected or each.checkpoint.tree_size == largest:
                name = f"{each.checkpoint.tree_size}-{each.checkpoint.root.hex()[:16]}.checkpoint"
                kept[name] = _together(kept[name], each.note) if name in kept else each.note
        for name, note in kept.items():
            _write(self.directory / name, note.encode("utf-8"))
        try:
            for path in self.directory.glob("*.checkpoint"):
                if path.name not in kept:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot tidy {self.directory}: {error.strerror}") from error


def _together(one: str, other: str) -> str:
    """Return one checkpoint with the signatures of both, whose times tell more later; the first where they are no such two."""
    first, second = SignedNote.from_text(one), SignedNote.from_text(other)
    signatures = tuple(dict.fromkeys((*first.signatures, *second.signatures)))
    if first.text != second.text or len(signatures) > SIGNATURE_COUNT_MAX:
        return one
    return SignedNote(first.text, signatures).to_text()


def _opened(note: str, origin: str, log_keys: Sequence[PublicKey]) -> Checkpoint:
    """Read a checkpoint that any of the log's keys signed."""
    problem: VerificationError | None = None
    for key in log_keys:
        try:
            return open_checkpoint(note, origin, key)
        except VerificationError as error:
            problem = error
    raise problem or VerificationError("no key of the log is known", remedy="Give it with --log-key.")


def _pairs(ordered: Sequence[Sighting]) -> Iterable[tuple[Sighting, Sighting]]:
    """Pairs to compare: neighbours among the different sizes, and of one size each with the first of another root."""
    previous: list[Sighting] = []
    at: list[Sighting] = []
    for each in ordered:
        if at and at[0].checkpoint.tree_size != each.checkpoint.tree_size:
            previous, at = at, []
        if all(each.checkpoint.root != other.checkpoint.root for other in at):
            for other in at or previous:
                yield other, each
            if at:
                for other in previous:
                    yield other, each
            at.append(each)


def _compare(
    first: Sighting, second: Sighting, logs: Sequence[LogSource], genesis: Entry | None
) -> SplitView | bool | None:
    """Compare two checkpoints, the smaller first: True when they agree, evidence when not, None when nobody can tell."""
    one, two = first.checkpoint, second.checkpoint
    if one.tree_size == two.tree_size:
        return one.root == two.root or SplitView(first.note, second.note, genesis=genesis)
    if one.tree_size == 0:
        return True if one.root == EMPTY_ROOT else None
    for log in logs:
        try:
            if log.sealed_size < two.tree_size or log.root_at(two.tree_size) != two.root:
                continue  # it has not the second log, so it cannot say how that began
            root = log.root_at(one.tree_size)
            proof = tuple(log.prove_consistency(one.tree_size, two.tree_size))
            verify_consistency(one.tree_size, two.tree_size, root, two.root, proof)
        except LichenError:
            continue
        return root == one.root or SplitView(first.note, second.note, root, proof, genesis)
    return None


def _named(sighting: Sighting) -> str:
    return f"{sighting.source} at {sighting.checkpoint.tree_size} entries"


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise StorageError(
            f"cannot write {path}: {error.strerror}", remedy="Make room or mend permissions."
        ) from error
