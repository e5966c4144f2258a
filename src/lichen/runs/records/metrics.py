"""Metrics of a run: what the script logged, what a file says, what the output shows.

``lichen.log`` appends one JSON line per call to ``metrics.jsonl`` in the run's directory, which `lichen run` names in ``LICHEN_RUN_DIR``; outside a
run it does nothing, so a script may keep the call for good. The last value of a name is the run's value.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from lichen.errors import UsageError

__all__ = [
    "METRICS_FILE",
    "RUN_DIRECTORY",
    "append_metrics",
    "check_metrics",
    "collect_metrics",
    "misses_target",
    "parse_pattern",
    "parse_target",
]

RUN_DIRECTORY = "LICHEN_RUN_DIR"
METRICS_FILE = "metrics.jsonl"
_METRICS_MAX = 64
_METRICS_NAMED_MAX = 4
_FILE_BYTES_MAX = 16 * 1024 * 1024
_NAME = re.compile(r"[A-Za-z_][\w./@-]{0,63}")


def append_metrics(
    step: int | None, values: Mapping[str, float], environ: Mapping[str, str] | None = None
) -> bool:
    """Write one line of metrics for the run this process belongs to.

    Args:
        step: Step or epoch, when the caller counts them.
        values: Numbers by name; anything with ``__float__`` is taken.
        environ: Environment to read; the process's own when None.

    Returns:
        False outside a run; True when the line was written.

    Raises:
        UsageError: A name or value that cannot be a metric.
    """
    directory = (os.environ if environ is None else environ).get(RUN_DIRECTORY)
    row: dict[str, float | int] = {**check_metrics(values)}
    if not directory:
        return False
    if step is not None:
        row["step"] = int(step)
    line = (json.dumps(row, separators=(",", ":")) + "\n").encode()
    try:
        handle = os.open(
            Path(directory, METRICS_FILE), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
    except OSError:
        return False  # the run's directory is gone; a metric must never stop a training
    try:
        os.write(handle, line)
    finally:
        os.close(handle)
    return True


def check_metrics(values: Mapping[str, object]) -> dict[str, float]:
    """Turn metrics into numbers.

    Args:
        values: Anything with ``__float__`` by name.

    Raises:
        UsageError: A name or value that cannot be a metric.
    """
    return {name: _number(name, value) for name, value in values.items()}


def _number(name: str, value: object) -> float:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a metric", remedy="Use letters, digits and _ . / @ - up to 64 characters."
        )
    try:
        number = float(value)  # type: ignore[arg-type]  # tensors and NumPy scalars convert, the rest raises
    except (TypeError, ValueError):
        raise UsageError(f"metric {name} has the value {value!r}, which is no number") from None
    return number


def parse_pattern(text: str) -> tuple[str, re.Pattern[str]]:
    """Read ``NAME=REGEX``; the first group, or the whole match, is the value.

    Raises:
        UsageError: No name, or not a regular expression.
    """
    name, equals, pattern = text.partition("=")
    if not equals or not _NAME.fullmatch(name):
        raise UsageError(
            f"--metric {text!r} is not NAME=REGEX", remedy=r"For example: --metric 'accuracy=acc: ([\d.]+)'"
        )
    try:
        return name, re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--metric {name}: {pattern!r} is not a regular expression: {error}") from error


def parse_target(text: str) -> tuple[str, float]:
    """Read ``NAME=VALUE``, or ``NAME<=VALUE`` for a metric that should be small.

    Returns:
        Name and bound; the name of an upper bound ends in ``<``.

    Raises:
        UsageError: Not of that form.
    """
    match = re.fullmatch(r"([A-Za-z_][\w./@-]*)\s*(<=|>=|=)\s*([-+.\deE]+)", text)
    try:
        bound = float(match[3]) if match else None
    except ValueError:
        bound = None
    if match is None or bound is None:
        raise UsageError(
            f"--target {text!r} is not NAME=NUMBER",
            remedy="For example: --target accuracy=0.97, or loss<=0.1",
        )
    return match[1] + ("<" if match[2] == "<=" else ""), bound


def misses_target(metrics: Mapping[str, float], target: Mapping[str, float]) -> str | None:
    """Return the first metric that misses its target, in words, or None."""
    for name, bound in target.items():
        is_upper = name.endswith("<")
        value = metrics.get(name.rstrip("<"))
        if value is None:
            known = ", ".join(list(metrics)[:_METRICS_NAMED_MAX]) or "none"
            return f"there is no metric {name.rstrip('<')} (there is: {known})"
        if value > bound if is_upper else value < bound:
            return f"{name.rstrip('<')} is {value:g}, the target was {'at most' if is_upper else 'at least'} {bound:g}"
    return None


def collect_metrics(
    rows: Iterable[Mapping[str, object]],
    file: Path | None,
    patterns: Iterable[tuple[str, re.Pattern[str]]],
    output: str,
) -> tuple[dict[str, float], list[str]]:
    """Gather the final metrics of a run; later sources win.

    Args:
        rows: Rows that ``lichen.log`` wrote, in order.
        file: JSON file the script wrote, or None.
        patterns: Names and expressions to look for in the output.
        output: Captured standard output.

    Returns:
        Finite values by name, and warnings about what could not be read.
    """
    found: dict[str, float] = {}
    warnings: list[str] = []
    for row in rows:
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                found[name] = float(value)
    if file is not None:
        found.update(_from_file(file, warnings))
    for name, pattern in patterns:
        matches = list(pattern.finditer(output))
        if not matches:
            warnings.append(f"--metric {name}: nothing in the output matches {pattern.pattern!r}")
            continue
        text = matches[-1].group(1 if pattern.groups else 0)
        try:
            found[name] = float(text)
        except (TypeError, ValueError):
            warnings.append(f"--metric {name}: {text!r} is no number")
    unfit = [name for name, value in found.items() if not math.isfinite(value) or not _NAME.fullmatch(name)]
    warnings += [f"metric {name} is {found.pop(name)}, which is left out" for name in unfit]
    if len(found) > _METRICS_MAX:
        warnings.append(f"{len(found)} metrics; the first {_METRICS_MAX} by name are recorded")
        found = {name: found[name] for name in sorted(found)[:_METRICS_MAX]}
    return found, warnings


def _from_file(file: Path, warnings: list[str]) -> dict[str, float]:
    try:
        size_bytes = file.stat().st_size
        value = json.loads(file.read_text(encoding="utf-8")) if size_bytes <= _FILE_BYTES_MAX else None
    except (OSError, ValueError) as error:
        warnings.append(f"--metrics {file}: {error}")
        return {}
    if not isinstance(value, dict):
        warnings.append(f"--metrics {file}: larger than 16 MiB, or not a JSON object")
        return {}
    return {
        name: float(number)
        for name, number in value.items()
        if isinstance(number, int | float) and not isinstance(number, bool)
    }
