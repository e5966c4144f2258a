"""Wait for equal work that is in progress instead of doing it twice.

Everybody who wants the lease of a key takes a numbered ticket, a file in the lease directory. The lowest live
ticket holds the lease, the others wait in the order of their numbers. Rules upheld:

* **One at a time.** A ticket gets a number above all it sees. Whoever then sees another ticket with the same or a higher number
  came too late to be sure, gives the ticket back and takes a new one. So nobody can slip in below a holder.
* **Nobody waits for the dead.** A ticket is stale when its process, seen from the same boot and process namespace, has
  ended (``kill -9`` included), or when, seen from elsewhere, its heartbeat (the file's modification time, compared with
  that of the waiter's own file on the same file system, so that clocks do not matter) is a minute old.
* **No deadlock.** A run never waits for a lease that one of its ancestors holds, nor for one whose holder waits, directly or
  through others, for a lease of such an ancestor. It then goes on without.
* **An economy, not a safeguard.** Whatever goes wrong with leases (no directory, disk full, time out), the work is done
  without one; ``Held.note`` says so.

Source: L. Lamport, "A new solution of Dijkstra's concurrent programming problem", 1974. Differs: the numbers are file
names, and a doubtful entry is repeated instead of awaited.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import random
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from lichen.encoding.foreign_json import read_json
from lichen.runs.process.processes import ProcessIdentity, ancestors, this_process
from lichen.runs.process.signal_relay import withheld_signals

__all__ = ["LEASE_VARIABLE", "Held", "Lease"]

LEASE_VARIABLE: Final = (
    "LICHEN_LEASES"  # tokens of the leases that surrounding runs hold, separated by spaces
)
HEARTBEAT_SECONDS: Final = 5.0
STALE_SECONDS: Final = 60.0  # (= 12 heartbeats)
_POLL_SECONDS_MIN, _POLL_SECONDS_MAX = 0.02, 0.25
_TELL_SECONDS: Final = 1.0
_KEY: Final = re.compile(r"[0-9a-f]{16,64}")
_TICKET_NAME: Final = re.compile(
    r"(?P<key>[0-9a-f]{16,64})\.(?P<number>[0-9]{1,18})\.(?P<token>[0-9a-f]{24})"
)
_HOLDERS_MAX: Final = 1000  # bound on a chain of who waits for whom


@dataclass
class Held:
    """What came of asking for a lease.

    Args:
        owned: Whether the lease is ours; otherwise the work goes on without one.
        waited: Whether somebody else held it before, so that the answer may be in the ledger now.
        note: Why it is not ours; empty when it is.
        tokens: Leases held by this run and those around it.
    """

    owned: bool
    waited: bool
    note: str = ""
    tokens: tuple[str, ...] = ()

    def mark(self, environment: MutableMapping[str, str]) -> None:
        """Tell runs inside this one which leases they must not wait for."""
        environment[LEASE_VARIABLE] = " ".join(self.tokens)


@dataclass(frozen=True)
class _Ticket:
    """A ticket as its file tells it."""

    path: Path
    key: str
    number: int
    token: str
    owner: ProcessIdentity | None
    user: str
    since_unix_ms: int
    inside: frozenset[str]  # leases held by the runs around its owner
    beat: float  # modification time of the file

    def describe(self) -> str:
        """Who it is, for people."""
        if self.owner is None:
            return "unknown process"
        since = time.strftime("%H:%M:%S", time.localtime(self.since_unix_ms / 1000))
        suspended = ", suspended" if self.owner.is_here() and self.owner.is_stopped() else ""
        return f"{self.user} on {self.owner.host}, process {self.owner.pid}, since {since}{suspended}"


class Lease:
    """The lease of one piece of work.

    Args:
        directory: Where tickets lie; shared by all who should wait for each other.
        key: What equal work has in common, such as a fingerprint in hexadecimal.
        environment: Variables to find surrounding runs by; ours by default.
    """

    def __init__(self, directory: Path, key: str, environment: Mapping[str, str] | None = None) -> None:
        self._directory = directory
        self._key = (
            key if _KEY.fullmatch(key) else hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        )
        variables = os.environ if environment is None else environment
        self._inside = frozenset(variables.get(LEASE_VARIABLE, "").split())

    @contextlib.contextmanager
    def acquire(
        self, *, on_wait: Callable[[str], object] | None = None, timeout_seconds: float | None = None
    ) -> Iterator[Held]:
        """Hold the lease, after waiting for those who came first.

        Args:
            on_wait: Told about once a second who holds the lease.
            timeout_seconds: Longest wait; then the work goes on without the lease. 0 does not wait, None waits on.

        Yields:
            What came of it. Whoever is yielded to may do the work in any case.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._inside |= _held_around(_read_tickets(self._directory))
            mine = _take_ticket(self._directory, self._key, self._inside)
        except OSError as error:
            yield self._without(f"no lease: {error}", waited=False)
            return
        with _Heartbeat(mine):
            try:
                held = self._wait(mine, on_wait, timeout_seconds)
            except BaseException:
                _remove(mine)
                raise
            if not held.owned:
                _remove(mine)  # nobody should queue behind work that does not hold the lease
            try:
                yield held
            finally:
                _remove(mine)

    def _wait(
        self, mine: Path, on_wait: Callable[[str], object] | None, timeout_seconds: float | None
    ) -> Held:
        """Wait until the ticket is the lowest, or there is a reason not to."""
        started = time.monotonic()
        tell_at, pause_seconds = started, _POLL_SECONDS_MIN
        waited = False
        while True:
            try:
                # What other keys are held and waited for only matters to a run inside another.
                tickets = _live_tickets(self._directory, mine, None if self._inside else self._key)
            except OSError as error:
                return self._without(f"no lease: {error}", waited=waited)
            own = next((ticket for ticket in tickets if ticket.path == mine), None)
            if own is None:
                return self._without("no lease: its ticket was removed", waited=waited)
            holder = _holders(tickets)[self._key]
            if holder is own:
                return Held(owned=True, waited=waited, tokens=(*self._inside, own.token))
            if _waits_for(holder, self._inside, tickets):
                return self._without("no lease: its holder waits for this run", waited=False)
            now = time.monotonic()
            if timeout_seconds is not None and now - started >= timeout_seconds:
                return self._without(f"no lease: still held by {holder.describe()}", waited=waited)
            waited = True
            if on_wait is not None and now >= tell_at:
                tell_at = now + _TELL_SECONDS
                on_wait(holder.describe())
            if timeout_seconds is not None:
                pause_seconds = min(pause_seconds, started + timeout_seconds - now)
            time.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * 1.5, _POLL_SECONDS_MAX)

    def _without(self, note: str, *, waited: bool) -> Held:
        return Held(owned=False, waited=waited, note=note, tokens=tuple(self._inside))


