"""The same as `lichen run`, from Python: ``lichen.run`` and ``lichen.log``.

::

    with lichen.run("fit", data=["clinic.csv"], params={"depth": 4}) as run:
        if not run.restore():                    # equal work is on record, and its outputs are put back
            model = fit("clinic.csv", depth=4)
            run.log(accuracy=model.score())
            joblib.dump(model, run.output("model.joblib"))

Equal work is work with the same name, parameters, declared data, code (every loaded module of the project, the script
included), files that Python was seen to read inside the block, packages and interpreter. Nothing is taken without asking: ``hit``
says that there is an answer, ``restore`` takes it. What the block does is metered as this process and recorded when it
ends; an exception is recorded as a failed run and goes on.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from lichen.errors import LichenError, Rejected, UsageError
from lichen.runs.records.metrics import append_metrics, check_metrics

if TYPE_CHECKING:
    from lichen.energy.measurement import Measurement
    from lichen.energy.meter import Meter
    from lichen.runs.distributed.nested import NestedRun, SurroundingRun
    from lichen.runs.in_process import ProcessWatch
    from lichen.runs.request import Estimate, RunRequest, RunResult
    from lichen.runs.reuse.lookup import Answer, EarlierRun, Nearest
    from lichen.runs.work.command import Command
    from lichen.runs.work.observe import Observation
    from lichen.runs.work.surroundings import Surroundings
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["Run", "StrPath", "log", "run"]

StrPath = str | os.PathLike[str]
_logger = logging.getLogger("lichen")
_active: list[Run] = []


def run(
    name: str,
    *,
    data: Iterable[StrPath] = (),
    params: Mapping[str, Any] | None = None,
    seeds: Mapping[str, Any] | None = None,
    out: Iterable[StrPath] = (),
    env: Iterable[str] = (),
    target: Mapping[str, float] | None = None,
    accept: Iterable[str] = (),
    ledger: StrPath | None = None,
    zone: str | None = None,
) -> Run:
    """Meter and record a block of Python code, or find that it has been done.

    Args:
        name: What the work is called; part of what makes work equal.
        data: Files and directories it depends on. What it reads through Python inside the block is found by itself.
        params: What it is called with: anything that JSON can hold.
        seeds: Parameters that are only seeds: work that differs in them alone is ``same-work``.
        out: Outputs that results of others may be restored to; yours are restored to where they were.
        env: Names of variables it depends on.
        target: Least value by metric name, or greatest for a name that ends in ``<``; missing it makes the run ``missed``.
        accept: Answers to take beyond your policy: ``same-work``, ``disputed``, ``flagged``.
        ledger: Ledger directory; found as `lichen run` finds it when None.
        zone: Grid zone of this machine.

    Returns:
        A context manager; see :class:`Run`.

    Raises:
        UsageError: An argument makes no sense.

    Example:
        >>> with lichen.run("fit", data=["clinic.csv"], params={"depth": 4}) as run:  # doctest: +SKIP
        ...     if not run.restore():
        ...         run.log(accuracy=train(run.output("model.joblib")))
    """
    if not isinstance(name, str) or not name.strip():
        raise UsageError("a run needs a name", remedy='For example: lichen.run("fit", data=["clinic.csv"])')
    if isinstance(data, str | os.PathLike) or isinstance(out, str | os.PathLike):
        raise UsageError("data and out are lists of paths, not one path", remedy="Write data=[path].")
    return Run(
        name,
        script=sys._getframe(1).f_code.co_filename,
        data=_existing(data),
        params={key: _text_of(key, value) for key, value in (params or {}).items()},
        seeds={key: _text_of(key, value) for key, value in (seeds or {}).items()},
        out=tuple(os.path.abspath(path) for path in out),  # noqa: PTH100 - links are kept as given
        env=tuple(env),
        target=dict(target or {}),
        accept=frozenset(accept),
        ledger=os.fspath(ledger) if ledger is not None else None,
        zone=zone,
    )


def log(step: int | None = None, **metrics: float) -> bool:
    """Report metrics of the run this code belongs to; outside a run, do nothing.

    Args:
        step: Step or epoch, when you count them.
        metrics: Numbers by name; the last value of a name is the run's.

    Returns:
        Whether there was a run to report to.

    Raises:
        UsageError: A name or value that cannot be a metric.

    Example:
        >>> lichen.log(step=3, accuracy=0.93)
        False
    """
    if _active:
        _active[-1].log(step, **metrics)
        return True
    return append_metrics(step, metrics)


class Run:
    """A block of code that is metered and recorded; made by :func:`run`.

    Attributes:
        hit: Equal work on record whose outputs may be taken, or None. Set on entering the block.
        offer: Equal work on record that your reuse policy does not take, or None.
        nearest: Earlier work that is like this.
        estimate: What the work is likely to cost; None when nothing like it was done.
        result: How it ended; None until the block has.
    """

    def __init__(
        self,
        name: str,
        *,
        script: str,
        data: tuple[str, ...],
        params: Mapping[str, str],
        seeds: Mapping[str, str],
        out: tuple[str, ...],
        env: tuple[str, ...],
        target: Mapping[str, float],
        accept: frozenset[str],
        ledger: str | None,
        zone: str | None,
    ) -> None:
        from lichen.runs.request import RunRequest

        self.name = name
        self.hit: EarlierRun | None = None
        self.offer: EarlierRun | None = None
        self.nearest: Sequence[Nearest] = ()
        self.estimate: Estimate | None = None
        self.result: RunResult | None = None
        self._script = os.path.abspath(script)  # noqa: PTH100 - a link stays what the interpreter was given
        self._request: RunRequest = RunRequest(
            argv=("python", f"lichen.run:{name}"), data=data, out=out, env=env, params={**params, **seeds},
            seed=tuple(seeds), target=target, accept=accept, replay=False, zone=zone,
        )  # fmt: skip
        self._ledger_option = ledger
        self._rows: list[dict[str, float | int]] = []
        self._outputs: list[str] = []
        self._answer: Answer | None = None
        self._opened = ExitStack()
        self._workspace: Workspace | None = None
        self._command: Command | None = None
        self._surroundings: Surroundings | None = None
        self._watch: ProcessWatch | None = None
        self._meter: Meter | None = None
        self._started_ns = 0
        self._own_seconds = 0.0
        self._outer: Run | None = None
        self._inner: list[NestedRun] = []

    def __call__(self, *_: object, **__: object) -> NoReturn:
        """Refuse to be a decorator: what a function returns is not on record, so a hit could not give it."""
        raise UsageError(
            "lichen.run is for a block of code and decorates no function",
            remedy='Write: with lichen.run("name") as run: … inside the function.',
        )

    def __enter__(self) -> Self:
        if self._started_ns:
            raise UsageError("this run has begun already", remedy="Call lichen.run(...) once for each block.")
        with self._own_work("it is neither answered nor recorded", raises=(UsageError, Rejected)):
            self._ask()
        with self._own_work("it is not metered, so it will not be recorded"):
            self._begin()
        self._started_ns = time.time_ns()
        self._outer = _active[-1] if _active else None
        _active.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        measurement: Measurement | None = None
        duration_seconds = (time.time_ns() - self._started_ns) / 1e9
        if self in _active:
            _active.remove(self)
        with self._own_work("it is not metered"):
            if self._watch is not None:
                self._watch.stop()
            if self._meter is not None:
                measurement = self._meter.stop()
        with self._own_work("it was not recorded"):
            self._record(error, measurement, duration_seconds)
        if self._workspace is not None:
            from lichen.runs.queries.balance import record_own_cost

            record_own_cost(self._workspace.directory, "lichen.run", self._own_seconds)
        self._opened.close()

    def restore(self) -> bool:
        """Put the outputs of equal earlier work back where they belong, and book the joules not spent.

        Returns:
            True when that was done: the work need not be done again, and nothing is recorded for this block. False when there
            is no answer to take.

        Raises:
            UsageError: The outputs may not be put where they belong.
            VerificationError: The answer does not hold.
        """
        from lichen.runs.reuse.hit import take_hit

        if self.hit is None or self._answer is None or self._workspace is None:
            return False
        taken = take_hit(
            self._workspace,
            self._request,
            self._answer,
            _LogNarrator(self.name),
            declared_outputs=self._request.out,
        )
        if taken is None:
            return False
        self.result = taken
        return True

    def log(self, step: int | None = None, **metrics: float) -> None:
        """Report metrics; the last value of a name is the run's.

        Raises:
            UsageError: A name or value that cannot be a metric.
        """
        row: dict[str, float | int] = check_metrics(metrics)
        if step is not None:
            row["step"] = int(step)
        self._rows.append(row)

    def output(self, path: StrPath) -> Path:
        """Name an output; a run that does not make it is not reusable.

        Args:
            path: Where it will be.

        Returns:
            The same path, so that it can be written to: ``joblib.dump(model, run.output("model.joblib"))``.
        """
        self._outputs.append(os.path.abspath(path))  # noqa: PTH100 - links are kept as given
        return Path(path)

    # What Lichen itself does around the block

    @contextmanager
    def _own_work(self, consequence: str, raises: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """Do something of Lichen's own: its failure becomes a warning, its processor time is counted."""
        started = time.process_time()
        try:
            yield
        except raises:
            self._opened.close()
            raise
        except Exception as error:  # the program's own result must not depend on ours
            text = (
                str(error) if isinstance(error, LichenError | OSError) else f"{type(error).__name__}: {error}"
            )
            _logger.warning("lichen run %r: %s: %s", self.name, consequence, text)
        finally:
            self._own_seconds += time.process_time() - started

    def _ask(self) -> None:
        from lichen.runs.keeping.setup import check_admitted
        from lichen.runs.session import ask, flush_spool
        from lichen.runs.work.command import Command
        from lichen.runs.work.concealment import Concealer
        from lichen.runs.work.declared import Declared
        from lichen.runs.work.interpreter import probe_interpreter
        from lichen.runs.work.surroundings import Surroundings
        from lichen.runs.workspace.workspace import Workspace

        workspace = self._opened.enter_context(Workspace.find(self._ledger_option))
        _ = workspace.ledger, workspace.group_key
        check_admitted(workspace)
        flush_spool(workspace, _LogNarrator(self.name))
        project = workspace.project
        plain = Command(
            argv=self._request.argv, cwd=str(Path.cwd()), executable=sys.executable, is_python=True, script=self._script,
            canonical=self._request.argv, seeds={}, parameters={},
        )  # fmt: skip
        concealer = Concealer(workspace.group_key)
        self._command = plain.with_declared(concealer.values(self._request.params), self._request.seed)
        interpreter = probe_interpreter(sys.executable, workspace.own_cache_directory)
        self._surroundings = Surroundings(
            project,
            lambda path: workspace.digests.digest_file(Path(path)),
            interpreter,
            dict(os.environ),
            concealer=concealer,
            hash_files=workspace.digest_states,
            hash_columns=workspace.digest_columns,
            declared=Declared(data=self._request.data, variables=self._request.env),
        )
        self._workspace = workspace
        answer, self.nearest, self.estimate = ask(workspace, self._request, self._command, self._surroundings)
        for warning in answer.warnings:
            _logger.warning("lichen run %r: %s", self.name, warning)
        if answer.kind == "hit":
            self._answer, self.hit = answer, answer.run
        else:
            self.offer = answer.run

    def _begin(self) -> None:
        from lichen.energy.meter import Meter
        from lichen.runs.in_process import ProcessWatch

        if self._workspace is None:
            return
        workspace, package = self._workspace, Path(__file__).resolve().parents[1]
        zone = self._request.zone or workspace.project.config.zone or workspace.user.get_text("energy.zone")
        self._watch = ProcessWatch(workspace.project.root, (workspace.directory, package))
        self._meter = Meter(zone=zone).start()
        self._watch.start()

    def _record(
        self, error: BaseException | None, measurement: Measurement | None, duration_seconds: float
    ) -> None:
        from lichen.runs.distributed.nested import own_share, surrounding_run
        from lichen.runs.records.metrics import collect_metrics, misses_target
        from lichen.runs.records.recording import write_down
        from lichen.runs.request import RunResult
        from lichen.runs.work.observe import Reason

        workspace = self._workspace
        if workspace is None or measurement is None or (self.result is not None and error is None):
            return
        metrics, warnings = collect_metrics(self._rows, None, (), "")
        for warning in warnings:
            _logger.warning("lichen run %r: %s", self.name, warning)
        observation = self._observe()
        status, reason = _status(error)
        if reason is not None:
            observation.reasons.insert(0, Reason(*reason))
        missed = misses_target(metrics, self._request.target) if status == "trained" else None
        self.result = RunResult(
            status="missed" if missed else status,
            exit_status=0 if status == "trained" else 1,
            reusable=observation.reusable,
            reasons=[(each.code, each.text) for each in observation.reasons],
            measurement=own_share(measurement, self._inner),
            duration_seconds=duration_seconds,
            metrics=metrics,
            author=workspace.member,
            outputs=[output.name for output in observation.manifest.outputs],
            missed_target=missed,
        )
        detail = _detail(self._request.argv, self._started_ns, self._rows, observation)
        surrounding = surrounding_run()
        parent = surrounding.run_id if surrounding is not None else None
        if self._outer is not None:
            parent = self._outer.run_id
        narrator = _LogNarrator(self.name)
        write_down(workspace, self._request, observation, detail, self.result, narrator, parent=parent)
        self._tell_outer(surrounding, measurement)

    @property
    def run_id(self) -> str:
        """Name of this block for runs inside it."""
        return f"block-{os.getpid()}-{self._started_ns}"

    def _tell_outer(self, surrounding: SurroundingRun | None, measurement: Measurement) -> None:
        """Leave what this block used, blocks inside it included, to the one run around it whose meter saw it too."""
        from lichen.runs.distributed.nested import NestedRun, leave_note

        assert self.result is not None
        if self.result.record is None and self.result.spooled is None:
            return  # it stands nowhere, so it is part of what the outer run used
        note = NestedRun(self.run_id, self.result.status, self.result.record, measurement.to_record())
        if self._outer is not None:
            self._outer._inner.append(note)
        elif surrounding is not None:
            leave_note(surrounding, note)

    def _observe(self) -> Observation:
        from lichen.runs.work.observe import Reason, observe

        assert self._workspace is not None
        assert self._command is not None
        assert self._surroundings is not None
        assert self._watch is not None
        trace = self._watch.finish(is_data_declared=bool(self._request.data))
        declared = replace(self._surroundings.declared, outputs=tuple(self._outputs))
        observation = observe(
            self._workspace,
            self._command,
            replace(self._surroundings, declared=declared),
            trace,
            started_ns=self._started_ns,
        )
        if not Path(self._script).is_file():
            observation.reasons.append(
                Reason("code-unknown", "the code that called lichen.run stands in no file")
            )
        return observation


