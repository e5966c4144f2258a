"""The port every source of joules implements, and the registry that names the best one available.

A source opens *windows*; a window, when closed with what the work used, returns its components. Rules upheld here:

* Whoever chooses says why: :func:`choose_sources` returns a sentence for each part of the machine.
* A source that cannot be read says how to grant the permission; falling back to a weaker one is never silent.
* Windows may overlap; each holds its own state, so several runs on one machine do not disturb each other.

Third parties add a source by the entry point group ``lichen.energy_sources``: a callable without arguments that
returns a :class:`Source`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

from lichen.energy.attribution import TreeUsage
from lichen.energy.measurement import Boundary, Component, Method
from lichen.errors import MeterError

__all__ = ["SOURCES", "Choice", "Load", "Reading", "Source", "Window", "choose_sources", "named_source"]

ENTRY_POINT_GROUP: Final = "lichen.energy_sources"


@dataclass(frozen=True, slots=True)
class Load:
    """What the work used while a window was open, and what the machine did beside it.

    Args:
        duration_seconds: Length of the window.
        usage: Account of the process tree.
        machine_busy_seconds: Processor seconds all of the machine was busy, or None when that cannot be read.
        logical_cpu_count: Processors the system shows.
        memory_bytes: Memory of the machine, or None when unknown.
    """

    duration_seconds: float
    usage: TreeUsage
    machine_busy_seconds: float | None
    logical_cpu_count: int
    memory_bytes: int | None

    @property
    def capacity_seconds(self) -> float:
        """Processor seconds the machine could have given."""
        return self.duration_seconds * self.logical_cpu_count

    @property
    def capacity_share(self) -> float:
        """Share of the machine's whole processor capacity that the work used, 0 to 1."""
        return min(1.0, self.usage.cpu_seconds / self.capacity_seconds) if self.capacity_seconds > 0 else 0.0

    @property
    def busy_share(self) -> float:
        """Share of the machine's busy processor time that the work used, 0 to 1; 1 when that time is unknown."""
        if self.usage.cpu_seconds <= 0:
            return 0.0
        busy = max(self.machine_busy_seconds or 0.0, self.usage.cpu_seconds)
        return self.usage.cpu_seconds / busy

    @property
    def cpu_relative_u95(self) -> float:
        """Relative uncertainty of the processor seconds themselves."""
        seconds = self.usage.cpu_seconds
        if seconds <= 0:
            return 0.0
        return max(self.usage.cpu_seconds_high - seconds, seconds - self.usage.cpu_seconds_low) / seconds


@dataclass(frozen=True, slots=True)
class Reading:
    """What a source found.

    Args:
        components: Joules by part.
        notes: What was odd, in short sentences.
        covered: Parts really covered, where that is less than the source's ``parts``; empty stands for all of them.
    """

    components: Mapping[str, Component]
    notes: tuple[str, ...] = ()
    covered: frozenset[str] = frozenset()


class Window(Protocol):
    """One stretch of time under a source."""

    def poll(self) -> None:
        """Read what must be read in between: counters that wrap, power that is sampled."""
        ...

    def close(self, load: Load) -> Reading:
        """Return the joules of the work since the window was opened.

        Raises:
            MeterError: Nothing usable was read.
        """
        ...


@runtime_checkable
class Source(Protocol):
    """Something that knows joules."""

    @property
    def name(self) -> str:
        """Stable name, as in :data:`SOURCES`."""
        ...

    @property
    def parts(self) -> frozenset[str]:
        """Parts of the machine it covers: ``cpu``, ``ram``, ``gpu``, ``node``."""
        ...

    @property
    def method(self) -> Method:
        """Best method it uses."""
        ...

    @property
    def boundary(self) -> Boundary:
        """What its joules include."""
        ...

    @property
    def device(self) -> str:
        """What it measures, for people; never a host name."""
        ...

    @property
    def basis(self) -> str:
        """What the figures rest on, for people."""
        ...

    @property
    def poll_seconds(self) -> float | None:
        """Longest pause between polls of a window; None when polling is not needed."""
        ...

    def open(self) -> Window:
        """Open a window now.

        Raises:
            MeterError: The source cannot be read; the remedy says how to make it readable.
        """
        ...


def _rapl() -> Source:
    from lichen.energy.processor import Processor
    from lichen.energy.rapl import RaplSource

    return RaplSource.detect(device_name=Processor.detect().label)


def _gpu() -> Source:
    from lichen.energy.gpu import GpuSource

    return GpuSource.detect()


def _load_model() -> Source:
    from lichen.energy.load_model import LoadModelSource

    return LoadModelSource.detect()


SOURCES: Final[Mapping[str, Callable[[], Source]]] = {
    "gpu": _gpu,
    "rapl": _rapl,
    "load-model": _load_model,
}
"""Sources that need no configuration, best first; each call returns a new one or raises MeterError."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Sources that together cover the machine; where two overlap, the earlier one counts.

    Args:
        sources: At least one, best first.
        reasons: A sentence per source on what it is used for, or why it is not.
    """

    sources: tuple[Source, ...]
    reasons: tuple[str, ...] = field(default=())


def named_source(name: str) -> Source:
    """Return a source by name, from the registry or from an installed package.

    Raises:
        MeterError: Unknown name, or the source is not available here.
    """
    factory = SOURCES.get(name)
    if factory is not None:
        return factory()
    from importlib.metadata import entry_points

    installed = entry_points(group=ENTRY_POINT_GROUP)
    if name in installed.names:
        source = installed[name].load()()
        if not isinstance(source, Source):
            raise MeterError(f"{name!r} is installed as a source of joules but does not implement the port")
        return source
    known = ", ".join([*SOURCES, *sorted(installed.names)])
    raise MeterError(f"there is no source of joules called {name!r}", remedy=f"Known: {known}.")


def choose_sources(names: Sequence[str] | None = None) -> Choice:
    """Choose the best available source for each part of the machine.

    Args:
        names: Take exactly these, and fail where one is unavailable; None chooses.

    Raises:
        MeterError: A named source is unknown or unavailable.
    """
    if names is not None:
        return Choice(
            tuple(named_source(name) for name in names), tuple(f"{name}: asked for" for name in names)
        )
    chosen: list[Source] = []
    reasons: list[str] = []
    covered: set[str] = set()
    for name, factory in SOURCES.items():
        try:
            source = factory()
        except MeterError as error:
            reasons.append(f"{name}: {error.message}" + (f" {error.remedy}" if error.remedy else ""))
            continue
        new = source.parts - covered
        chosen.append(source)
        covered |= source.parts
        role = (
            f"{source.method} of {', '.join(sorted(new))}"
            if new
            else "stands by, should a better source fail"
        )
        reasons.append(f"{name}: {role} ({source.device}; {source.basis})")
    return Choice(tuple(chosen), tuple(reasons))
