"""`lichen run`: ask the ledger, else run the command as it is, and record it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from lichen.cli.help import examples
from lichen.cli.options import Invocation, ledger_option, pass_invocation

if TYPE_CHECKING:
    from lichen.cli.narrator import TerminalNarrator
    from lichen.runs.process.supervise import Outcome
    from lichen.runs.request import RunRequest, RunResult
    from lichen.runs.workspace.project import Project
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["build_request", "check_command", "metric_options", "request_options", "run_command"]

_EXAMPLES = examples(
    "lichen run -- python train.py --depth 4",
    "lichen run --target accuracy=0.9 --metrics metrics.json -- python train.py",
    "lichen run --seed seed --accept same-work -- python train.py --seed 7",
    "lichen run --estimate -- python train.py",
    "lichen run --report report.json -- python train.py",
)
_METRIC_HELP = r"Find a metric in the output, such as 'accuracy=acc: ([\d.]+)'; the last match counts, looked for at most ten seconds. Repeatable."


def request_options(function: Any) -> Any:
    """Add the options that decide what counts as equal work; shared with `lichen why`."""
    options = (
        click.option("--data", multiple=True, metavar="PATH", help="File or directory that is an input. Repeatable."),
        click.option("--code", multiple=True, metavar="PATH", help="File or directory that is code. Repeatable."),
        click.option("--out", multiple=True, metavar="PATH", help="File or directory that is an output. Repeatable."),
        click.option("--param", multiple=True, metavar="NAME=VALUE", help="Parameter that is not on the command line. Repeatable."),
        click.option("--env", multiple=True, metavar="NAME", help="Variable that the result depends on. Repeatable."),
        click.option("--ignore", multiple=True, metavar="PATTERN", help="Paths that are neither input nor output, as in .lichenignore. Repeatable."),
        click.option("--seed", multiple=True, metavar="NAME", help="Option or variable that is only a seed. Repeatable."),
        click.option("--accept", multiple=True, type=click.Choice(["same-work", "disputed", "flagged"]), help="Take such answers too: equal but for the seed, with different outputs on record, or flagged by somebody you trust."),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def metric_options(function: Any) -> Any:
    """Add the options that ask for metrics; they do not decide what is equal, and `lichen why` takes them too."""
    options = (
        click.option("--target", multiple=True, metavar="NAME=NUMBER", help="Metric to reach, or NAME<=NUMBER; a run that misses it is recorded as missed. Repeatable."),
        click.option("--metric", multiple=True, metavar="NAME=REGEX", help=_METRIC_HELP),
        click.option("--metrics", metavar="FILE", help="JSON file with metrics that the command writes."),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


@click.command("run", epilog=_EXAMPLES, context_settings={"allow_interspersed_args": False})
@request_options
@metric_options
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="COUNT",
    help="How often equal work is wanted before it is answered.",
)
@click.option("--rerun", is_flag=True, help="Do not ask the ledger; run.")
@click.option("--exit-ok", is_flag=True, help="A run that ends with a nonzero status is a result too.")
@click.option("--no-replay", is_flag=True, help="On a hit, do not print the recorded output.")
@click.option(
    "--estimate",
    is_flag=True,
    help="Say what the ledger knows and what the run is likely to cost; do not run.",
)
@click.option("--show-record", is_flag=True, help="Show the record before it is signed.")
@click.option("--report", metavar="FILE", help="Write how it ended to a JSON file.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Wait at most so long for equal work in progress; without bound when not given.",
)
@click.option("--no-wait", is_flag=True, help="Do not wait for equal work in progress.")
@click.option(
    "--trace",
    metavar="MEANS",
    help="How to observe the command: comma-separated, of audit, inotify, preload, seccomp.",
)
@click.option("--zone", metavar="ZONE", help="Grid zone of this machine, such as DE.")
@click.option("-q", "--quiet", is_flag=True, help="Say only what went wrong.")
@ledger_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND…")
@pass_invocation
def run_command(invocation: Invocation, /, command: tuple[str, ...], **options: Any) -> int:
    """Run a command, or answer it from the ledger.

    The command is not changed. The first time, it is metered and traced, and recorded with its inputs, outputs and
    energy. When equal work is asked for again, its outputs are put back instead, and the joules not spent are booked.

    The exit status is the command's own. What Lichen has to say goes to standard error, after "lichen: ".
    """
    from lichen.cli.narrator import TerminalNarrator
    from lichen.runs.keeping.setup import check_admitted
    from lichen.runs.workspace.project import Project

    check_command(command)
    report = _report_path(options["report"])
    project = Project.find(Path.cwd(), extra_ignore=options["ignore"])
    request = build_request(command, options, project)
    with invocation.workspace(options["ledger"], project=project) as workspace:
        quiet = options["quiet"] or _is_later_rank()
        narrator = TerminalNarrator(invocation.output, quiet=quiet)
        if options["estimate"]:
            _ = workspace.ledger  # a ledger in no state to be asked is an error here: nothing may run
        if not _open_ledger(workspace, narrator):
            _run_unrecorded(invocation, request, report, narrator)
        if options["estimate"]:
            return _estimate(workspace, request, narrator)
        check_admitted(workspace)
        _warn_of_secrets(request, narrator)
        result = _answer_or_run(workspace, request, narrator)
    narrator.ended(result)
    if report is not None:
        _write_report(report, result, narrator)
    if result.outcome is not None:
        _leave(invocation, result.outcome)
    return result.exit_status


def _is_later_rank() -> bool:
    """Say whether another process of the same distributed run speaks for all of them."""
    from lichen.runs.distributed.ranks import detect_rank

    rank = detect_rank()
    return rank is not None and not rank.is_first


def _answer_or_run(workspace: Workspace, request: RunRequest, narrator: TerminalNarrator) -> RunResult:
    from lichen.runs.session import answer_or_run

    return answer_or_run(workspace, request, narrator)


def build_request(command: tuple[str, ...], options: dict[str, Any], project: Project) -> RunRequest:
    """Turn options into a request; paths are meant from the working directory.

    Raises:
        UsageError: A path is missing, a value is not of its form, or there is no such means of tracing.
        NotFoundError: The grid zone is not known.
    """
    from lichen.runs.records.metrics import parse_pattern, parse_target
    from lichen.runs.request import RunRequest

    if options.get("zone") is not None:
        from lichen.energy.grid import lookup

        lookup(options["zone"])  # a zone that is not known is said before the work
    if options.get("trace") is not None:
        from lichen.runs.trace.tracer import check_means

        check_means(part.strip() for part in options["trace"].split(",") if part.strip())
    metrics = options.get("metrics")
    if metrics is None and project.config.metrics is not None:
        metrics = str(project.root / project.config.metrics)
    return RunRequest(
        argv=command,
        data=_existing(options["data"], "--data"),
        code=_existing(options["code"], "--code"),
        out=tuple(os.path.abspath(path) for path in options["out"]),  # noqa: PTH100 - links are kept as typed
        env=options["env"],
        params=dict(_assignment(text) for text in options["param"]),
        seed=options["seed"],
        target=dict(parse_target(text) for text in options.get("target", ())),
        metrics_file=Path(metrics) if metrics is not None else None,
        patterns=tuple(parse_pattern(text) for text in options.get("metric", ())),
        accept=frozenset(options["accept"]),
        repeat=options.get("repeat", 1),
        rerun=options.get("rerun", False),
        exit_ok=options.get("exit_ok", False),
        replay=not options.get("no_replay", False),
        wait_seconds_max=0.0 if options.get("no_wait") else options.get("wait"),
        trace=options.get("trace"),
        zone=options.get("zone"),
        show_record=options.get("show_record", False),
    )


def check_command(command: tuple[str, ...]) -> None:
    """Make sure that there is a command.

    Raises:
        UsageError: There is none.
    """
    from lichen.errors import UsageError

    if not command:
        raise UsageError("no command given", remedy="Write it after --, as in: lichen run -- python train.py")
    if not command[0]:
        raise UsageError(
            "the name of the command is empty",
            remedy="A variable may be unset: write it after --, as in: lichen run -- python train.py",
        )


def _existing(paths: Iterable[str], option: str) -> tuple[str, ...]:
    from lichen.errors import UsageError

    found = []
    for text in paths:
        path = os.path.abspath(text)  # noqa: PTH100 - links are kept as typed
        if not os.path.exists(path):  # noqa: PTH110
            raise UsageError(f"{option} {text}: there is no such file or directory", remedy="Check the path.")
        if not os.access(path, os.R_OK):
            raise UsageError(
                f"{option} {text}: cannot be read", remedy=f"Check its permissions: ls -ld {text}"
            )
        found.append(path)
    return tuple(found)


def _assignment(text: str) -> tuple[str, str]:
    from lichen.errors import UsageError

    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"--param {text!r} is not NAME=VALUE", remedy="For example: --param depth=4")
    return name, value


def _open_ledger(workspace: Workspace, narrator: TerminalNarrator) -> bool:
    """Open what every run needs; False when the ledger itself is in no state to be used.

    Raises:
        UsageError: Something the user can put right before the command starts: no key, a key open to others, no ledger.
    """
    from lichen.errors import LichenError, UsageError

    try:
        _ = workspace.ledger, workspace.group_key, workspace.identity
    except UsageError:
        raise
    except LichenError as error:
        narrator.warning(f"this run is neither answered nor recorded: {error}")
        return False
    return True


def _run_unrecorded(
    invocation: Invocation, request: RunRequest, report: Path | None, narrator: TerminalNarrator
) -> NoReturn:
    """Run the command as it would run without Lichen."""
    from lichen.runs.process.supervise import supervise
    from lichen.runs.request import RunResult

    outcome = supervise(request.argv)
    if outcome.start_error is not None:
        invocation.output.note(outcome.start_error)
    if report is not None:
        finished = outcome.exit_status == 0 or request.exit_ok
        status = "interrupted" if outcome.interrupted else "trained" if finished else "failed"
        result = RunResult(status, outcome.exit_status, duration_seconds=outcome.duration_seconds)
        _write_report(report, result, narrator)
    _leave(invocation, outcome)


def _estimate(workspace: Workspace, request: RunRequest, narrator: TerminalNarrator) -> int:
    from lichen.cli.narrator import answer_lines, found_line, now_unix_ms
    from lichen.runs.reuse.objections import objection_lines
    from lichen.runs.session import ask, prepare

    command, surroundings = prepare(workspace, request)
    answer, nearest, estimate = ask(workspace, request, command, surroundings)
    for warning in answer.warnings:
        narrator.warning(warning)
    if answer.kind == "hit":
        narrator.say(found_line(answer, now_unix_ms()))
        for line in objection_lines(answer):
            narrator.warning(line)
        return 0
    for line in answer_lines(answer, nearest, estimate, now_unix_ms=now_unix_ms()):
        narrator.say(line)
    return 0


def _warn_of_secrets(request: RunRequest, narrator: TerminalNarrator) -> None:
    from lichen.runs.work.secrets import mask_secrets

    _, found = mask_secrets(request.argv)
    for secret in found:
        narrator.warning(f"{secret} looks like a secret: it is masked in what is stored")


def _report_path(text: str | None) -> Path | None:
    """Check that a report can be written, before hours of work."""
    from lichen.errors import UsageError

    if text is None:
        return None
    path = Path(text)
    if path.is_dir():
        raise UsageError(f"--report {text}: is a directory", remedy="Name a file.")
    if path.is_file() and not _may_be_replaced(path):
        raise UsageError(
            f"--report {text}: holds something that is no report",
            remedy="Name another file, or remove this one.",
        )
    if not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(
            f"--report {text}: cannot be written", remedy="Check that its directory exists and is yours."
        )
    return path


def _may_be_replaced(path: Path) -> bool:
    """Say whether a file is empty or starts as a report does: an input named by mistake is not written over."""
    try:
        with path.open("rb") as file:
            return (
                file.read(16).removeprefix(b"{\n").lstrip().startswith((b'"status"',))
                or path.stat().st_size == 0
            )
    except OSError:
        return True  # what cannot be read is told of when it cannot be written either


def _write_report(path: Path, result: RunResult, narrator: TerminalNarrator) -> None:
    import json

    text = json.dumps(result.to_report(), indent=2, ensure_ascii=True) + "\n"
    try:
        if path.exists() and not path.is_file():  # a pipe or a device: nothing to replace
            path.write_text(text, encoding="ascii")
            return
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(text, encoding="ascii")
        partial.replace(path)
    except OSError as error:
        narrator.warning(f"the report could not be written to {path}: {error.strerror}")


def _leave(invocation: Invocation, outcome: Outcome) -> NoReturn:
    """End as the command ended, after booking what Lichen itself cost."""
    from lichen.runs.process.supervise import end_as

    invocation.book_own_cost()
    outcome.close()
    end_as(outcome)
