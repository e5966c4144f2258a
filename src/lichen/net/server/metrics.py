"""Numbers for Prometheus: counters, gauges and histograms, and their text exposition.

Source: Prometheus documentation, "Exposition formats", text format 0.0.4.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Final

from lichen.net.server.committer import BatchObserver

__all__ = ["CONTENT_TYPE", "Histogram", "Metrics"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_COUNTS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1000.0)


class Histogram:
    """How often a value lay below each of some bounds.

    Args:
        bounds: Upper bounds, rising; the last bucket has none.
    """

    def __init__(self, bounds: Iterable[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str) -> list[str]:
        """Samples in text, cumulative as the format wants them."""
        told, below = [], 0
        for bound, count in zip((*map(_number, self._bounds), "+Inf"), self._counts, strict=True):
            below += count
            told.append(f'{name}_bucket{{le="{bound}"}} {below}')
        return [*told, f"{name}_sum {_number(self._sum)}", f"{name}_count {below}"]


class Metrics(BatchObserver):
    """What one server counts.

    Attributes:
        gauges: Name to help text and function that gives the value now.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, str, int], int] = {}
        self._records: dict[str, int] = {"appended": 0, "repeated": 0, "refused": 0}
        self._answer_seconds = Histogram(_SECONDS)
        self._commit_seconds = Histogram(_SECONDS)
        self._batch_records = Histogram(_COUNTS)
        self._artefact_bytes = {"in": 0, "out": 0}
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request by the pattern of its path, not the path itself, so that there are few series."""
        with self._lock:
            key = (method, route, status)
            self._requests[key] = self._requests.get(key, 0) + 1
            self._answer_seconds.observe(seconds)

    def record(self, outcome: str) -> None:
        """Count a submitted record: ``appended``, ``repeated`` or ``refused``."""
        with self._lock:
            self._records[outcome] += 1

    def moved(self, direction: str, size_bytes: int) -> None:
        """Count bytes of artefacts, ``in`` or ``out``."""
        with self._lock:
            self._artefact_bytes[direction] += size_bytes

    def committed(self, count: int, seconds: float) -> None:
        """See `BatchObserver.committed`."""
        with self._lock:
            self._commit_seconds.observe(seconds)
            self._batch_records.observe(count)

    def exposition(self) -> str:
        """Write everything in the text format."""
        lines: list[str] = []

        def family(name: str, kind: str, text: str, samples: Iterable[str]) -> None:
            lines.extend((f"# HELP {name} {text}", f"# TYPE {name} {kind}", *samples))

        with self._lock:
            family(
                "lichen_http_requests_total", "counter", "Requests answered.",
                [
                    f'lichen_http_requests_total{{method="{_label(method)}",route="{_label(route)}",status="{status}"}} {count}'
                    for (method, route, status), count in sorted(self._requests.items())
                ],
            )  # fmt: skip
            family(
                "lichen_records_total", "counter", "Records submitted, by what became of them.",
                [f'lichen_records_total{{outcome="{name}"}} {count}' for name, count in self._records.items()],
            )  # fmt: skip
            family(
                "lichen_artefact_bytes_total", "counter", "Bytes of artefacts taken in and given out.",
                [f'lichen_artefact_bytes_total{{direction="{name}"}} {size}' for name, size in self._artefact_bytes.items()],
            )  # fmt: skip
            for name, text, histogram in (
                ("lichen_http_request_seconds", "Time from a request's head to its whole answer.", self._answer_seconds),
                ("lichen_commit_seconds", "Time one transaction took, signatures and rules included.", self._commit_seconds),
                ("lichen_commit_records", "Records in one transaction.", self._batch_records),
            ):  # fmt: skip
                family(name, "histogram", text, histogram.lines(name))
        for name, (text, value) in self.gauges.items():
            family(name, "gauge", text, [f"{name} {_number(value())}"])
        return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