def _take_ticket(directory: Path, key: str, inside: frozenset[str]) -> Path:
    """Make a ticket with a number that nobody can have overtaken."""
    while True:
        token = secrets.token_hex(12)
        number = 1 + max((ticket.number for ticket in _names(directory, key)), default=0)
        path = directory / f"{key}.{number}.{token}"
        _write_ticket(path, inside)
        if all(other.number < number for other in _names(directory, key) if other.token != token):
            return path
        path.unlink(missing_ok=True)
        time.sleep(random.uniform(0, 0.01))  # noqa: S311 - only so that two do not collide again


def _write_ticket(path: Path, inside: frozenset[str]) -> None:
    value = {
        "owner": asdict(this_process()),
        "user": _user_name(),
        "since_unix_ms": time.time_ns() // 1_000_000,
        "inside": sorted(inside),
    }
    temporary = path.with_name(f".{path.name}")
    try:
        with temporary.open("x") as file:
            json.dump(value, file)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"user {os.getuid()}"


@dataclass(frozen=True)
class _Name:
    """What the name of a ticket says."""

    path: Path
    key: str
    number: int
    token: str


def _names(directory: Path, key: str | None = None) -> list[_Name]:
    """Tickets by name, those of a key or all."""
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            match = _TICKET_NAME.fullmatch(entry.name)
            if match is not None and key in {None, match["key"]}:
                found.append(
                    _Name(directory / entry.name, match["key"], int(match["number"]), match["token"])
                )
    return sorted(found, key=lambda name: (name.key, name.number, name.token))


