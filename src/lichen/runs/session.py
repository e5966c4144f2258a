"""`lichen run`, from the request to the result: ask the ledger first, work only when it has no answer."""

from __future__ import annotations

import hashlib
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from lichen.errors import LichenError, NetworkError, Rejected, StorageError, UsageError
from lichen.runs.distributed.launchers import LAUNCHER_VARIABLE
from lichen.runs.process.standard_input import describe_standard_input
from lichen.runs.queries.views import is_digest
from lichen.runs.request import Estimate, RunResult
from lichen.runs.reuse.hit import absolute_paths, take_hit, verify_answer
from lichen.runs.reuse.lookup import (
    Answer,
    EarlierRun,
    ReusePolicy,
    earlier_run,
    look_up,
    nearest_runs,
    runs_by,
)
from lichen.runs.reuse.objections import weigh_objections
from lichen.runs.reuse.restore import plan_restore, undeclared_outputs
from lichen.runs.reuse.trust import Trusted
from lichen.runs.work.command import Command
from lichen.runs.work.concealment import Concealer
from lichen.runs.work.declared import Declared
from lichen.runs.work.interpreter import probe_interpreter
from lichen.runs.work.manifest import command_key
from lichen.runs.work.surroundings import STDIN, Surroundings

if TYPE_CHECKING:
    from lichen.runs.distributed.ranks import Rank
    from lichen.runs.records.spool import SpooledOutput
    from lichen.runs.request import Narrator, RunRequest
    from lichen.runs.reuse.lookup import Nearest
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["answer_or_run", "ask", "estimate_energy", "prepare", "reuse_policy"]


def reuse_policy(workspace: Workspace, request: RunRequest) -> ReusePolicy:
    """Return whose answers this user takes."""
    user = workspace.user
    return ReusePolicy(
        trust=Trusted.in_ledger(user.get_list("reuse.trust"), workspace.ledger.id),
        agree=user.get_count("reuse.agree", 1),
        accept=request.accept,
    )


def prepare(workspace: Workspace, request: RunRequest) -> tuple[Command, Surroundings]:
    """Understand a request, and make ready to look at what it depends on.

    Raises:
        UsageError: The command line or an option makes no sense.
    """
    project = workspace.project
    concealer = Concealer(workspace.group_key)
    command = Command.parse(
        request.argv,
        project,
        cwd=Path.cwd(),
        seed_names=[name for name in request.seed if name not in request.params],
        project_seed_names=project.config.seed,
        environ=os.environ,
        shown=concealer.words(request.argv),
        declared=request.params,
    ).with_declared(concealer.values(request.params), (*request.seed, *project.config.seed))
    interpreter = (
        probe_interpreter(command.executable, workspace.own_cache_directory)
        if command.is_python and command.executable
        else None
    )
    surroundings = Surroundings(
        project,
        lambda path: workspace.digests.digest_file(Path(path)),
        interpreter,
        dict(os.environ),
        concealer=concealer,
        hash_files=workspace.digest_states,
        hash_columns=workspace.digest_columns,
        declared=Declared(
            data=absolute_paths((*request.data, *project.config.data), project.root),
            code=absolute_paths((*request.code, *project.config.code), project.root),
            outputs=_declared(workspace, request),
            variables=(*request.env, *project.config.env),
        ),
    )
    surroundings.stdin_digest = describe_standard_input().digest(workspace.digests.digest_file)
    return command, surroundings


def ask(
    workspace: Workspace, request: RunRequest, command: Command, surroundings: Surroundings
) -> tuple[Answer, Sequence[Nearest], Estimate | None]:
    """Ask the ledger; on anything but a hit also say what is near and what the run is likely to cost."""
    policy = reuse_policy(workspace, request)
    answer = look_up(workspace, command, surroundings, policy)
    if answer.kind == "hit":
        weigh_objections(workspace, answer, policy)
        _offer_undeclared(workspace, request, answer)
        if answer.manifest is not None:
            answer.found_again = surroundings.own_outputs_found(answer.manifest)
    if answer.kind == "hit":
        return answer, (), None
    return (
        answer,
        nearest_runs(workspace, command, surroundings),
        estimate_energy(workspace, command, surroundings),
    )