def _status(error: BaseException | None) -> tuple[str, tuple[str, str] | None]:
    """Return the status of a block that ended so, and the reason why it may not answer requests."""
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return "trained", None
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", ("interrupted", "the run was interrupted")
    return "failed", ("exit-status", f"the block ended with {type(error).__name__}")


def _detail(
    argv: Sequence[str], started_ns: int, rows: Sequence[Mapping[str, float | int]], observation: Observation
) -> bytes:
    """Return the deletable detail of a run in a Python process."""
    import json
    import socket

    value = {
        "detail": 1,
        "argv": list(argv),
        "host": socket.gethostname(),
        "started_unix_ms": started_ns // 1_000_000,
        "reasons": [{"code": reason.code, "text": reason.text} for reason in observation.reasons],
        "metrics": list(rows)[-10_000:],
        "written_unix_ms": time.time_ns() // 1_000_000,
    }
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, default=str).encode()


def _existing(paths: Iterable[StrPath]) -> tuple[str, ...]:
    found = []
    for path in paths:
        if not isinstance(path, str | os.PathLike):
            raise UsageError(
                f"data holds {type(path).__name__}, not paths", remedy="Name files or directories."
            )
        absolute = os.path.abspath(path)  # noqa: PTH100 - links are kept as given
        if not os.access(absolute, os.R_OK):
            raise UsageError(
                f"data {os.fspath(path)!r} is not there or cannot be read", remedy="Check the path."
            )
        found.append(absolute)
    return tuple(found)