def _live_tickets(directory: Path, mine: Path, key: str | None) -> list[_Ticket]:
    """The tickets whose owners live, sorted by key and number; the others are removed."""
    os.utime(mine)
    now = mine.stat().st_mtime
    live = []
    for ticket in _read_tickets(directory, key):
        if ticket.path != mine and _is_stale(ticket, now):
            _remove(ticket.path)
        else:
            live.append(ticket)
    return live


def _read_tickets(directory: Path, key: str | None = None) -> list[_Ticket]:
    tickets = (_read_ticket(name) for name in _names(directory, key))
    return [ticket for ticket in tickets if ticket is not None]


def _read_ticket(name: _Name) -> _Ticket | None:
    """Read a ticket; one that cannot be understood counts by its heartbeat alone, one that is gone not at all."""
    owner, user, since_unix_ms, inside = None, "", 0, frozenset[str]()
    try:
        beat = name.path.stat().st_mtime
        value = read_json(name.path.read_bytes())
        owner = ProcessIdentity(**value["owner"])
        user, since_unix_ms = str(value["user"]), int(value["since_unix_ms"])
        inside = frozenset(str(token) for token in value["inside"])
    except FileNotFoundError:
        return None
    except (PermissionError, ValueError, KeyError, TypeError):
        owner = None  # half-written, or not ours to read: it counts as held, until its heartbeat stops
    return _Ticket(name.path, name.key, name.number, name.token, owner, user, since_unix_ms, inside, beat)


def _is_stale(ticket: _Ticket, now: float) -> bool:
    if ticket.owner is not None and ticket.owner.is_here():
        return not ticket.owner.is_running()
    return now - ticket.beat > STALE_SECONDS


def _held_around(tickets: list[_Ticket]) -> frozenset[str]:
    """Leases held by this process and those it descends from, found without their having told us."""
    around = set(ancestors())
    return frozenset(
        ticket.token
        for ticket in _holders(tickets).values()
        if ticket.owner is not None and ticket.owner.is_here() and ticket.owner.pid in around
    )


def _holders(tickets: list[_Ticket]) -> dict[str, _Ticket]:
    """Who holds each key: the first ticket."""
    holders: dict[str, _Ticket] = {}
    for ticket in tickets:
        holders.setdefault(ticket.key, ticket)
    return holders


def _waits_for(holder: _Ticket, inside: frozenset[str], tickets: list[_Ticket]) -> bool:
    """Whether a holder can only go on after one of the leases in ``inside`` is given back.

    A holder waits for whatever the runs inside it wait for.
    """
    holders = _holders(tickets)
    ahead = [holder]
    seen = set[str]()
    while ahead and len(seen) < _HOLDERS_MAX:
        current = ahead.pop()
        if current.token in inside:
            return True
        if current.token in seen:
            continue
        seen.add(current.token)
        within = (ticket for ticket in tickets if current.token in ticket.inside)
        ahead += [holders[ticket.key] for ticket in within if holders[ticket.key] is not ticket]
    return False


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


@dataclass
class _Heartbeat:
    """Touches a ticket while its owner lives."""

    path: Path
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> None:
        thread = threading.Thread(target=self._beat, name="lichen-lease", daemon=True)
        with (
            withheld_signals(),
            contextlib.suppress(RuntimeError),
        ):  # no room for a thread: seen from here it lives on
            thread.start()
            self._thread = thread

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(self.path)
