"""Metrics of a run: what the script logged, what a file says, what the output shows.

``lichen.log`` appends one JSON line per call to ``metrics.jsonl`` in the run's directory, which `lichen run` names in ``LICHEN_RUN_DIR``; outside a
run it does nothing, so a script may keep the call for good. The last value of a name is the run's value.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from lichen.encoding.foreign_json import read_json
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
_WARNINGS_MAX = 8
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
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"metric {name} has the value {_short(value)}, which is no number") from None
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
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(
            f"--metric {name}: {pattern!r} is not a regular expression: {error}",
            remedy=r"A bracket that is meant as text is written \( or \).",
        ) from error


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
        found.update(_numbers(row))
    found.pop("step", None)
    if file is not None:
        found.update(_from_file(file, warnings))
    for name, pattern in patterns:
        found.update(_from_output(name, pattern, output, warnings))
    unfit = [name for name, value in found.items() if not math.isfinite(value) or not _NAME.fullmatch(name)]
    warnings += [
        f"metric {_short(name)} ({found[name]:g}) is left out: {_why_unfit(name)}"
        for name in unfit[:_WARNINGS_MAX]
    ]
    if len(unfit) > _WARNINGS_MAX:
        warnings.append(f"{len(unfit) - _WARNINGS_MAX} more metrics are left out")
    for name in unfit:
        del found[name]
    if len(found) > _METRICS_MAX:
        warnings.append(f"{len(found)} metrics; the first {_METRICS_MAX} by name are recorded")
        found = {name: found[name] for name in sorted(found)[:_METRICS_MAX]}
    return found, warnings


def _why_unfit(name: str) -> str:
    if not _NAME.fullmatch(name):
        return "a name is of letters, digits and _ . / @ -, at most 64"
    return "only a finite number can be compared"


def _from_output(name: str, pattern: re.Pattern[str], output: str, warnings: list[str]) -> dict[str, float]:
    from lichen.runs.records.patterns import PatternError, find_last

    try:
        text = find_last(pattern.pattern, output)
    except PatternError as error:
        warnings.append(f"--metric {name}: {error}")
        return {}
    if text is None:
        warnings.append(f"--metric {name}: nothing in the output matches {pattern.pattern}")
        return {}
    try:
        return {name: float(text)}
    except ValueError:
        warnings.append(f"--metric {name}: {_short(text)} is no number")
        return {}


def _from_file(file: Path, warnings: list[str]) -> dict[str, float]:
    try:
        value = read_json(_read_regular(file))
    except FileNotFoundError:
        warnings.append(f"--metrics {file}: the command left no such file, so no metric was taken from it")
        return {}
    except (OSError, ValueError) as error:
        warnings.append(f"--metrics {file}: {getattr(error, 'strerror', None) or error}")
        return {}
    if not isinstance(value, dict):
        warnings.append(f"--metrics {file}: not a JSON object")
        return {}
    numbers = _numbers(value)
    others = [_short(name) for name in value if name not in numbers]
    if others:
        named = ", ".join(others[:_METRICS_NAMED_MAX])
        more = f" and {len(others) - _METRICS_NAMED_MAX} more" if len(others) > _METRICS_NAMED_MAX else ""
        warnings.append(
            f"--metrics {file}: {named}{more} left out: only numbers at the top of the file are metrics"
        )
    return numbers


def _read_regular(file: Path) -> bytes:
    """Read a file that the script wrote; one that is a pipe or a device could make us wait, or never end."""
    handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as opened:  # noqa: PTH123 - of a descriptor
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("not a regular file")
        data = opened.read(_FILE_BYTES_MAX + 1)
    if len(data) > _FILE_BYTES_MAX:
        raise ValueError("larger than 16 MiB")
    return data


def _numbers(row: Mapping[str, object]) -> dict[str, float]:
    """Take the numbers of a JSON object; a whole number beyond all floats is infinite."""
    found = {}
    for name, value in row.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                found[name] = float(value)
            except OverflowError:
                found[name] = math.inf
    return found


def _short(value: object) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} too large to be shown"
    return text if len(text) <= 100 else f"{text[:100]}…"
