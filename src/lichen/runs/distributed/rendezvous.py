"""Where the processes of a distributed run meet: a directory, in which nobody waits for anybody.

Every process runs its share under its own supervision. The first one (rank 0) records the run; the others leave
their part: what they used and touched. Rules upheld:

* **Announce, agree, leave, collect.** A process announces itself at its start. The first to decide whether the run is
  answered from the ledger writes that down, and the others follow, since a process that trains while another one does not
  would wait for it for ever. At its end a process leaves its part. Rank 0 collects what is there when it ends; it gives those
  that announced themselves a short grace, since all end at about the same time, and then goes on without.
* **A missing part is said.** ``Joined.missing`` names those ranks: such a run is partial, ``rank-missing``, and no hit.
* **A late part is not lost.** What is left after the launch was closed waits as an addendum, see ``addenda``.
* Directories and files appear whole or not at all. A launch whose name can come again (``Rank.is_unique``) is told
  from an earlier one by its age and by who announced himself before.

Layout: ``<directory>/<launch>.<n>/`` with ``announced/<rank>``, ``decision``, ``parts/<rank>/{part.json, trace}`` and, when
rank 0 is done, ``closed``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from lichen.encoding.foreign_json import read_json
from lichen.energy.measurement import Boundary, Measurement
from lichen.errors import LichenError, StorageError
from lichen.runs.distributed.ranks import Rank

__all__ = ["Addendum", "Joined", "RankPart", "Rendezvous", "addenda", "remove_old", "total_energy"]

JOIN_SECONDS_MAX: Final = 600.0  # ranks of one launch start within this time of each other
GRACE_SECONDS: Final = 2.0
OLD_SECONDS: Final = 30 * 24 * 3600.0  # (= 2592000) a launch is forgotten after a month
_SHARES: Final = (Boundary.PROCESS, Boundary.DEVICE)
_POLL_SECONDS: Final = 0.02
_LAUNCH: Final = re.compile(r"(?P<launch>[0-9a-f]{32})\.(?P<number>[0-9]{1,9})")
_PART_BYTES_MAX: Final = 64 * 2**20  # (= 67108864)


@dataclass(frozen=True)
class RankPart:
    """What one process of a distributed run leaves.

    Args:
        rank: Its index.
        host: Where it ran, for people and for counting a machine once.
        started_unix_ms: When it started.
        ended_unix_ms: When it ended.
        exit_status: As of ``Outcome``.
        interrupted: As of ``Outcome``.
        usage: What its process tree used, by name; numbers.
        energy: ``Measurement.to_record()``; None when it was not measured.
        energy_with_inner_runs: The same, with what runs inside it record; None when it was not measured.
        outputs: Files it wrote: ``path``, ``sha256``, ``size_bytes`` and ``cid`` each.
        trace: File with its trace; on collecting, where that file lies now.
    """

    rank: int
    host: str
    started_unix_ms: int
    ended_unix_ms: int
    exit_status: int
    interrupted: bool
    usage: Mapping[str, Any] = field(default_factory=dict)
    energy: Mapping[str, Any] | None = None
    energy_with_inner_runs: Mapping[str, Any] | None = None
    outputs: Sequence[Mapping[str, Any]] = ()
    trace: Path | None = None


@dataclass(frozen=True)
class Joined:
    """The parts of a distributed run that rank 0 could collect.

    Args:
        parts: By rank; that of rank 0 itself is not among them.
        missing: Ranks without one.
    """

    parts: tuple[RankPart, ...]
    missing: tuple[int, ...]


@dataclass(frozen=True)
class Addendum:
    """A part that came after its run had been recorded.

    Args:
        run_id: What rank 0 named the run when it closed the launch.
        part: The part.
        path: Its directory; removed by ``settle``.
    """

    run_id: str
    part: RankPart
    path: Path

    def settle(self) -> None:
        """The part has been taken care of."""
        shutil.rmtree(self.path, ignore_errors=True)


class Rendezvous:
    """One process's side of a distributed run.

    Args:
        directory: Where launches meet: on a file system that all of them see.
        rank: Which process this is.

    Raises:
        StorageError: The directory cannot be written.
    """

    def __init__(self, directory: Path, rank: Rank) -> None:
        self._rank = rank
        with _as_storage_error(directory):
            directory.mkdir(parents=True, exist_ok=True)
            self.path = _join_launch(directory, rank)

    def agree(self, proposal: str) -> str:
        """Propose a decision; return that of whoever decided first.

        Args:
            proposal: What this process would do, such as ``train`` or ``hit 17``.

        Raises:
            StorageError: The directory cannot be written or read.
        """
        place = self.path / "decision"
        with _as_storage_error(self.path):
            _write_if_absent(place, proposal.encode())
            return place.read_text(encoding="utf-8")

    def leave(self, part: RankPart) -> bool:
        """Leave what this process has to say about the run.

        Args:
            part: Its trace file is copied.

        Returns:
            Whether it comes in time; otherwise it waits as an addendum.

        Raises:
            StorageError: The directory cannot be written.
        """
        with _as_storage_error(self.path):
            parts = self.path / "parts"
            parts.mkdir(exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=".", dir=parts))
            try:
                if part.trace is not None:
                    shutil.copyfile(part.trace, temporary / "trace")
                value = {**asdict(part), "trace": None}
                (temporary / "part.json").write_text(json.dumps(value), encoding="utf-8")
                temporary.chmod(0o755)
                temporary.rename(parts / str(part.rank))
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        return not (self.path / "closed").exists()

    def collect(self, grace_seconds: float = GRACE_SECONDS) -> Joined:
        """Take the parts that are there; for rank 0 to call when its own work has ended.

        Args:
            grace_seconds: How long to wait for parts of ranks that announced themselves.
        """
        end = time.monotonic() + grace_seconds
        while True:
            parts = {part.rank: part for part in _read_parts(self.path)}
            announced = set(_numbers(self.path / "announced"))
            if not (announced - parts.keys() - {0}) or time.monotonic() >= end:
                break
            time.sleep(_POLL_SECONDS)
        expected = range(1, self._rank.count)
        missing = tuple(rank for rank in expected if rank not in parts)
        return Joined(tuple(parts[rank] for rank in sorted(parts) if rank in expected), missing)

    def close(self, run_id: str, joined: Joined) -> None:
        """Say that the run is recorded; what comes now is late. When nothing is missing, the launch is forgotten.

        Args:
            run_id: Name by which an addendum finds the record.
            joined: What was collected.

        Raises:
            StorageError: The directory cannot be written.
        """
        if not joined.missing:
            shutil.rmtree(self.path, ignore_errors=True)
            return
        taken = [part.rank for part in joined.parts]
        with _as_storage_error(self.path):
            _write_if_absent(self.path / "closed", json.dumps({"run_id": run_id, "taken": taken}).encode())


def total_energy(own: Measurement, own_host: str, parts: Sequence[RankPart]) -> Measurement:
    """What all ranks together cost.

    Shares of processes and cards held by them add up. A figure for a whole machine counts once a machine, the largest
    one, however many ranks ran there.

    Args:
        own: Of rank 0.
        own_host: Its machine.
        parts: Of the others; a part without a figure adds nothing and is noted.

    Returns:
        The sum; its duration is the longest, since they ran side by side.
    """
    shares = [own] if own.boundary in _SHARES else []
    machines = {own_host: own} if own.boundary not in _SHARES else {}
    unmeasured: list[int] = []
    for part in parts:
        try:
            measured = Measurement.from_record(part.energy)
        except LichenError:
            unmeasured.append(part.rank)
            continue
        if measured.boundary in _SHARES:
            shares.append(measured)
        else:
            known = machines.get(part.host)
            machines[part.host] = max(known or measured, measured, key=lambda one: one.energy_joules)
    total, *others = [*shares, *machines.values()]
    longest = total.duration_seconds
    for measured in others:
        longest = max(longest, measured.duration_seconds)
        total += measured
    notes = (f"{len(unmeasured)} of {len(parts) + 1} ranks were not measured",) if unmeasured else ()
    return replace(total, duration_seconds=longest, notes=(*total.notes, *notes))


def addenda(directory: Path) -> tuple[Addendum, ...]:
    """The parts that came after their runs were recorded.

    Args:
        directory: As of ``Rendezvous``.
    """
    found = []
    for path in _launches(directory):
        try:
            closed = read_json((path / "closed").read_bytes())
            run_id, taken = str(closed["run_id"]), set(closed["taken"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        found += [
            Addendum(run_id, part, path / "parts" / str(part.rank))
            for part in _read_parts(path)
            if part.rank not in taken
        ]
    return tuple(found)


def remove_old(directory: Path, age_seconds: float = OLD_SECONDS) -> int:
    """Forget launches that nobody has touched for long.

    Returns:
        How many were removed.
    """
    count = 0
    for path in _launches(directory):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > age_seconds:
                shutil.rmtree(path, ignore_errors=True)
                count += 1
    return count


def _join_launch(directory: Path, rank: Rank) -> Path:
    """Find the launch this process belongs to, or begin it; announce this process there."""
    while True:
        launches = [path for path in _launches(directory) if path.name.startswith(f"{rank.launch}.")]
        number = 1 + max((int(path.suffix[1:]) for path in launches), default=0)
        for path in (
            launches
        ):  # the first without us: a fast rank may be in its second run before a slow one is in its first
            if _is_open(path, rank) and _announce(path, rank):
                return path
        try:
            (directory / f"{rank.launch}.{number}").mkdir()
        except FileExistsError:
            continue  # another rank has just begun it


def _is_open(path: Path, rank: Rank) -> bool:
    """Whether a launch may be ours: when its name can come again, not an old one and not one that is recorded."""
    if rank.is_unique:
        return True
    try:
        return not (path / "closed").exists() and time.time() - path.stat().st_mtime < JOIN_SECONDS_MAX
    except OSError:
        return False


def _announce(path: Path, rank: Rank) -> bool:
    """Say that this process is there; False when somebody with its rank was there before."""
    try:
        (path / "announced").mkdir(exist_ok=True)
        descriptor = os.open(
            path / "announced" / str(rank.index), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644
        )
    except (FileExistsError, FileNotFoundError):
        return False
    with os.fdopen(descriptor, "w") as file:
        file.write(socket.gethostname())
    return True


def _launches(directory: Path) -> list[Path]:
    try:
        found = [path for path in directory.iterdir() if _LAUNCH.fullmatch(path.name)]
    except OSError:
        return []
    return sorted(found, key=lambda path: (path.stem, int(path.suffix[1:])))


def _read_parts(launch: Path) -> list[RankPart]:
    """Parts that can be read, by rank."""
    found = []
    for rank in _numbers(launch / "parts"):
        directory = launch / "parts" / str(rank)
        try:
            with (directory / "part.json").open("rb") as file:
                value = read_json(file.read(_PART_BYTES_MAX))
            trace = directory / "trace"
            value["trace"] = trace if trace.exists() else None
            part = RankPart(**value)
        except (OSError, ValueError, TypeError, KeyError):
            continue
        if part.rank == rank:
            found.append(part)
    return found


def _numbers(directory: Path) -> list[int]:
    try:
        names = [path.name for path in directory.iterdir()]
    except OSError:
        return []
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


def _write_if_absent(place: Path, data: bytes) -> None:
    """Write a file that appears whole; whoever comes second changes nothing."""
    descriptor, temporary = tempfile.mkstemp(prefix=".", dir=place.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), 0o644)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, place)
    finally:
        Path(temporary).unlink(missing_ok=True)


@contextlib.contextmanager
def _as_storage_error(directory: Path) -> Any:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"the processes of this run cannot meet in {directory}: {error.strerror or error}",
            remedy="Make it writable on every machine of the run, or name a ledger that all of them see.",
        ) from error
