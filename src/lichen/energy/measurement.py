"""``Measurement``: joules by component, with method, boundary, uncertainty and place.

Rules upheld here:

* An energy is never a bare number. Each component states a method and a 95 % relative uncertainty.
* **Correlation.** Errors of components, and of measurements that are added, are taken as *fully correlated*: absolute
  uncertainties add. A wrong rated power or a miscalibrated sensor does not average out over repeated runs, so this
  never understates; if each part's interval holds the truth, the sum's interval holds it too. Factors of a *product*
  (joules and grid intensity, rated power and load curve) come from different origins and are taken as independent:
  relative uncertainties add in quadrature (:func:`combine_factors`).
* The sum is as good as its weakest method, and as wide as its widest boundary.
* Nothing is defaulted silently: unknown places stay ``None``; NaN, infinite and negative energies are refused.

Source: JCGM 100:2008 (GUM), 5.1.2 for independent factors, 5.2.2 note 1 for fully correlated terms.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Self

from lichen.energy.grid import Intensity
from lichen.errors import EncodingError, MeterError
from lichen.units import format_energy

__all__ = ["Boundary", "Component", "Measurement", "Method", "combine_factors", "combine_terms"]

ENERGY_JOULES_MAX: Final = 1e18  # 278 TWh, a day of the world's electricity four times over
DURATION_SECONDS_MAX: Final = 1e12  # thirty thousand years
DURATION_SECONDS_MIN: Final = (
    1e-9  # what clocks tell apart; shorter ones count as this, so that no power is infinite
)
RELATIVE_U95_MAX: Final = 100.0  # an interval of a hundred times the value says nothing any more
COMPONENT_COUNT_MAX: Final = 16
NAME_LENGTH_MAX: Final = 64
NOTE_COUNT_MAX: Final = 8
RECORD_DIGITS: Final = 6  # significant digits of joules and seconds in a record
RECORD_DIGITS_TOTAL: Final = 9  # of their sum, which is exact for parts within a thousandth of each other
_SUM_TOLERANCE: Final = 1e-4  # rounding to six digits, for up to sixteen parts


class Method(StrEnum):
    """How joules were found out, best first."""

    METER = "meter"
    """A meter outside the machine."""
    COUNTER = "counter"
    """An energy counter of the hardware."""
    SAMPLED = "sampled"
    """Power read at intervals and integrated."""
    ALLOCATED = "allocated"
    """A share of a figure that several users caused together."""
    MODEL = "model"
    """Load, time and rated power; no sensor."""
    DECLARED = "declared"
    """Said by somebody."""

    @property
    def rank(self) -> int:
        """0 for the best method; larger is weaker."""
        return _METHOD_ORDER.index(self)

    @classmethod
    def weakest(cls, methods: Iterable[Method]) -> Method:
        """Return the weakest of the methods given; at least one."""
        return max(methods, key=lambda method: method.rank)


class Boundary(StrEnum):
    """What the joules include, narrowest first."""

    PROCESS = "process"
    """A process tree's share of processor, memory and idle power."""
    DEVICE = "device"
    """Whole devices, such as a graphics card, for the time they were held."""
    NODE = "node"
    """The whole machine at its plug."""
    SITE = "site"
    """The machine with its share of cooling and power supply of the building."""

    @property
    def rank(self) -> int:
        """0 for the narrowest boundary; larger is wider."""
        return _BOUNDARY_ORDER.index(self)

    @classmethod
    def widest(cls, boundaries: Iterable[Boundary]) -> Boundary:
        """Return the widest of the boundaries given; at least one."""
        return max(boundaries, key=lambda boundary: boundary.rank)


_METHOD_ORDER: Final = tuple(Method)
_BOUNDARY_ORDER: Final = tuple(Boundary)


def combine_factors(*relative_u95: float) -> float:
    """Return the relative uncertainty of a product or quotient of independent factors.

    Args:
        relative_u95: 95 % relative uncertainties of the factors, each >= 0.

    Returns:
        Root of the sum of squares; 0.0 without arguments.
    """
    return math.hypot(*relative_u95)


def combine_terms(terms: Iterable[tuple[float, float]]) -> float:
    """Return the relative uncertainty of a sum of fully correlated terms.

    Args:
        terms: Pairs of (value >= 0, relative uncertainty >= 0).

    Returns:
        Sum of absolute uncertainties over the sum of values; the largest uncertainty when all values are zero.
    """
    pairs = tuple(terms)
    total = math.fsum(value for value, _ in pairs)
    if total == 0:
        return max((relative for _, relative in pairs), default=0.0)
    return math.fsum(value * relative for value, relative in pairs) / total


