"""How much CO2 equivalent a kilowatt hour carries, by place: the shipped yearly table, and what is unknown.

Rules upheld here:

* The place is never guessed. ``lookup(None)`` answers for the world, with a range from the cleanest to the dirtiest
  grid, and ``known`` is false.
* Every figure carries signal (average or marginal), vintage, source, licence, and whether it was live or bundled.
* A zone that is not in the table is an error that names the nearest zones; it is not silently the world.

Source: Ember, Yearly Electricity Data (CC BY 4.0); values for 2024, for smaller grids the newest at hand.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from lichen.energy.tables import read_table
from lichen.errors import EncodingError, MeterError, NotFoundError

__all__ = ["ATTRIBUTION", "WORLD", "Intensity", "lookup", "zones"]

WORLD: Final = "WORLD"
INTENSITY_MAX_GCO2E_PER_KWH: Final = 1500.0  # above lignite in the least efficient plants (about 1,200)
ATTRIBUTION: Final = "Ember, Yearly Electricity Data, CC BY 4.0"
"""What to print wherever figures of the table are shown."""


@dataclass(frozen=True, slots=True)
class Intensity:
    """Carbon intensity of electricity at a place.

    Args:
        zone: ISO 3166-1 alpha-2 code, ``EU``, ``WORLD`` or a provider's own zone name.
        g_per_kwh: gCO2e per kWh, 0 to 1500.
        low_g_per_kwh: Lower end of the 95 % range.
        high_g_per_kwh: Upper end of the 95 % range.
        vintage: Year of the data (yearly tables) or ISO 8601 time (live signals).
        source: Who says so, with licence.
        live: True when read from a running service, False when bundled.
        signal: ``average`` or ``marginal``.

    Raises:
        MeterError: Figures are not finite, out of order or impossible.
    """

    zone: str
    g_per_kwh: float
    low_g_per_kwh: float
    high_g_per_kwh: float
    vintage: str
    source: str
    live: bool = False
    signal: str = "average"

    def __post_init__(self) -> None:
        if (
            not 0
            <= self.low_g_per_kwh
            <= self.g_per_kwh
            <= self.high_g_per_kwh
            <= INTENSITY_MAX_GCO2E_PER_KWH
        ):
            raise MeterError(
                f"intensity of {self.zone} must satisfy 0 <= low <= value <= high <= {INTENSITY_MAX_GCO2E_PER_KWH:g} gCO2e/kWh, "
                f"got {self.low_g_per_kwh!r}, {self.g_per_kwh!r}, {self.high_g_per_kwh!r}",
                remedy="Check the unit: g per kWh, not kg per kWh and not g per MWh.",
            )
        if self.signal not in {"average", "marginal"}:
            raise MeterError(f"signal must be 'average' or 'marginal', got {self.signal!r}")

    @property
    def known(self) -> bool:
        """False when the place is unknown and this is the world's range."""
        return self.zone != WORLD

    @property
    def range_g_per_kwh(self) -> tuple[float, float]:
        """Lower and upper end of the 95 % range."""
        return (self.low_g_per_kwh, self.high_g_per_kwh)

    def describe(self) -> str:
        """Return one line for people, naming place, range, vintage and origin."""
        place = self.zone if self.known else "unknown place, so the world's"
        origin = "live" if self.live else "bundled"
        return (
            f"{self.g_per_kwh:g} gCO2e/kWh ({place}, range {self.low_g_per_kwh:g} to {self.high_g_per_kwh:g}, "
            f"{self.signal}, {origin}, {self.vintage}, {self.source})"
        )

    def to_record(self) -> dict[str, Any]:
        """Return the form that a measurement carries when a signal was read for it."""
        return {
            "g_per_kwh": self.g_per_kwh,
            "low": self.low_g_per_kwh,
            "high": self.high_g_per_kwh,
            "zone": self.zone,
            "signal": self.signal,
            "live": self.live,
            "vintage": self.vintage,
            "source": self.source,
        }

    @classmethod
    def from_record(cls, record: object) -> Self:
        """Read what :meth:`to_record` wrote.

        Raises:
            EncodingError: A field is missing, unknown, of the wrong type or impossible.
        """
        if not isinstance(record, Mapping) or set(record) != _RECORD_FIELDS:
            raise EncodingError(
                f"energy.intensity must have exactly the fields {', '.join(sorted(_RECORD_FIELDS))}"
            )
        figures = [record[name] for name in ("g_per_kwh", "low", "high")]
        if not all(isinstance(figure, int | float) and not isinstance(figure, bool) for figure in figures):
            raise EncodingError("energy.intensity must state numbers for g_per_kwh, low and high")
        texts = [record[name] for name in ("zone", "signal", "vintage", "source")]
        if not all(isinstance(text, str) for text in texts) or not isinstance(record["live"], bool):
            raise EncodingError("energy.intensity has a value of the wrong type")
        try:
            return cls(
                zone=record["zone"],
                g_per_kwh=figures[0],
                low_g_per_kwh=figures[1],
                high_g_per_kwh=figures[2],
                vintage=record["vintage"],
                source=record["source"],
                live=record["live"],
                signal=record["signal"],
            )
        except MeterError as error:
            raise EncodingError(f"energy.intensity is malformed: {error.message}") from error


_RECORD_FIELDS: Final = frozenset({"g_per_kwh", "low", "high", "zone", "signal", "live", "vintage", "source"})


def lookup(zone: str | None) -> Intensity:
    """Return the yearly average intensity of a place from the shipped table.

    Args:
        zone: Two-letter country code, ``EU`` or ``WORLD`` in any case; None when the place is unknown.

    Returns:
        The zone's figure with its range, or the world's (``known`` false) for None.

    Raises:
        NotFoundError: A zone was named that the table does not hold; the remedy lists the nearest.
    """
    table = _table()
    if zone is None:
        return table[WORLD]
    name = zone.strip().upper()
    found = table.get(name)
    if found is None:
        import difflib

        named = {row.lower(): code for code, row in _names().items()}
        near = difflib.get_close_matches(name, table, n=4, cutoff=0.5)
        near += [named[text] for text in difflib.get_close_matches(zone.lower(), named, n=3, cutoff=0.6)]
        nearest = ", ".join(f"{code} ({_names()[code]})" for code in dict.fromkeys(near)) or ", ".join(
            sorted(table)
        )
        raise NotFoundError(
            f"grid zone {zone!r} is not in the shipped table",
            remedy=f"Nearest: {nearest}. Leave the zone out if the place is unknown.",
        )
    return found


def zones() -> Mapping[str, str]:
    """Return every zone of the shipped table with its English name."""
    return dict(_names())


@functools.cache
def _names() -> dict[str, str]:
    return {row["zone"]: row["name"] for row in read_table("grid_yearly.csv")}


@functools.cache
def _table() -> dict[str, Intensity]:
    return {
        row["zone"]: Intensity(
            zone=row["zone"],
            g_per_kwh=float(row["g_per_kwh"]),
            low_g_per_kwh=float(row["low"]),
            high_g_per_kwh=float(row["high"]),
            vintage=row["vintage"],
            source=f"{row['source']}, {row['licence']}",
            signal=row["signal"],
        )
        for row in read_table("grid_yearly.csv")
    }
