"""What `lichen run` says beside the command: on standard error, short, each line after ``lichen: ``.

Standard output belongs to the command; the only thing written there is the recorded output of a hit.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lichen.cli.output import Output, Painted
from lichen.cli.sentences import (
    describe_age,
    describe_earlier,
    describe_estimate,
    describe_metrics,
    describe_nearest,
    plural,
)
from lichen.runs.request import SilentNarrator
from lichen.runs.reuse.lookup import uncompared_line
from lichen.units import format_energy

if TYPE_CHECKING:
    from lichen.runs.request import Estimate, RunResult
    from lichen.runs.reuse.lookup import Answer, Nearest

__all__ = [
    "TerminalNarrator",
    "WarningNarrator",
    "answer_lines",
    "found_line",
    "hit_line",
    "nearest_lines",
    "now_unix_ms",
    "recorded_line",
]

_NEAREST_SHOWN_MAX = 2
_PATHS_SHOWN_MAX = 8


class TerminalNarrator:
    """Tells the person at the terminal.

    Args:
        output: Where to write.
        quiet: Say only what went wrong.
    """

    def __init__(self, output: Output, *, quiet: bool = False) -> None:
        self._output = output
        self._quiet = quiet
        self._waiting_for = ""

    def say(self, *pieces: str | Painted) -> None:
        """Say one line, unless only trouble is to be told."""
        if not self._quiet:
            self._output.note(*pieces)

    def missed(self, answer: Answer, nearest: Sequence[Nearest], estimate: Estimate | None) -> None:
        """Say why there is no answer, what is near it, and what the work is likely to cost."""
        for line in answer_lines(answer, nearest, estimate, now_unix_ms=now_unix_ms()):
            self.say(line)

    def waiting(self, holder: str) -> None:
        """Say once for whom the run waits."""
        if holder != self._waiting_for:
            self._waiting_for = holder
            self.say(f"equal work is in progress ({holder}): waiting for its result; --no-wait does not wait")

    def replayed(self, stdout: bytes) -> None:
        """Write recorded output to where the command would have written it."""
        sys.stdout.flush()
        sys.stdout.buffer.write(stdout)
        sys.stdout.flush()

    def record_shown(self, text: str) -> None:
        """Show the record on standard error, whatever else is quiet: it was asked for."""
        self._output.note("the record, as it is about to be signed:")
        from lichen.cli.output import clean

        self._output.stderr.write(clean(text, keep="\n") + "\n")

    def sent(self, count: int) -> None:
        """Say that records are in the ledger that waited."""
        self.say(sent_line(count))

    def warning(self, text: str) -> None:
        """Say what went wrong beside the command."""
        _warn(self._output, text)

    def ended(self, result: RunResult) -> None:
        """Say how the request ended."""
        if result.status == "hit":
            style = "good" if result.missed_target is None else "warn"
            self.say(Painted(hit_line(result, now_unix_ms()), style))
        elif result.record is not None:
            self.say(*recorded_line(result))
        elif result.spooled is None and result.outcome is not None and result.measurement is not None:
            self.say(f"not recorded; it took {result.measurement.describe()}")


def now_unix_ms() -> int:
    """Return the wall clock, milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def answer_lines(
    answer: Answer,
    nearest: Sequence[Nearest],
    estimate: Estimate | None,
    *,
    now_unix_ms: int,
) -> list[str]:
    """Say what the ledger knows of a request that it does not answer.

    Args:
        answer: What it said.
        nearest: Earlier work like it.
        estimate: What the work is likely to cost.
        now_unix_ms: Milliseconds since 1970.
    """
    lines = []
    if answer.kind in ("offer", "same-work") and answer.run is not None:
        lines.append(f"equal work is on record: {describe_earlier(answer.run, now_unix_ms)}")
        lines.append(_how_to_take(answer))
    elif answer.difference is not None and answer.compared is not None:
        where = f"entry {answer.compared.index} by {answer.compared.member}"
        lines.append(f"not answered by {where}: {answer.difference.describe()}")
    elif answer.compared is None and answer.uncompared is not None:
        lines.append(uncompared_line(answer.uncompared))
    elif answer.compared is not None and not answer.compared.reusable:
        run = answer.compared
        how = f"ended with status {run.exit_status}" if run.status == "failed" else run.reason or run.status
        lines.append(
            f"entry {run.index} by {run.member} is the same work and no answer: {how}; "
            f"it took {format_energy(run.energy_joules, run.relative_u95)}"
        )
    lines += nearest_lines(answer, nearest)
    if estimate is not None:
        lines.append(describe_estimate(estimate))
    return lines or ["nothing like this is on record yet"]


