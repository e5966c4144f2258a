"""A run inside a run: each knows the other, and no joule is counted twice.

The outer run names itself to everything it starts by two variables. An inner ``lichen run`` records whom it is part
of, and leaves a note in the outer run's scratch directory when it ends. The outer run's meter has seen the inner one's
processes as well, so the outer record takes what the notes say off its own figure (``own_share``): then each record
holds its own share, and the sum over all records is what was spent, whether or not the outer run is ever recorded.

Rules upheld: nothing an inner run does can make the outer one fail; a note appears whole or not at all; a variable that
outlived its run (in a daemon, in a terminal multiplexer) still names the parent, and nothing is written for it.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from lichen.encoding.foreign_json import read_json
from lichen.energy.measurement import RELATIVE_U95_MAX, Component, Measurement, Method
from lichen.errors import LichenError

__all__ = [
    "RUN_DIRECTORY",
    "RUN_ID",
    "NestedRun",
    "SurroundingRun",
    "leave_note",
    "mark",
    "nested_runs",
    "own_share",
]
__all__ += ["surrounding_run"]

RUN_ID: Final = "LICHEN_RUN_ID"
RUN_DIRECTORY: Final = "LICHEN_RUN_DIR"
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NOTES_MAX: Final = 100_000  # notes read; a run that starts more runs than this is summed up to here
_NOTE_BYTES_MAX: Final = 2**16  # (= 65536)


@dataclass(frozen=True)
class SurroundingRun:
    """The run that this one is part of.

    Args:
        run_id: Its id.
        directory: Its scratch directory; None when it has ended.
    """

    run_id: str
    directory: Path | None


@dataclass(frozen=True)
class NestedRun:
    """What an inner run leaves to the outer one.

    Args:
        run_id: Id of the inner run.
        status: How it ended, as in its record.
        record: Index of its entry; None when it is spooled.
        energy: ``Measurement.to_record()`` of what it cost by itself and through runs inside it; None on a hit.
    """

    run_id: str
    status: str
    record: int | None
    energy: Mapping[str, Any] | None


def mark(environment: MutableMapping[str, str], run_id: str, directory: Path) -> None:
    """Name a run to everything started with these variables.

    Args:
        environment: Variables of the command; changed in place.
        run_id: Id of the run: letters, digits, ``.``, ``_`` and ``-``, at most 64.
        directory: Its scratch directory, which exists as long as it runs.
    """
    if _ID.fullmatch(run_id) is None:
        raise ValueError(f"{run_id!r} is no id of a run")
    environment[RUN_ID] = run_id
    environment[RUN_DIRECTORY] = str(directory)


def surrounding_run(environment: Mapping[str, str] | None = None) -> SurroundingRun | None:
    """Find the run that this process is part of.

    Args:
        environment: Variables to look at; ours by default.

    Returns:
        None when there is none, or the variable holds no id.
    """
    variables = os.environ if environment is None else environment
    run_id = variables.get(RUN_ID, "")
    if _ID.fullmatch(run_id) is None:
        return None
    directory = Path(variables.get(RUN_DIRECTORY, ""))
    return SurroundingRun(run_id, directory if _is_scratch(directory) else None)


def leave_note(surrounding: SurroundingRun, nested: NestedRun) -> bool:
    """Tell the outer run what this one was.

    Returns:
        Whether the note was left; not when the outer run has ended or its disk is full.
    """
    if surrounding.directory is None or _ID.fullmatch(nested.run_id) is None:
        return False
    place = _notes_directory(surrounding.directory) / f"{nested.run_id}.json"
    temporary = place.with_suffix(".part")
    try:
        place.parent.mkdir(mode=0o700, exist_ok=True)
        temporary.write_text(json.dumps(asdict(nested)), encoding="utf-8")
        temporary.replace(place)
    except (OSError, TypeError, ValueError):
        return False
    return True


def nested_runs(directory: Path) -> tuple[NestedRun, ...]:
    """What inner runs have left, by id.

    Args:
        directory: Scratch directory of the outer run.

    Returns:
        One for each note that can be read; others are passed over.
    """
    found = []
    try:
        paths = sorted(_notes_directory(directory).glob("*.json"))[:_NOTES_MAX]
    except OSError:
        return ()
    for path in paths:
        try:
            with path.open("rb") as file:
                value = read_json(file.read(_NOTE_BYTES_MAX))
            record = value["record"]
            nested = NestedRun(
                path.stem,
                str(value["status"]),
                record if isinstance(record, int) else None,
                value["energy"] if isinstance(value["energy"], dict) else None,
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue
        found.append(nested)
    return tuple(found)


def own_share(total: Measurement, nested: Iterable[NestedRun]) -> Measurement:
    """What a run cost by itself: all that was measured around it, less what inner runs record.

    Component by component; a component never falls below zero, since two meters over the same time need not agree to
    the joule. Where both have the same method their errors are the same error and the relative uncertainty stays;
    otherwise absolute uncertainties add.

    Args:
        total: Measured over the whole process tree, inner runs included.
        nested: What they left.

    Returns:
        The difference, with a note that says how many joules of how many runs were taken off; ``total`` when there are none.
    """
    inner = [measurement for measurement in map(_measurement, nested) if measurement is not None]
    if not inner:
        return total
    parts = dict(total.components)
    inner_joules = 0.0
    for measurement in inner:
        for name, part in measurement.components.items():
            if name in parts:
                parts[name] = _subtract(parts[name], part)
                inner_joules += part.energy_joules
    noun = "run" if len(inner) == 1 else "runs"
    return Measurement(
        parts,
        total.duration_seconds,
        total.boundary,
        total.device,
        total.zone,
        total.intensity,
        (*total.notes, f"without {inner_joules:.6g} J of {len(inner)} inner {noun}"),
    )


def _subtract(whole: Component, part: Component) -> Component:
    left = max(0.0, whole.energy_joules - part.energy_joules)
    if whole.method == part.method:
        relative = max(whole.relative_u95, part.relative_u95)
    elif left > 0:
        spread = whole.energy_joules * whole.relative_u95 + part.energy_joules * part.relative_u95
        relative = min(spread / left, RELATIVE_U95_MAX)
    else:
        relative = RELATIVE_U95_MAX
    return Component(left, relative, Method.weakest((whole.method, part.method)))


def _measurement(nested: NestedRun) -> Measurement | None:
    if nested.energy is None:
        return None
    try:
        return Measurement.from_record(nested.energy)
    except LichenError:
        return None


def _notes_directory(directory: Path) -> Path:
    return directory / "nested"


def _is_scratch(directory: Path) -> bool:
    """Whether a directory is there and ours; a variable can say anything."""
    if not directory.is_absolute():
        return False
    try:
        status = directory.lstat()
    except (OSError, ValueError):
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