def _offer_undeclared(workspace: Workspace, request: RunRequest, answer: Answer) -> None:
    """Make a hit of somebody else an offer when its outputs would land where none were declared."""
    if answer.kind != "hit" or answer.run is None or answer.manifest is None:
        return
    if workspace.is_own(answer.run.index):
        return
    try:
        names = undeclared_outputs(workspace, answer.manifest, _declared(workspace, request))
    except LichenError:  # a name that no path has: taking the answer says so
        return
    answer.undeclared = [os.path.relpath(workspace.project.path_of(name)) for name in names]
    if answer.undeclared:
        answer.kind, answer.note = "offer", "it is somebody else's, and not all it made is declared as output"


def answer_or_run(workspace: Workspace, request: RunRequest, narrator: Narrator) -> RunResult:
    """Answer a request from the ledger, or run it and record it.

    Args:
        workspace: Opened by the caller.
        request: What is asked.
        narrator: Hears what happens.

    Returns:
        The result. When the command ran, ``outcome`` says how to leave.

    Raises:
        UsageError: The request makes no sense, or a hit's outputs may not be put where they belong.
    """
    _ = workspace.identity  # a key that is missing or open to others is said before hours of work, not after
    command, surroundings = prepare(workspace, request)
    flush_spool(workspace, narrator)
    surrounding = None
    if "LICHEN_RUN_ID" in os.environ:
        from lichen.runs.distributed.nested import surrounding_run

        surrounding = surrounding_run()
    parent = surrounding.run_id if surrounding is not None else None
    rank = None
    if any(LAUNCHER_VARIABLE.fullmatch(name) for name in os.environ):
        from lichen.runs.distributed.ranks import detect_rank

        rank = detect_rank()
    stdin = _read_ahead(workspace, command, surroundings)
    try:
        if rank is not None:
            result = _answer_rank(workspace, request, command, surroundings, narrator, rank, parent)
        else:
            size = _size(workspace)
            taken = (
                None if request.rerun else _try_ledger(workspace, request, command, surroundings, narrator)
            )
            result = taken or _run_alone(
                workspace, request, command, surroundings, narrator, stdin, parent, size
            )
    finally:
        if stdin is not None:
            stdin.close()
    if surrounding is not None and (rank is None or rank.is_first):  # its record holds what all ranks used
        energy = result.with_inner_runs.to_record() if result.with_inner_runs is not None else None
        from lichen.runs.distributed.nested import NestedRun, leave_note

        leave_note(surrounding, NestedRun(f"run-{os.getpid()}", result.status, result.record, energy))
    return result


def _size(workspace: Workspace) -> int:
    """Return the count of entries; -1 when the ledger cannot be asked, which the look-up will say."""
    try:
        return workspace.ledger.size
    except LichenError:
        return -1


def _answer_rank(
    workspace: Workspace,
    request: RunRequest,
    command: Command,
    surroundings: Surroundings,
    narrator: Narrator,
    rank: Rank,
    parent: str | None,
) -> RunResult:
    """Answer or run one process of a distributed run, as the first of them decides for all."""
    from lichen.runs.distributed.ranked import Meeting, as_first_rank
    from lichen.runs.train import run_unrecorded, train

    surroundings.environ = as_first_rank(surroundings.environ)
    answer = None if request.rerun else _answer_for_ranks(workspace, request, command, surroundings, narrator)
    try:
        meeting = Meeting(workspace, rank)
        agreed = meeting.agree(answer.run.index if answer is not None and answer.run is not None else None)
    except StorageError as error:  # what one process did alone must never stand for the work of all
        narrator.warning(f"the processes of this run cannot meet, so it is not recorded: {error}")
        return run_unrecorded(request)
    if agreed is None:
        return train(workspace, request, command, surroundings, narrator, parent=parent, meeting=meeting)
    if answer is None or answer.run is None or answer.run.index != agreed:
        run = earlier_run(workspace.ledger.connection, agreed)
        if run is None:
            raise StorageError(
                f"another process of this run takes entry {agreed}, which is no run here",
                remedy="Let all processes use one ledger, or use --rerun.",
            )
        answer = Answer("hit", run, workspace.manifest(run.manifest_cid))
    assert answer.run is not None
    if rank.is_first:
        taken = take_hit(workspace, request, answer, narrator, declared_outputs=_declared(workspace, request))
        if taken is None:
            raise StorageError(
                f"entry {agreed}, which all processes of this run take, is no longer whole in the store",
                remedy="Start them again with --rerun.",
            )
        return taken
    run = answer.run
    return RunResult(
        "hit", run.exit_status or 0, record=run.index, author=run.member, metrics=run.metrics, answer=answer
    )