def nearest_lines(answer: Answer, nearest: Sequence[Nearest]) -> list[str]:
    """Say which earlier work is like the request, but for what the answer is about already."""
    told = {
        run.index for run in (answer.run, None if answer.difference else answer.compared) if run is not None
    }
    near = [each for each in nearest if each.run.index not in told][:_NEAREST_SHOWN_MAX]
    is_new = (
        answer.run is None and answer.compared is None and answer.uncompared is None and not answer.warnings
    )
    return [f"nearest earlier work: {describe_nearest(each, is_new_command=is_new)}" for each in near]


def _how_to_take(answer: Answer) -> str:
    assert answer.run is not None
    if answer.kind == "same-work":
        return "not taken: it differs in its seed; --accept same-work takes such answers"
    if answer.takes:
        return f"not taken: {answer.note}; --accept {answer.takes} takes it all the same"
    if answer.undeclared:
        shown = [f"--out {shlex.quote(path)}" for path in answer.undeclared[:_PATHS_SHOWN_MAX]]
        more = len(answer.undeclared) - len(shown)
        rest = f" and {more} more, or a directory of them" if more > 0 else ""
        return f"not taken: {answer.note}; to take it: {' '.join(shown)}{rest}, or out in lichen.toml"
    if answer.is_strangers:
        name = shlex.quote(answer.run.member)
        return f"not taken: {answer.note}; to take such answers: lichen config add reuse.trust {name}"
    return f"not taken: {answer.note}"


def found_line(answer: Answer, now_unix_ms: int) -> str:
    """Say that the ledger has the answer, without taking it."""
    assert answer.run is not None
    return f"the ledger has the answer: {describe_earlier(answer.run, now_unix_ms)}; running it would take it from there"


def hit_line(result: RunResult, now_unix_ms: int) -> str:
    """Say what answered, and what was not spent."""
    run = result.answer.run if result.answer is not None else None
    age = f" ({describe_age(run.time_unix_ms, now_unix_ms)})" if run is not None else ""
    told = [describe_metrics(result.metrics)] if result.metrics else []
    if result.credited:
        told.append(f"{format_energy(result.avoided_joules, result.avoided_u95)} not spent")
    elif run is not None:
        told.append(
            f"{format_energy(run.energy_joules, run.relative_u95)} not spent again, nothing newly booked"
        )
    if result.outputs:
        told.append(f"{plural(len(result.outputs), 'output')} in place")
    if result.receipt is not None:
        told.append("receipt verified")
    if result.answer is not None and result.answer.found_again:
        name, *more = (path.removeprefix("{project}/") for path in result.answer.found_again)
        told.append(
            f"that run looked for {name}{f' and {len(more)} more' if more else ''} before making it: --rerun goes on from it"
        )
    if result.missed_target is not None:
        told.append(f"target missed: {result.missed_target}")
    return f"answered from entry {result.record} by {result.author}{age}: {'; '.join(told)}"


def recorded_line(result: RunResult) -> list[str | Painted]:
    """Say what was recorded, and whether it will answer later requests."""
    told = [describe_metrics(result.metrics)] if result.metrics else []
    if result.measurement is not None:
        told.append(result.measurement.describe())
    if result.outputs:
        told.append(plural(len(result.outputs), "output"))
    if result.missed_target is not None:
        told.append(f"target missed: {result.missed_target}")
    head = f"recorded as entry {result.record}"
    if result.status in ("failed", "interrupted"):
        head += f" ({result.status})"
    line = f"{head}: {', '.join(told)}, "
    if result.reusable:
        return [line, Painted("reusable", "good")]
    code, text = result.reasons[0] if result.reasons else ("unknown", "no reason given")
    more = f", and {plural(len(result.reasons) - 1, 'more reason')}" if len(result.reasons) > 1 else ""
    return [line, Painted(f"not reusable: {code}: {text}{more}", "warn")]


def sent_line(count: int) -> str:
    """Return ``sent: 2 records that waited are in the ledger now``."""
    return f"sent: {plural(count, 'record')} that waited {'is' if count == 1 else 'are'} in the ledger now"


class WarningNarrator(SilentNarrator):
    """Tells warnings and what was sent, for commands that send what waits before their own work.

    Args:
        output: Where they go.
    """

    def __init__(self, output: Output) -> None:
        self._output = output

    def sent(self, count: int) -> None:
        """Tell it on standard error."""
        self._output.note(sent_line(count))

    def warning(self, text: str) -> None:
        """Tell it on standard error."""
        _warn(self._output, text)


def _warn(output: Output, text: str) -> None:
    first, *more = text.split("\n")
    output.note(Painted("warning: ", "warn"), first)
    for line in more:
        output.note(Painted("         ", "dim"), line)