def _text_of(name: str, value: Any) -> str:
    """Write a parameter so that equal values, and only those, read the same."""
    import json

    from lichen.encoding.foreign_json import read_json

    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()  # a NumPy scalar
    if isinstance(value, str):
        try:
            read_json(value)
        except ValueError:
            return value  # as it is: no other value is written so
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise UsageError(
            f"parameter {name!r} is a {type(value).__name__}, which JSON cannot hold",
            remedy="Give a number, text, list or table, or its repr().",
        ) from None


class _LogNarrator:
    """Tells the program's log what `lichen run` would tell the terminal."""

    def __init__(self, name: str) -> None:
        self._name = name

    def missed(self, answer: Answer, nearest: Sequence[Nearest], estimate: Estimate | None) -> None:
        """Say nothing: it is in the run's attributes."""

    def waiting(self, holder: str) -> None:
        """Say for whom the run waits."""
        _logger.info("lichen run %r: equal work is in progress (%s)", self._name, holder)

    def replayed(self, stdout: bytes) -> None:
        """Say nothing: a program's output is its own."""

    def record_shown(self, text: str) -> None:
        """Tell the record."""
        _logger.info("lichen run %r: its record is %s", self._name, text)

    def sent(self, count: int) -> None:
        """Tell that records are in the ledger that waited."""
        _logger.info("lichen run %r: records that waited and are in the ledger now: %d", self._name, count)

    def warning(self, text: str) -> None:
        """Tell what went wrong beside the block."""
        _logger.warning("lichen run %r: %s", self._name, text)