def _check_quantity(value: object, what: str, maximum: float = math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MeterError(f"{what} must be a number, got {value!r}")
    if (
        not 0 <= value <= min(maximum, sys.float_info.max)
    ):  # False for NaN, and exact for integers of any length
        raise MeterError(
            f"{what} must be finite and not negative{'' if maximum == math.inf else f' and at most {maximum:g}'}, got {value!r}",
            remedy="A figure that could not be measured is left out, never written as NaN or as a negative number.",
        )
    return float(value)


def _check_name(value: str, what: str) -> None:
    if not value or len(value) > NAME_LENGTH_MAX or not value.isprintable():
        raise MeterError(f"{what} must be 1 to {NAME_LENGTH_MAX} printable characters, got {value!r}")


@dataclass(frozen=True, slots=True)
class Component:
    """Joules of one part of a machine.

    Args:
        energy_joules: Finite, >= 0.
        relative_u95: Half-width of the 95 % interval as a share of ``energy_joules``; 0 <= u <= 100.
        method: How the joules were found out.

    Raises:
        MeterError: A value is NaN, infinite, negative or beyond its bound.
    """

    energy_joules: float
    relative_u95: float
    method: Method

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "energy_joules", _check_quantity(self.energy_joules, "energy in joules", ENERGY_JOULES_MAX)
        )
        object.__setattr__(
            self, "relative_u95", _check_quantity(self.relative_u95, "relative uncertainty", RELATIVE_U95_MAX)
        )
        try:
            object.__setattr__(self, "method", Method(self.method))
        except ValueError:
            known = ", ".join(Method)
            raise MeterError(
                f"{self.method!r} is not a method of measuring energy", remedy=f"Known: {known}."
            ) from None

    @classmethod
    def from_bounds(cls, low_joules: float, high_joules: float, method: Method) -> Self:
        """Return the component whose 95 % interval is exactly ``[low_joules, high_joules]``.

        Raises:
            MeterError: Bounds out of order, or not finite and >= 0.
        """
        low = _check_quantity(low_joules, "lower bound in joules")
        high = _check_quantity(high_joules, "upper bound in joules")
        if low > high:
            raise MeterError(f"lower bound {low:g} J exceeds upper bound {high:g} J")
        middle = low + (high - low) / 2
        return cls(middle, 0.0 if middle == 0 else (high - low) / 2 / middle, method)

    @property
    def low_joules(self) -> float:
        """Lower end of the 95 % interval, never below zero."""
        return max(0.0, self.energy_joules * (1 - self.relative_u95))

    @property
    def high_joules(self) -> float:
        """Upper end of the 95 % interval."""
        return self.energy_joules * (1 + self.relative_u95)

    def with_gap(self, seen_seconds: float, total_seconds: float) -> Component:
        """Extend joules seen for part of a time to all of it.

        The unseen time is taken to have gone on as the seen one did, and its joules may have been anything from none
        to twice that.

        Args:
            seen_seconds: Time the joules were counted over, > 0.
            total_seconds: Time the work took, >= ``seen_seconds``.

        Raises:
            MeterError: Nothing was seen, or times are out of order.
        """
        if not 0 < seen_seconds <= total_seconds:
            raise MeterError(f"{seen_seconds:g} s seen of {total_seconds:g} s leave nothing to extend")
        unseen = self.energy_joules * (total_seconds - seen_seconds) / seen_seconds
        return self + Component(unseen, 1.0, self.method) if unseen > 0 else self

    def __add__(self, other: Component) -> Component:
        """Add joules of the same part; errors fully correlated, the weaker method names the sum."""
        return Component(
            self.energy_joules + other.energy_joules,
            combine_terms((c.energy_joules, c.relative_u95) for c in (self, other)),
            Method.weakest((self.method, other.method)),
        )