def _declared(workspace: Workspace, request: RunRequest) -> tuple[str, ...]:
    return absolute_paths((*request.out, *workspace.project.config.out), workspace.project.root)


def _answer_for_ranks(
    workspace: Workspace,
    request: RunRequest,
    command: Command,
    surroundings: Surroundings,
    narrator: Narrator,
) -> Answer | None:
    """Return a hit that can be put back whole: once the processes have agreed on it, there is no way back."""
    try:
        answer = ask(workspace, request, command, surroundings)[0]
        if answer.kind != "hit" or answer.run is None or answer.manifest is None:
            return None
        if not _is_enough(workspace, request, answer.run):
            return None
        own = workspace.is_own(answer.run.index)
        verify_answer(workspace, answer)
        plan = plan_restore(workspace, answer.manifest, own=own, declared=_declared(workspace, request))
    except Exception as error:  # whatever it is, a look-up that fails must not keep the command from running
        narrator.warning(f"the ledger has no answer that can be taken: {_in_words(error)}")
        return None
    return None if plan.missing else answer


def _try_ledger(
    workspace: Workspace,
    request: RunRequest,
    command: Command,
    surroundings: Surroundings,
    narrator: Narrator,
    *,
    tell: bool = True,
) -> RunResult | None:
    """Return a hit, or None after telling the narrator what was found instead."""
    try:
        answer, nearest, estimate = ask(workspace, request, command, surroundings)
    except Exception as error:  # whatever it is, a look-up that fails must not keep the command from running
        if isinstance(error, LichenError) and error.code == "usage":
            raise
        narrator.warning(f"the ledger could not be asked: {_in_words(error)}")
        return None
    for warning in answer.warnings:
        narrator.warning(warning)
    if answer.kind == "hit":
        assert answer.run is not None
        if _is_enough(workspace, request, answer.run):
            outputs = _declared(workspace, request)
            try:
                return take_hit(workspace, request, answer, narrator, declared_outputs=outputs)
            except StorageError:
                raise  # the outputs cannot be put where they belong: the same would befall a new run
            except Exception as error:
                # An answer that does not hold is none. One that may not be put back stops one's own request, whose
                # outputs are where they should not be; what others have published must never stop a command.
                if isinstance(error, UsageError) and workspace.is_own(answer.run.index):
                    raise
                author = f"entry {answer.run.index} by {answer.run.member}"
                narrator.warning(f"{author} has an answer that is not taken: {_in_words(error)}")
                return None
    if tell:
        narrator.missed(answer, nearest, estimate)
    return None


def _in_words(error: Exception) -> str:
    return (
        str(error)
        if isinstance(error, LichenError | OSError)
        else f"{type(error).__name__}: {error}, which is a bug in Lichen"
    )


def _is_enough(workspace: Workspace, request: RunRequest, run: EarlierRun) -> bool:
    """Say whether equal work was done as often as is wanted; what others did is taken as it is."""
    if not workspace.is_own(run.index):
        return True
    row = workspace.ledger.connection.execute(
        f"SELECT COUNT(*) FROM view_run WHERE {is_digest('exact', '?1')} AND member = ?2 AND reusable = 1",  # noqa: S608
        (run.exact, workspace.member),
    ).fetchone()
    return int(row[0]) >= request.repeat


def _run_alone(
    workspace: Workspace,
    request: RunRequest,
    command: Command,
    surroundings: Surroundings,
    narrator: Narrator,
    stdin: IO[bytes] | None,
    parent: str | None,
    asked_at_size: int,
) -> RunResult:
    """Run under the lease for this request, so that equal work at the same time is done once.

    The ledger is asked again when it has grown since it was asked: who held the lease may have ended in between.
    """
    from lichen.runs.reuse.lease import Lease
    from lichen.runs.train import train

    descriptor = stdin.fileno() if stdin is not None else None
    if request.rerun or request.repeat > 1:
        return train(workspace, request, command, surroundings, narrator, stdin=descriptor, parent=parent)
    lease = Lease(workspace.directory / "leases", _lease_key(workspace, command, surroundings))
    with lease.acquire(on_wait=narrator.waiting, timeout_seconds=request.wait_seconds_max) as held:
        if not request.rerun and (held.waited or _size(workspace) != asked_at_size):
            fresh = surroundings.afresh()
            result = _try_ledger(workspace, request, command, fresh, narrator, tell=False)
            if result is not None:
                return result
            surroundings = fresh
        return train(
            workspace, request, command, surroundings, narrator, stdin=descriptor, parent=parent, lease=held
        )


