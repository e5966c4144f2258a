"""`lichen witness`: both sides of witnessing: cosign the checkpoints of others, and have your own cosigned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lichen.cli.help import examples
from lichen.cli.options import Invocation, json_option, ledger_option, pass_invocation
from lichen.cli.serving import address_options, listening_at, needs_web, tell_unencrypted, url_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from lichen.ledger.quorums import QuorumStrength
    from lichen.ledger.witness_store import WitnessStore
    from lichen.net.witness.collector import Collected

__all__ = ["witness_command"]

_DIRECTORY = "witness"


def _directory_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--directory",
        default=_DIRECTORY,
        show_default=True,
        metavar="DIR",
        help="Where the witness lies: its key and its record.",
    )(function)


def _faulty_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--faulty",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        metavar="COUNT",
        help="How many of the witnesses may lie, whichever they are, before two views can both be witnessed.",
    )(function)


@click.group("witness", no_args_is_help=True)
def witness_command() -> None:
    """Be a witness, or have a ledger witnessed.

    A witness cosigns a checkpoint when it continues the log it saw last; so a ledger whose checkpoints enough witnesses cosigned cannot
    show different people different histories. `init`, `add`, `remove`, `list`, `show` and `serve` are for whoever runs a witness; `policy`,
    `use` and `request` for whoever runs a ledger.
    """


# ---- whoever runs a witness -------------------------------------------------------------------------------------


@witness_command.command(
    "init",
    epilog=examples(
        "lichen witness init --name witness.example/w1",
        "lichen witness init --name witness.example/w2 --directory w2",
    ),
)
@click.option(
    "--name",
    required=True,
    metavar="NAME",
    help="Name of the witness's key, such as witness.example/w1: no spaces, no plus signs.",
)
@_directory_option
@json_option
@pass_invocation
def init_command(invocation: Invocation, /, *, name: str, directory: str) -> None:
    """Make a witness with a key of its own."""
    from lichen.ledger.witness_store import WitnessStore
    from lichen.runs.workspace.config import lichen_home

    with WitnessStore.create(Path(directory), name, home=lichen_home()) as store:
        vkey = store.identity.note_key.vkey
    if invocation.as_json:
        invocation.output.json({"directory": directory, "name": name, "verifier_key": vkey})
        return
    say = invocation.output.line
    say(f"a witness {name} in {directory}")
    say(f"its verifier key, for policies: {vkey}")
    say("next: lichen witness add VKEY for each log it shall know, then lichen witness serve")
    say("never run it from a copy of this directory: a copy does not know what was signed since")


@witness_command.command("show", epilog=examples("lichen witness show"))
@_directory_option
@json_option
@pass_invocation
def show_command(invocation: Invocation, /, *, directory: str) -> None:
    """Print the verifier key of a witness, as policies name it."""
    with _open(directory) as store:
        key = store.identity.note_key
    if invocation.as_json:
        invocation.output.json({"name": key.name, "verifier_key": key.vkey})
    else:
        invocation.output.line(key.vkey)


@witness_command.command("add", epilog=examples('lichen witness add "$(lichen key show --log --vkey)"'))
@click.argument("verifier_key")
@_directory_option
@json_option
@pass_invocation
def add_command(invocation: Invocation, /, verifier_key: str, *, directory: str) -> None:
    """Let a witness cosign the checkpoints of a log.

    VERIFIER_KEY is what `lichen key show --log --vkey` prints where the ledger lies.
    """
    from lichen.crypto.note import NoteKey
    from lichen.errors import UsageError

    try:
        key = NoteKey.from_vkey(verifier_key.strip())
    except Exception as error:
        raise UsageError(
            f"not the verifier key of a log: {verifier_key[:80]!r}",
            remedy="Give what `lichen key show --log --vkey` prints where the ledger lies.",
        ) from error
    with _open(directory) as store:
        is_new = store.add_log(key)
    if invocation.as_json:
        invocation.output.json({"origin": key.name, "is_new": is_new})
    else:
        invocation.output.line(f"{'added' if is_new else 'known already'}: {key.name}")


@witness_command.command(
    "remove", epilog=examples('lichen witness remove "$(lichen key show --log --vkey | cut -d+ -f1)"')
)
@click.argument("origin")
@_directory_option
@json_option
@pass_invocation
def remove_command(invocation: Invocation, /, origin: str, *, directory: str) -> None:
    """Let a witness sign nothing more for a log.

    ORIGIN is the first line of the log's checkpoints. What the witness has on record of it stays, in case it is added again.
    """
    with _open(directory) as store:
        store.remove_log(origin)
    if invocation.as_json:
        invocation.output.json({"origin": origin})
    else:
        invocation.output.line(f"removed: {origin}")


@witness_command.command("list", epilog=examples("lichen witness list", "lichen witness list --json"))
@_directory_option
@json_option
@pass_invocation
def list_command(invocation: Invocation, /, *, directory: str) -> None:
    """List the logs a witness knows, and what it cosigned last.

    Where a log signed two trees of one size, the evidence is printed with --json; `lichen verify` confirms it.
    """
    with _open(directory) as store:
        records = store.records()
        evidence = [(origin, found.to_bytes().decode()) for origin, found in store.evidence()]
    if invocation.as_json:
        invocation.output.json([
            {
                "origin": record.origin, "verifier_keys": [key.vkey for key in record.keys], "tree_size": record.seen.size,
                "root": record.seen.root.hex(), "time_unix_seconds": record.time_unix_seconds, "is_frozen": record.frozen,
                "evidence": [found for origin, found in evidence if origin == record.origin],
            }
            for record in records
        ])  # fmt: skip
        return
    if not records:
        invocation.output.note("no logs yet: lichen witness add VKEY")
        return
    rows = []
    for record in records:
        state = "frozen" if record.frozen else "known" if record.keys else "removed"
        if record.evidence_count:
            state += f", {record.evidence_count} split views"
        rows.append((record.origin, str(record.seen.size), _when(record.time_unix_seconds), state))
    invocation.output.table(("log", "entries", "cosigned", ""), rows, right=(1,))


@witness_command.command(
    "serve",
    epilog=examples("lichen witness serve", "lichen witness serve --port 8761 --directory w2"),
)
@address_options(8760)
@_directory_option
@pass_invocation
def serve_command(invocation: Invocation, /, *, host: str, port: int, directory: str) -> None:
    """Serve a witness over HTTP, until Ctrl-C or SIGTERM.

    It speaks the C2SP tlog-witness protocol, for logs of any make that it was told to know. Nothing is cosigned before the
    record is on the disk. To be reached from other machines, put a proxy with TLS in front.
    """
    with needs_web():
        from lichen.net.witness.server import serve_witness
    with listening_at(host, port) as listening, _open(directory) as store:
        url = f"{url_of(host, listening)}/"

        def ready() -> None:
            say = invocation.output.line
            log_count = len(store.logs())
            say(
                f"witness {store.identity.name} at {url}, for {log_count} {'log' if log_count == 1 else 'logs'}"
            )
            say(f"in policies: witness NAME {store.identity.note_key.vkey} {url}")
            tell_unencrypted(invocation.output, host)

        serve_witness(store, listening, ready)


# ---- whoever runs a ledger --------------------------------------------------------------------------------------


@witness_command.command(
    "policy",
    epilog=examples(
        "lichen witness policy witness.policy", "lichen witness policy witness.policy --faulty 1"
    ),
)
@click.argument("file")
@_faulty_option
@json_option
@pass_invocation
def policy_command(invocation: Invocation, /, file: str, *, faulty: int) -> None:
    """Check a policy, and say what it withstands.

    FILE is a C2SP tlog-policy. It is refused when two of its quorums need not share an honest witness: of n witnesses k must sign,
    with 2k > n + COUNT; groups in groups are counted exactly.
    """
    from lichen.ledger.cosigned import read_policy
    from lichen.ledger.policy import shown
    from lichen.ledger.quorums import check_quorums_intersect

    policy = read_policy(Path(file))
    strength = check_quorums_intersect(policy, faulty)
    if invocation.as_json:
        invocation.output.json({
            "logs": [log.key.name for log in policy.logs],
            "witnesses": [{"name": shown(each.name), "key_name": each.key.name, "url": each.url} for each in policy.witnesses],
            "quorum": shown(policy.quorum or b"none"), "overlap_min": strength.overlap_min, "faulty_max": strength.faulty_max,
            "absent_max": strength.absent_max,
        })  # fmt: skip
        return
    for each in policy.witnesses:
        invocation.output.line(f"witness {shown(each.name)}: {each.key.name} {each.url or '(no URL)'}")
    _tell_strength(invocation, strength)


@witness_command.command(
    "use",
    epilog=examples("lichen witness use witness.policy", "lichen witness use witness.policy --faulty 1"),
)
@click.argument("file")
@_faulty_option
@ledger_option
@json_option
@pass_invocation
def use_command(invocation: Invocation, /, file: str, *, faulty: int, ledger: str | None) -> None:
    """Have this ledger witnessed under a policy from now on.

    FILE is checked as `lichen witness policy` does, and copied beside the ledger. `lichen witness request` and `lichen serve` then ask
    its witnesses; receipts stand under the newest checkpoint that satisfies it.
    """
    from lichen.crypto.note import NoteKey
    from lichen.errors import UsageError
    from lichen.ledger.cosigned import POLICY_FILE_NAME, use_policy
    from lichen.ledger.policy import POLICY_BYTES_MAX

    try:
        with Path(file).open("rb") as opened:
            data = opened.read(POLICY_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", remedy="Name a policy file.") from error
    with invocation.workspace(ledger, read_only=True) as workspace:
        log_key = NoteKey(workspace.ledger.origin, workspace.ledger.log_key)
        strength = use_policy(workspace.directory, data, log_key, faulty)
        path = workspace.directory / POLICY_FILE_NAME
    if invocation.as_json:
        invocation.output.json({"policy": str(path), "overlap_min": strength.overlap_min})
        return
    invocation.output.line(f"the policy is {path} from now on")
    _tell_strength(invocation, strength)
    invocation.output.line("next: lichen witness request")


@witness_command.command(
    "request",
    epilog=examples("lichen witness request", "lichen witness request --json"),
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for each answer of a witness.",
)
@ledger_option
@json_option
@pass_invocation
def request_command(invocation: Invocation, /, *, timeout: float, ledger: str | None) -> int:
    """Ask the witnesses of this ledger to cosign its newest checkpoint.

    All are asked at once; what they sign is kept beside the ledger. A witness that is away is asked again next time. Ends with
    status 7 while too few have signed, and 3 when a witness saw another history.
    """
    from lichen.errors import UsageError
    from lichen.ledger.cosigned import read_ledger_policy
    from lichen.net.witness.collector import collect_cosignatures

    with invocation.workspace(ledger, read_only=True) as workspace:
        policy = read_ledger_policy(workspace.directory)
        if policy is None:
            raise UsageError(
                f"{workspace.directory} has no policy, so nobody is to be asked",
                remedy="Write one that names the witnesses, then: lichen witness use FILE",
            )
        collected = collect_cosignatures(workspace.ledger, policy, timeout_seconds=timeout)
    if invocation.as_json:
        invocation.output.json(collected.to_json())
    else:
        _tell_collected(invocation, collected)
    return _status_of(collected)


def _status_of(collected: Collected) -> int:
    from lichen.errors import NetworkError, VerificationError

    if any(isinstance(answer.problem, VerificationError) for answer in collected.answers):
        return VerificationError.exit_status
    return 0 if collected.quorum.is_reached else NetworkError.exit_status


def _tell_collected(invocation: Invocation, collected: Collected) -> None:
    from lichen.cli.output import Painted
    from lichen.cli.sentences import plural

    say = invocation.output.line
    for answer in collected.answers:
        if answer.time_unix_seconds is not None:
            say(f"{answer.name}: cosigned at {_when(answer.time_unix_seconds)}")
        elif answer.problem is not None:
            say(Painted(f"{answer.name}: ", "warn"), answer.problem.message)
            if answer.problem.remedy:
                say(f"  {answer.problem.remedy}")
    over = f"the checkpoint over {plural(collected.tree_size, 'entry')}"
    if collected.quorum.is_reached:
        say(Painted("witnessed: ", "good"), over)
    else:
        say(Painted("not witnessed yet: ", "warn"), over)


def _tell_strength(invocation: Invocation, strength: QuorumStrength) -> None:
    say = invocation.output.line
    shared, away = strength.overlap_min, strength.absent_max
    say(
        f"two quorums share at least {shared} of {strength.witness_count} witnesses:"
        f" two views can be witnessed only if {shared} of them {'signs' if shared == 1 else 'sign'} both"
    )
    say(f"checkpoints are witnessed while at most {away} of them {'is' if away == 1 else 'are'} away")


def _open(directory: str) -> WitnessStore:
    from lichen.ledger.witness_store import WitnessStore
    from lichen.runs.workspace.config import lichen_home

    return WitnessStore.open(Path(directory), home=lichen_home())


def _when(time_unix_seconds: int) -> str:
    import time

    if time_unix_seconds == 0:
        return "never"
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(time_unix_seconds))
