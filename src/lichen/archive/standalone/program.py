"""The program: what is asked, and what is answered.

Exit status: 0 everything holds; 1 something does not; 2 it could not be looked at; 3 everything that this program knows how
to check holds, and it says what it does not know.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

from lichen.archive.standalone.check import SMALL_FILE_MAX, STATUS, Check
from lichen.archive.standalone.faults import Fault, Unreadable
from lichen.archive.standalone.files import Files
from lichen.archive.standalone.members import did_of
from lichen.archive.standalone.notes import witness_key
from lichen.archive.standalone.workers import Workers, default_count

__all__ = ["main"]


class Progress:
    """How far it is, on standard error: rewritten in place on a terminal, else a line now and then."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.last = time.monotonic()
        self.shown = False

    def __call__(self, what: str, done: int, total: int) -> None:
        wait = 0.2 if sys.stderr.isatty() else 10.0
        if self.quiet or time.monotonic() - self.last < wait:
            return
        self.last, self.shown = time.monotonic(), True
        end = "\r" if sys.stderr.isatty() else "\n"
        print(
            "  %s: %s of %s" % (what, format(done, ","), format(total, ",")),
            end=end,
            file=sys.stderr,
            flush=True,
        )


def parse_arguments(words: list | None) -> argparse.Namespace:
    """What is asked."""
    parser = argparse.ArgumentParser(
        prog="verify_ledger.py",
        description="Check an archive of a ledger: every signature, rule, hash and artefact in it.",
        epilog="Exit status: 0 all holds, 1 something does not, 2 it could not be looked at, 3 what is known here holds.",
    )
    parser.add_argument(
        "archive", nargs="?", default=None, help="directory of the archive; default: where this file lies"
    )
    parser.add_argument("--ledger-id", metavar="HEX", help="the ledger that it must be")
    parser.add_argument("--log-key", metavar="DID", help="the log's key that it must have, as did:key:z...")
    parser.add_argument(
        "--earlier",
        metavar="FILE",
        action="append",
        default=[],
        help="a checkpoint kept from earlier; the log must go on from it",
    )
    parser.add_argument(
        "--witness",
        metavar="VKEY",
        action="append",
        default=[],
        help="a witness that must have cosigned the checkpoint",
    )
    parser.add_argument(
        "--now",
        metavar="SECONDS",
        type=int,
        default=int(time.time()),
        help="time to judge cosignatures by, since 1970; default: this clock",
    )
    parser.add_argument(
        "--jobs", metavar="N", type=int, default=default_count(), help="processes; default: all processors"
    )
    parser.add_argument("--json", action="store_true", help="answer as one JSON object")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    return parser.parse_args(words)


def first_wrong(check: Check) -> tuple | None:
    """The first entry that does not hold, and why; what is about the archive as a whole comes last."""
    return min(check.workers.wrong, key=lambda found: (found[0] is None, found[0] or 0), default=None)


def checked(wanted: argparse.Namespace) -> tuple:
    """Run the check: exit status, and what is answered."""
    try:
        witnesses = [witness_key(text) for text in wanted.witness]
        earlier = {name: text_in(name) for name in wanted.earlier}
    except Fault as fault:
        raise Unreadable(fault.message) from None
    with Workers(max(1, wanted.jobs)) as workers:
        check = None
        try:
            files = Files(wanted.archive)
            check = Check(files, workers, Progress(wanted.quiet))
            check.run(witnesses, earlier, wanted.now)
            check_expectations(check, wanted)
        except Fault as fault:
            workers.settle()
            workers.wrong.append((fault.index, fault.message))
        found = first_wrong(check) if check is not None else workers.wrong[0]
    answer: dict = {"archive": wanted.archive, "holds": found is None, "index": None, "why": None}
    if check is not None and check.replay.genesis is not None:
        answer.update(facts_of(check))
    if found is not None:
        answer.update(index=found[0], why=found[1])
        return 1, answer
    return (3 if answer["not_checked"] else 0), answer


