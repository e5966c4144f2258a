"""`lichen archive`, `lichen restore`, `lichen backup`: out of Lichen, back into it, and a copy meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lichen.cli.help import examples
from lichen.cli.options import Invocation, json_option, ledger_option, pass_invocation

if TYPE_CHECKING:
    from lichen.runs.keeping.archiving import Archived

__all__ = ["archive_command", "backup_command", "restore_command"]

MISSING_SHOWN_MAX = 5


@click.command(
    "archive",
    epilog=examples(
        "lichen archive for-the-auditor",
        "lichen archive kept-archive --update",
        "lichen archive entries-only --no-artefacts",
    ),
)
@click.argument("out")
@click.option("--update", is_flag=True, help="Add to the archive what was recorded since it was written.")
@click.option("--artefacts/--no-artefacts", default=True, help="Whether files are put into it, one CAR each.")
@ledger_option
@json_option
@pass_invocation
def archive_command(
    invocation: Invocation, /, out: str, *, update: bool, artefacts: bool, ledger: str | None
) -> None:
    """Write everything to files that anybody can check.

    OUT is a directory to make: entries, hash tiles, checkpoints, public keys, artefacts, and a program that checks it all with
    nothing but Python's standard library. No secret key is in it. A web server can serve it as it is.
    """
    from lichen.runs.keeping.archiving import archive_ledger

    with (
        invocation.workspace(ledger) as workspace,
        invocation.output.progress("archived") as progress,
    ):
        archived = archive_ledger(workspace, Path(out), artefacts=artefacts, update=update, progress=progress)
        is_private = workspace.ledger.genesis.access == "private"
    if invocation.as_json:
        invocation.output.json(archived.to_json())
        return
    _tell(invocation, archived, is_private=is_private)


def _tell(invocation: Invocation, archived: Archived, *, is_private: bool) -> None:
    from lichen.cli.sentences import plural

    report, say, note = archived.report, invocation.output.line, invocation.output.note
    say(f"{report.directory}: {plural(report.size, 'entry')} of ledger {report.ledger_id[:16]}…")
    counts = report.artefacts
    told = [f"{counts['included']:,} in it"]
    told += [f"{counts[name]:,} {name.replace('-', ' ')}" for name in ("left-out", "missing") if counts[name]]
    say(f"artefacts: {', '.join(told)}")
    say(f"{plural(report.file_count, 'file')}, {report.written_count:,} of them written now")
    say(f"check it: python3 {report.directory}/verify_ledger.py")
    if report.unsealed_count:
        note(
            f"{plural(report.unsealed_count, 'entry')} not in it, because no seal covers them yet; written where the log's key is, an archive "
            "is sealed first and holds all"
        )
    if report.missing:
        shown = ", ".join(report.missing[:MISSING_SHOWN_MAX])
        more = (
            f" and {len(report.missing) - MISSING_SHOWN_MAX:,} more"
            if len(report.missing) > MISSING_SHOWN_MAX
            else ""
        )
        note(f"not in the store, so not in the archive: {shown}{more}")
    if report.damaged:
        note(f"damaged in the store, so not in the archive: {', '.join(report.damaged[:MISSING_SHOWN_MAX])}")
    if archived.unread_count:
        note(
            f"{plural(archived.unread_count, 'record')} with a manifest that could not be read: what it lists is not in the archive"
        )
    if is_private and report.plain_count:
        note(
            f"this ledger is private: {plural(report.plain_count, 'file')} in the archive can be read by whoever gets it"
            " (--no-artefacts leaves them out)"
        )


@click.command(
    "restore",
    epilog=examples("lichen restore kept-archive restored-ledger"),
)
@click.argument("archive")
@click.argument("directory", required=False)
@json_option
@pass_invocation
def restore_command(invocation: Invocation, /, archive: str, directory: str | None) -> None:
    """Make a ledger of an archive again.

    Everything is checked on the way, and every entry and checkpoint comes out byte for byte. DIRECTORY is .lichen when not
    given. The log's secret key is in no archive: until it is put there as log.key, the ledger can be read, not written.
    """
    from lichen.cli.sentences import plural
    from lichen.runs.keeping.archiving import log_key_path, restore_ledger
    from lichen.runs.workspace.project import LEDGER_DIRECTORY

    with invocation.output.progress("restored") as progress:
        restored = restore_ledger(Path(archive), Path(directory or LEDGER_DIRECTORY), progress)
    if invocation.as_json:
        invocation.output.json({name: getattr(restored, name) for name in type(restored).__slots__})
        return
    say = invocation.output.line
    say(
        f"{restored.directory}: {plural(restored.size, 'entry')} of ledger {restored.ledger_id[:16]}…, checked"
    )
    say(f"root {restored.root}, as in the archive")
    say(f"artefacts: {restored.artefact_count:,} in the store")
    if restored.missing:
        shown = ", ".join(restored.missing[:MISSING_SHOWN_MAX])
        rest = len(restored.missing) - MISSING_SHOWN_MAX
        say(f"not in the archive: {shown}{f' and {rest:,} more; --json names all' if rest > 0 else ''}")
    if restored.unjudged_count:
        say(
            f"{plural(restored.unjudged_count, 'signature')} of witnesses kept as they are; `lichen verify --policy FILE` judges them"
        )
    say(f"it can be read; to write to it, put the log's secret key at {log_key_path(restored.directory)}")
    if restored.access == "private":
        say("and the group key beside it as group.key: what is sealed stays sealed without it")


@click.command(
    "backup",
    epilog=examples("lichen backup ../ledger-of-today.sqlite"),
)
@click.argument("file")
@ledger_option
@json_option
@pass_invocation
def backup_command(invocation: Invocation, /, file: str, *, ledger: str | None) -> None:
    """Copy the ledger file while it is in use.

    FILE is a file to make: all that was recorded when the copy began. Artefacts and keys are not in it. Put into an empty
    directory as ledger.sqlite, it is a ledger again.
    """
    from lichen.cli.sentences import plural
    from lichen.runs.keeping.archiving import back_up_ledger
    from lichen.units import format_size

    with (
        invocation.workspace(ledger, read_only=True) as workspace,
        invocation.output.progress("copied") as progress,
    ):
        copied = back_up_ledger(workspace, Path(file), progress)
    if invocation.as_json:
        invocation.output.json({name: getattr(copied, name) for name in type(copied).__slots__})
        return
    invocation.output.line(
        f"{copied.path}: {plural(copied.size, 'entry')} of ledger {copied.ledger_id[:16]}…, {format_size(copied.size_bytes)}"
    )
