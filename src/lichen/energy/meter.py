"""A window over every chosen source: start it, do the work, stop it with the work's account, get a measurement.

Rules upheld here:

* Starting and stopping is cheap (a few file reads); choosing sources and finding out the processor happens before.
* The clock that runs on while a machine sleeps is compared with the one that does not; a suspension is noted, and
  its time does not count as work.
* A source that fails in the middle costs its own part only: the next source that covers it takes over, and the
  measurement says so.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Sequence
from enum import Enum
from typing import Final, Self

from lichen.energy import process_table
from lichen.energy.attribution import SelfAccount, TreeUsage
from lichen.energy.grid import Intensity, lookup
from lichen.energy.measurement import NAME_LENGTH_MAX, Boundary, Component, Measurement
from lichen.energy.sources import Choice, Load, Source, Window, choose_sources
from lichen.errors import MeterError

__all__ = ["Meter", "meter_self"]

SUSPENSION_SECONDS: Final = 1.0  # difference of the two clocks that counts as sleep and not as rounding


class _Itself(Enum):
    """The work was done by the process that metered it."""

    ITSELF = "itself"


ITSELF: Final = _Itself.ITSELF


class Meter:
    """Measures one stretch of work.

    Args:
        sources: Sources to read, best first; None chooses the best available. A weaker source fills in parts that a
            better one could not deliver.
        zone: Grid zone of the machine, checked against the shipped table; None leaves the place unknown.
        intensity: Grid signal read from elsewhere for this stretch, if any.
        background: Poll sources that need it from a thread of its own. False leaves that to :meth:`poll`.

    Raises:
        NotFoundError: The zone is not in the table.
        MeterError: No source is available.
    """

    def __init__(
        self,
        sources: Sequence[Source] | None = None,
        zone: str | None = None,
        *,
        intensity: Intensity | None = None,
        background: bool = True,
    ) -> None:
        self.zone = None if zone is None or intensity is not None else lookup(zone).zone
        if intensity is not None:
            self.zone = zone or intensity.zone
        self.choice = choose_sources() if sources is None else Choice(tuple(sources))
        if not self.choice.sources:
            raise MeterError("no source of joules is available", remedy=" ".join(self.choice.reasons))
        self._intensity = intensity
        self._background = background
        self._windows: list[tuple[Source, Window]] = []
        self._next_polls: list[float] = []
        self._notes: list[str] = []
        self._self_account: SelfAccount | None = None
        self._busy_start: float | None = None
        self._monotonic_start = 0.0
        self._boot_start = 0.0
        self._poller: _Poller | None = None
        self._lock = threading.Lock()
        self._cpu_count = os.cpu_count() or 1
        self._memory_bytes = process_table.read_memory_bytes()

    def start(self) -> Self:
        """Open the window.

        Raises:
            MeterError: It is open already, or no source could be read.
        """
        if self._windows:
            raise MeterError("this meter is running already", remedy="Use one Meter per stretch of work.")
        self._notes = []
        failures: list[str] = []
        for source in self.choice.sources:
            try:
                self._windows.append((source, source.open()))
            except MeterError as error:
                failures.append(f"{source.name} unavailable: {error.message}")
        if not self._windows:
            raise MeterError("no source of joules could be read", remedy=" ".join(failures))
        self._notes += failures
        self._self_account = SelfAccount()
        self._busy_start = process_table.read_busy_seconds()
        self._monotonic_start, self._boot_start = time.monotonic(), _boot_seconds()
        pauses = [source.poll_seconds for source, _ in self._windows]
        self._next_polls = [math.inf if pause is None else self._monotonic_start + pause for pause in pauses]
        needed = [pause for pause in pauses if pause is not None]
        if needed and self._background:
            self._poller = _Poller(self, min(needed))
        return self

    def poll(self) -> None:
        """Let each source read what must be read in between; returns at once when none is due."""
        now = time.monotonic()
        with self._lock:
            for place, (source, window) in enumerate(self._windows):
                if now >= self._next_polls[place]:
                    window.poll()
                    self._next_polls[place] = now + (source.poll_seconds or math.inf)

    def stop(self, usage: TreeUsage | _Itself | None = ITSELF) -> Measurement:
        """Close the window and return what the work cost.

        Args:
            usage: Account of the process tree that did the work. Left out, the work was this process itself. None
                stands for an account that failed, and is an error: the energy of somebody else's work is not known.

        Raises:
            MeterError: The meter is not running, there is no account, or no source delivered anything.
        """
        if not self._windows or self._self_account is None:
            raise MeterError("this meter is not running", remedy="Call start() first.")
        if self._poller is not None:
            self._poller.stop()
            self._poller = None
        windows, own_account = self._windows, self._self_account
        self._windows, self._self_account = [], None
        if usage is None:
            raise MeterError(
                "the processes of the work could not be accounted for, so its energy is not known"
            )
        duration = time.monotonic() - self._monotonic_start
        asleep = _boot_seconds() - self._boot_start - duration
        if asleep > SUSPENSION_SECONDS:
            self._notes.append(f"machine was suspended for {asleep:.0f} s, not counted")
        busy = process_table.read_busy_seconds()
        load = Load(
            duration_seconds=duration,
            usage=own_account.finish() if isinstance(usage, _Itself) else usage,
            machine_busy_seconds=None
            if busy is None or self._busy_start is None
            else max(0.0, busy - self._busy_start),
            logical_cpu_count=self._cpu_count,
            memory_bytes=self._memory_bytes,
        )
        return self._assemble(windows, load)

    def _assemble(self, windows: list[tuple[Source, Window]], load: Load) -> Measurement:
        components: dict[str, Component] = {}
        covered: set[str] = set()
        boundaries: list[Boundary] = []
        devices: list[str] = []
        for source, window in windows:
            try:
                reading = window.close(load)
            except MeterError as error:
                self._notes.append(f"{source.name} failed: {error.message}")
                continue
            delivered = reading.covered or source.parts
            wanted = {
                name: part for name, part in reading.components.items() if _part_of(name) not in covered
            }
            if not wanted:
                continue
            self._notes.extend(reading.notes)
            components.update(wanted)
            covered |= delivered
            boundaries.append(source.boundary)
            if source.device not in devices:
                devices.append(source.device)
        if not components:
            raise MeterError("no source delivered any joules", remedy=" ".join(self._notes))
        return Measurement(
            components=components,
            duration_seconds=load.duration_seconds,
            boundary=Boundary.widest(boundaries),
            device=_joined(devices),
            zone=self.zone,
            intensity=self._intensity,
            notes=tuple(self._notes),
        )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_exception: object) -> None:
        if self._poller is not None:
            self._poller.stop()
            self._poller = None
        self._windows = []


class _Poller:
    """Polls a meter from a thread, at most once per pause, until it is stopped."""

    def __init__(self, meter: Meter, pause_seconds: float) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(meter, pause_seconds), daemon=True, name="lichen-meter"
        )
        self._thread.start()

    def _run(self, meter: Meter, pause_seconds: float) -> None:
        while not self._ended.wait(pause_seconds):
            meter.poll()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()


def meter_self(sources: Sequence[Source] | None = None, zone: str | None = None) -> Meter:
    """Return a running meter over this process itself: what Lichen's own work costs.

    Call ``stop()`` without an account to end it.
    """
    return Meter(sources, zone).start()


def _part_of(component: str) -> str:
    """Return the part of the machine a component belongs to: idle power is reported with the processor's."""
    return "cpu" if component == "idle" else component


def _joined(devices: list[str]) -> str:
    """Name as many devices as fit, each whole: half a count would be a wrong count."""
    text = devices[0][:NAME_LENGTH_MAX]
    for device in devices[1:]:
        if len(text) + len(device) + 3 <= NAME_LENGTH_MAX:
            text = f"{text} + {device}"
    return text


def _boot_seconds() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