def text_in(path: str) -> str:
    """Text of a file outside the archive.

    Raises:
        Unreadable: It is none.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read(SMALL_FILE_MAX)
    except UnicodeDecodeError:
        raise Unreadable("%s is not text" % path) from None


def check_expectations(check: Check, wanted: argparse.Namespace) -> None:
    """Compare the ledger with the one that was asked for."""
    genesis = check.replay.genesis
    if check.workers.wrong:
        return
    if wanted.ledger_id is not None and wanted.ledger_id.lower() != genesis.id.hex():
        raise Fault("it is an archive of ledger %s, not of %.80s" % (genesis.id.hex(), wanted.ledger_id))
    keys = [did_of(key.raw) for _, key in check.replay.members.log_keys]
    if wanted.log_key is not None and wanted.log_key not in keys:
        raise Fault("the log's key is %s, not %.80s" % (did_of(genesis.log_key.raw), wanted.log_key))


def facts_of(check: Check) -> dict:
    """What the archive was found to hold."""
    replay = check.replay
    unknown = replay.unknown_contracts
    return {
        "access": replay.genesis.access,
        "artefacts": check.counts(),
        "discredited": replay.discredited(),
        "entries": replay.log.size,
        "kinds": dict(sorted(replay.kinds.items())),
        "ledger": replay.genesis.id.hex(),
        "log_key": did_of(replay.genesis.log_key.raw),
        "name": replay.genesis.name,
        "not_checked": ["the rules of %s, and the roots of the state" % ", ".join(unknown)]
        if unknown
        else [],
        "root": replay.log.root().hex(),
        "signatures_not_judged": check.unjudged,
        "state_keys": len(replay.state.values),
    }


def tell(answer: dict) -> None:
    """Answer in words."""
    if not answer["holds"]:
        where = "" if answer["index"] is None else " at entry %d" % answer["index"]
        print("does not hold%s: %s" % (where, answer["why"]))
        return
    kinds = ", ".join("%s %s" % (format(count, ","), kind) for kind, count in answer["kinds"].items())
    counts = answer["artefacts"]
    print(
        "holds: %s entries of ledger %s (%s)"
        % (format(answer["entries"], ","), answer["ledger"], answer["name"])
    )
    print("entries: %s; keys in the state: %s" % (kinds, format(answer["state_keys"], ",")))
    print("root: %s" % answer["root"])
    print("log key: %s" % answer["log_key"])
    said = ["%s %s" % (format(counts[name], ","), name.replace("-", " ")) for name in STATUS if counts[name]]
    print("artefacts: %s" % (", ".join(said) or "none"))
    if answer["discredited"]:
        listed = ", ".join(map(str, answer["discredited"][:8]))
        print("on record but not believed, since their key was compromised: entries %s" % listed)
    if answer["signatures_not_judged"]:
        print(
            "signatures on the checkpoint by keys that were not given with --witness, of which nothing is said: %d"
            % answer["signatures_not_judged"]
        )
    for each in answer["not_checked"]:
        print("NOT CHECKED, because this program does not know them: %s" % each)
    print("It shows that the log, its rules and its state are what the entries make of them.")
    print(
        "It does not show that the authors told the truth, nor, without witnesses, that nobody was shown another log:"
    )
    print(
        "compare ledger and log key with what you were given by another way (--ledger-id, --log-key, --earlier)."
    )


def main(words: list | None = None) -> int:
    """Check an archive and answer.

    Returns:
        Exit status.
    """
    wanted = parse_arguments(words)
    if wanted.archive is None:
        wanted.archive = __file__.replace("\\", "/").rpartition("/")[0] or "."
    try:
        status, answer = checked(wanted)
    except (Unreadable, OSError) as error:
        print("cannot check %s: %s" % (wanted.archive, error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped before everything was checked", file=sys.stderr)
        return 2
    try:
        if wanted.json:
            print(json.dumps(answer, indent=1, sort_keys=True))
        else:
            tell(answer)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the answer has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status