@dataclass(frozen=True)
class Measurement:
    """What one piece of work cost.

    Args:
        components: Joules by part: ``cpu``, ``idle`` (the share of standing power of the capacity used), ``ram``,
            ``gpu``, ``disk``, ``network``. At least one.
        duration_seconds: Seconds of work, >= 0; of measurements that are added, the sum.
        boundary: What the joules include.
        device: What did the work, such as ``AMD EPYC x2``; never a host name.
        zone: Grid zone as in ``grid.lookup``, or None when the place is unknown.
        intensity: Signal that held while the work was done, when one was read; else carbon follows from ``zone``.
        notes: Short sentences on what was odd, such as a counter that vanished.

    Raises:
        MeterError: A value breaks its bound.
    """

    components: Mapping[str, Component]
    duration_seconds: float
    boundary: Boundary
    device: str
    zone: str | None = None
    intensity: Intensity | None = None
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not 1 <= len(self.components) <= COMPONENT_COUNT_MAX:
            raise MeterError(
                f"a measurement has 1 to {COMPONENT_COUNT_MAX} components, got {len(self.components)}"
            )
        for name in self.components:
            _check_name(name, "name of a component")
        _check_name(self.device, "device")
        if self.zone is not None:
            _check_name(self.zone, "grid zone")
        frozen = MappingProxyType(dict(sorted(self.components.items())))
        object.__setattr__(self, "components", frozen)
        object.__setattr__(
            self,
            "duration_seconds",
            _check_quantity(self.duration_seconds, "duration in seconds", DURATION_SECONDS_MAX),
        )
        try:
            object.__setattr__(self, "boundary", Boundary(self.boundary))
        except ValueError:
            known = ", ".join(Boundary)
            raise MeterError(f"{self.boundary!r} is not a boundary", remedy=f"Known: {known}.") from None
        object.__setattr__(self, "notes", tuple(dict.fromkeys(self.notes))[:NOTE_COUNT_MAX])

    def __hash__(self) -> int:
        return hash(
            (tuple(self.components.items()), self.duration_seconds, self.boundary, self.device, self.zone)
        )

    @property
    def energy_joules(self) -> float:
        """Sum over the components."""
        return math.fsum(part.energy_joules for part in self.components.values())

    @property
    def relative_u95(self) -> float:
        """95 % relative uncertainty of the sum; components fully correlated."""
        return combine_terms((part.energy_joules, part.relative_u95) for part in self.components.values())

    @property
    def low_joules(self) -> float:
        """Lower end of the 95 % interval, never below zero."""
        return max(0.0, self.energy_joules * (1 - self.relative_u95))

    @property
    def high_joules(self) -> float:
        """Upper end of the 95 % interval."""
        return self.energy_joules * (1 + self.relative_u95)

    @property
    def method(self) -> Method:
        """The weakest method among components that cost anything."""
        paid = [part.method for part in self.components.values() if part.energy_joules > 0]
        return Method.weakest(paid or [part.method for part in self.components.values()])

    @property
    def power_watts(self) -> float | None:
        """Mean power; None when the duration is zero."""
        if self.duration_seconds <= 0:
            return None
        return self.energy_joules / max(self.duration_seconds, DURATION_SECONDS_MIN)

    def __add__(self, other: Measurement) -> Measurement:
        """Add two pieces of work: joules and durations add, errors fully correlated.

        Device and zone survive when they are equal; otherwise the device reads ``several`` and the zone is unknown.
        Carbon of work in different zones is therefore summed per measurement, before the joules are.
        """
        if not isinstance(other, Measurement):
            return NotImplemented
        parts = dict(self.components)
        for name, part in other.components.items():
            parts[name] = parts[name] + part if name in parts else part
        return Measurement(
            components=parts,
            duration_seconds=self.duration_seconds + other.duration_seconds,
            boundary=Boundary.widest((self.boundary, other.boundary)),
            device=self.device if self.device == other.device else "several",
            zone=self.zone if self.zone == other.zone else None,
            intensity=self.intensity
            if self.intensity == other.intensity and self.zone == other.zone
            else None,
            notes=self.notes + other.notes,
        )

    def scaled(self, share: float, relative_u95: float = 0.0) -> Measurement:
        """Return a share of this measurement.

        Args:
            share: Factor >= 0 on every component; the duration stays.
            relative_u95: Uncertainty of the share itself, independent of that of the joules.

        Returns:
            The share; any factor but one is an allocation, so methods better than ``allocated`` become that.

        Raises:
            MeterError: The share is NaN, infinite or negative.
        """
        _check_quantity(share, "share")
        _check_quantity(relative_u95, "relative uncertainty of a share", RELATIVE_U95_MAX)
        exact = share == 1 and relative_u95 == 0

        def scale(part: Component) -> Component:
            method = part.method if exact else Method.weakest((part.method, Method.ALLOCATED))
            u95 = min(combine_factors(part.relative_u95, relative_u95), RELATIVE_U95_MAX)
            return Component(part.energy_joules * share, u95, method)

        return replace(self, components={name: scale(part) for name, part in self.components.items()})

    def to_record(self) -> dict[str, Any]:
        """Return the compact form that a run record carries under ``energy``.

        Joules of parts and seconds keep six significant digits, uncertainties three; the whole is computed from the
        rounded parts, so that reading a record and writing it again changes nothing. A part is ``[joules, u95]``, or
        ``[joules, u95, method]`` where its method is not the one of the whole. ``zone`` is absent when unknown.
        """
        parts = {name: self._part_to_record(part) for name, part in self.components.items()}
        rounded = [(float(part[0]), float(part[1])) for part in parts.values()]
        record: dict[str, Any] = {
            "joules": _rounded(math.fsum(joules for joules, _ in rounded), RECORD_DIGITS_TOTAL),
            "u95": _rounded(combine_terms(rounded), 3),
            "method": str(self.method),
            "boundary": str(self.boundary),
            "seconds": _rounded(self.duration_seconds, RECORD_DIGITS),
            "device": self.device,
            "parts": parts,
        }
        if self.zone is not None:
            record["zone"] = self.zone
        if self.intensity is not None:
            record["intensity"] = self.intensity.to_record()
        if self.notes:
            record["notes"] = list(self.notes)
        return record

    def _part_to_record(self, part: Component) -> list[Any]:
        compact: list[Any] = [_rounded(part.energy_joules, RECORD_DIGITS), _rounded(part.relative_u95, 3)]
        return compact if part.method is self.method else [*compact, str(part.method)]

    @classmethod
    def from_record(cls, record: object) -> Self:
        """Read what :meth:`to_record` wrote.

        Raises:
            EncodingError: A field is missing, unknown, of the wrong type or out of bounds, or the parts do not add up
                to the whole.
        """
        if not isinstance(record, Mapping):
            raise EncodingError(f"energy must be an object, got {type(record).__name__}")
        unknown = set(record) - _RECORD_FIELDS
        missing = _RECORD_FIELDS_REQUIRED - set(record)
        if unknown or missing:
            raise EncodingError(f"energy has unknown fields {sorted(unknown)!r}, lacks {sorted(missing)!r}")
        parts = record["parts"]
        notes = record.get("notes", [])
        if not isinstance(parts, Mapping) or not all(isinstance(name, str) for name in parts):
            raise EncodingError("energy.parts must be an object of named parts")
        if (
            not isinstance(notes, list)
            or len(notes) > NOTE_COUNT_MAX
            or not all(isinstance(n, str) for n in notes)
        ):
            raise EncodingError("energy.notes must be a list of at most eight texts")
        for name in ("device", "method", "boundary", "zone"):
            if name in record and not isinstance(record[name], str):
                raise EncodingError(f"energy.{name} must be text")
        intensity = record.get("intensity")
        try:
            method = Method(record["method"])
            measurement = cls(
                components={name: _part_from_record(name, part, method) for name, part in parts.items()},
                duration_seconds=_check_quantity(record["seconds"], "energy.seconds"),
                boundary=Boundary(record["boundary"]),
                device=record["device"],
                zone=record.get("zone"),
                intensity=None if intensity is None else Intensity.from_record(intensity),
                notes=tuple(notes),
            )
            stated = _check_quantity(record["joules"], "energy.joules")
            stated_u95 = _check_quantity(record["u95"], "energy.u95", RELATIVE_U95_MAX)
        except (MeterError, ValueError) as error:
            raise EncodingError(f"energy is malformed: {getattr(error, 'message', error)}") from error
        if not math.isclose(stated, measurement.energy_joules, rel_tol=_SUM_TOLERANCE, abs_tol=1e-12):
            raise EncodingError(
                f"energy.joules says {stated:g}, its parts add up to {measurement.energy_joules:g}"
            )
        if not math.isclose(stated_u95, measurement.relative_u95, rel_tol=0.02, abs_tol=1e-9):
            raise EncodingError(
                f"energy.u95 says {stated_u95:g}, its parts give {measurement.relative_u95:g}"
            )
        if measurement.method is not method:
            raise EncodingError(f"energy.method says {method}, its parts give {measurement.method}")
        return measurement

    def describe(self) -> str:
        """Return one line for people, such as ``1.84 ± 0.20 kJ (model, process)``."""
        return f"{format_energy(self.energy_joules, self.relative_u95)} ({self.method}, {self.boundary})"


_RECORD_FIELDS_REQUIRED: Final = frozenset(
    {"joules", "u95", "method", "boundary", "seconds", "device", "parts"}
)
_RECORD_FIELDS: Final = _RECORD_FIELDS_REQUIRED | {"zone", "intensity", "notes"}


def _part_from_record(name: str, part: object, method: Method) -> Component:
    if not isinstance(part, list) or len(part) not in {2, 3}:
        raise EncodingError(
            f"energy.parts.{name} must be [joules, u95] or [joules, u95, method], got {part!r}"
        )
    if len(part) == 3 and not isinstance(part[2], str):
        raise EncodingError(f"energy.parts.{name} has a method that is not text")
    return Component(part[0], part[1], Method(part[2]) if len(part) == 3 else method)


def _rounded(value: float, digits: int) -> float | int:
    """Round to significant digits; whole numbers become int, which canonical JSON writes shortest."""
    if value == 0:
        return 0
    rounded = float(f"{value:.{digits - 1}e}")
    return int(rounded) if rounded.is_integer() and rounded < 2**53 else rounded