def _lease_key(workspace: Workspace, command: Command, surroundings: Surroundings) -> str:
    """Return a name for this request with this script: cheap, and equal for equal work."""
    parts = [
        command_key(command.canonical, surroundings.project.name_of(command.cwd), workspace.group_key).hex()
    ]
    if command.script and command.script.startswith("/"):
        parts.append(surroundings.digest_of(surroundings.project.name_of(command.script)))
    parts += [f"{name}={value}" for name, value in sorted(command.seeds.items())]
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def _read_ahead(workspace: Workspace, command: Command, surroundings: Surroundings) -> IO[bytes] | None:
    """Read piped input before asking, when such a request read its input before.

    Returns:
        A file with the input, to be given to the command; None when there is nothing to read ahead.
    """
    if describe_standard_input().kind != "pipe":
        return None
    key = command_key(command.canonical, surroundings.project.name_of(command.cwd), workspace.group_key)
    try:
        reads_input = any(STDIN in workspace.manifest(cid).data for _, cid in workspace.index.shapes(key, 16))
    except LichenError:
        return None
    if not reads_input:
        return None
    spooled = tempfile.TemporaryFile()  # noqa: SIM115 - handed to the caller, who closes it
    digest = hashlib.sha256()
    while chunk := os.read(0, 1 << 20):
        digest.update(chunk)
        spooled.write(chunk)
    spooled.flush()
    os.lseek(spooled.fileno(), 0, os.SEEK_SET)
    surroundings.stdin_digest = digest.digest()
    return spooled


def estimate_energy(workspace: Workspace, command: Command, surroundings: Surroundings) -> Estimate | None:
    """Estimate what a run will cost from earlier runs of the same request, else of the same script.

    Returns:
        Median, and the range widened by each run's own uncertainty; None when nothing like it was ever run.
    """
    from lichen.runs.work.manifest import family_key

    connection = workspace.ledger.connection
    request_key = command_key(
        command.canonical, surroundings.project.name_of(command.cwd), workspace.group_key
    )
    for column, key, basis in (
        ("command", request_key, "same request"),
        ("family", family_key(command.family, workspace.group_key), "same script"),
    ):
        runs = [run for run in runs_by(connection, column, key, 64) if run.status in ("trained", "missed")]
        if runs:
            return Estimate(
                energy_joules=statistics.median(run.energy_joules for run in runs),
                low_joules=min(max(0.0, run.energy_joules * (1 - run.relative_u95)) for run in runs),
                high_joules=max(run.energy_joules * (1 + run.relative_u95) for run in runs),
                run_count=len(runs),
                basis=basis,
            )
    return None


def flush_spool(workspace: Workspace, narrator: Narrator) -> int:
    """Write spooled records into the ledger.

    Returns:
        How many were written.
    """
    directory = workspace.directory / "spool"
    places = [
        place for place in (directory, workspace.fallback_spool) if place.is_dir() and any(place.iterdir())
    ]
    if workspace.read_only or not places:
        return 0
    from lichen.encoding.statement import Statement
    from lichen.runs.records.recording import store_left_over
    from lichen.runs.records.spool import Spool

    try:
        _ = workspace.store
    except LichenError as error:  # without their artefacts the records would tell nobody anything
        narrator.warning(f"spooled records go on waiting: {error}")
        return 0

    def append(payloads: Sequence[bytes]) -> list[Rejected | None]:
        statements = [Statement.from_bytes(payload) for payload in payloads]
        results = workspace.ledger.append_all_signed(statements, workspace.identity.key, seal=True)
        return [result if isinstance(result, Rejected) else None for result in results]

    def store(output: SpooledOutput) -> None:
        store_left_over(workspace, output)

    spool = Spool(directory, workspace.fallback_spool)
    try:
        count = spool.flush(append, store=store, on_problem=narrator.warning)
    except NetworkError as error:
        count = len(spool.waiting())
        narrator.warning(
            f"{count} spooled record{'s go' if count != 1 else ' goes'} on waiting: {error.message}"
        )
    except LichenError as error:
        narrator.warning(f"spooled records could not be written: {error}")
    else:
        if count:
            narrator.sent(count)
        return count
    return 0
