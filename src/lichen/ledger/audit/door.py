"""An audit from beginning to end: where it goes on from, in which order things are checked, what is reported first."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lichen.errors import (
    CorruptLedgerError,
    FormatVersionError,
    LichenError,
    Rejected,
    StorageError,
    UsageError,
)
from lichen.ledger.audit.checked import Scope
from lichen.ledger.audit.pool import WORTHWHILE_COUNT, CheckPool
from lichen.ledger.audit.replay import Replay
from lichen.ledger.audit.report import AtEntryError, AuditReport, Problem, RowDiffersError
from lichen.ledger.audit.scratch import Scratch
from lichen.ledger.audit.stored import check_stored, known_views, repeated_payload
from lichen.ledger.log_file import LogFile
from lichen.ledger.ports import RowView
from lichen.ledger.state_store import STATE_SCHEMA
from lichen.ledger.storage import LEDGER_FILE_NAME, Database

if TYPE_CHECKING:
    from lichen.ledger.ports import Contract, View
    from lichen.ledger.views import Progress

__all__ = ["audit"]

SAVED_FORM: Final = 2
WORKER_COUNT_MAX: Final = 16

# What reading rows of a damaged page can lead to, before SQLite itself says what is wrong with the page.
_MISREAD: Final = (
    TypeError,
    ValueError,
    IndexError,
    OverflowError,
    AttributeError,
    struct.error,
    sqlite3.Error,
)


def audit(
    directory: Path,
    contracts: Sequence[Contract],
    *,
    views: Sequence[View] = (),
    progress: Progress | None = None,
    keep_in: Path | None = None,
    from_scratch: bool = False,
    worker_count: int | None = None,
) -> AuditReport:
    """Check everything that can be checked without trusting anybody.

    Args:
        directory: Directory that holds ``ledger.sqlite``.
        contracts: Contracts this program has.
        views: Views this program has; those that the file has in the same versions are compared with the entries.
        progress: Told now and then how many entries are done, and how many there are.
        keep_in: Directory of the auditor's own, in which what was derived is kept for each ledger. An audit that was
            interrupted goes on from there, and the next one goes on from this one: entries checked before are hashed
            again and compared with the root that was derived then; signatures and rules are not checked twice. None keeps
            nothing.
        from_scratch: Forget what was kept.
        worker_count: Processes beside this one; None for one for each processor where the ledger is large enough.

    Returns:
        The report; damage of any kind is in it and not raised.

    Raises:
        NotALedgerError: There is no ledger.
        FormatVersionError: A newer Lichen made it.
        StorageError: The operating system refused.
    """
    report = AuditReport(Path(directory) / LEDGER_FILE_NAME)
    try:
        database = Database.open(report.path, read_only=True, more=STATE_SCHEMA)
    except CorruptLedgerError as error:
        report.problem = Problem(None, error.code, error.message)
        return report
    with contextlib.closing(database), database.read():
        try:
            log = LogFile(database, contracts)
            report.ledger_id = log.id
            log.refresh()
            known = known_views(log, views, report)
        except (StorageError, FormatVersionError, UsageError):
            raise
        except LichenError as error:
            report.problem = _problem(report, error)
            return report
        except _MISREAD as error:
            report.problem = _misread(report, database.read_only_uri(), error)
            return report
        if worker_count is None:
            worker_count = min(WORKER_COUNT_MAX, os.cpu_count() or 1) if log.size >= WORTHWHILE_COUNT else 0
        with (
            _scratch(keep_in, log.id) as scratch,
            CheckPool(_scope(log, known), worker_count) as pool,
        ):
            if from_scratch:
                scratch.clear()
            _Audit(log, scratch, pool, report, views, progress).run(known)
    return report


def _scope(log: LogFile, views: Mapping[View, int]) -> Scope:
    """What needs to be known of the ledger to look at stretches of its entries alone."""
    others = [view.kinds for view in views if not isinstance(view, RowView)]
    return Scope(
        contracts=log.rules.in_force,
        origin=log.origin,
        ledger=log.id_text,
        log_key=log.genesis.log_key.raw,
        uri=log.database.read_only_uri(),
        views=tuple((view, count) for view, count in views.items() if isinstance(view, RowView)),
        kept_kinds=frozenset[str]().union(*others),
    )


class _Audit:
    """One audit of an open ledger."""

    def __init__(
        self,
        log: LogFile,
        scratch: Scratch,
        pool: CheckPool,
        report: AuditReport,
        offered: Sequence[View],
        progress: Progress | None,
    ) -> None:
        self._log = log
        self._scratch = scratch
        self._pool = pool
        self._report = report
        self._offered = offered
        self._progress = progress
        self._total = log.size

    def run(self, views: Mapping[View, int]) -> None:
        """Check everything; the report says what came of it."""
        log, report = self._log, self._report
        uri = log.database.read_only_uri()
        pages, state = self._pool.damaged_pages(uri), self._pool.sound_state(uri)
        try:
            self._go_through(views, state)
        except (StorageError, FormatVersionError, UsageError):
            raise
        except LichenError as error:
            report.problem = _problem(report, error)
        except _MISREAD as error:
            report.problem = _misread(report, uri, error)
        if report.problem is None and (damage := _said_of(pages)) is not None:
            report.problem = Problem(None, CorruptLedgerError.code, f"the file is damaged: {damage}")

    def _go_through(self, known: Mapping[View, int], state: Future[tuple[int, bytes] | None]) -> None:
        log, report, scratch = self._log, self._report, self._scratch
        self._told(0)
        others = {view: count for view, count in known.items() if not isinstance(view, RowView)}
        replay = self._begun(known, others)
        try:
            replay.run(self._pool, self._total, self._told, lambda: self._save(replay, others))
        except (LichenError, *_MISREAD):
            self._check_earlier()  # what shows at an earlier entry comes first
            raise
        self._check_earlier()
        report.is_read = True
        check_stored(log, scratch, replay, known, report, self._offered, state.result())
        report.key_count = scratch.key_count()
        report.discredited = _discredited(log, replay)
        if scratch.is_kept and replay.seal is not None and replay.size == replay.seal.tree_size + 1:
            self._save(replay, others)
        if self._progress is not None:
            self._progress(self._total, self._total)

    def _begun(self, known: Mapping[View, int], others: Mapping[View, int]) -> Replay:
        """A replay that goes on where an earlier audit ended, if the entries are still those it checked."""
        log, scratch = self._log, self._scratch
        try:
            said = scratch.progress()
        except (OSError, ValueError, KeyError):
            said = {}
        if said is not None and said.get("bound_to") == self._binding(others) and said["size"] <= log.size:
            replay = self._replay(known, others)
            with contextlib.suppress(CorruptLedgerError):  # then the whole audit says where
                replay.hash_again(self._pool, said["size"], self._told)
                if (replay.frontier.root().hex(), replay.checkpoint_chain.hex()) == (
                    said["root"],
                    said["chain"],
                ):
                    replay.go_on_from(said)
                    return replay
        if said is not None:
            scratch.clear()
        scratch.make_views(others)
        return self._replay(known, others)

    def _replay(self, known: Mapping[View, int], others: Mapping[View, int]) -> Replay:
        """One from the first entry on."""
        for view in known:
            if isinstance(view, RowView):
                self._scratch.make_names(view)
        return Replay(self._log, self._scratch, self._report, others)

    def _binding(self, views: Mapping[View, int]) -> dict[str, Any]:
        """What must be the same for an audit to go on: its own form, ledger, contracts, views whose rows are kept."""
        return {
            "form": SAVED_FORM,
            "ledger": self._log.id,
            "contracts": {contract.name: contract.version for contract in self._log.rules.in_force},
            "views": {view.name: view.version for view in views},
        }

    def _save(self, replay: Replay, views: Mapping[View, int]) -> None:
        """Note how far the audit came. Views that were not offered all of these entries are to be derived anew."""
        if all(filled_to >= replay.size for filled_to in views.values()):
            self._scratch.save({"bound_to": self._binding(views), **replay.to_json()})

    def _check_earlier(self) -> None:
        """Check what does not show in passing: payloads that stand twice, and the state that every seal commits to.

        Raises:
            LichenError: The one at the lowest index.
        """
        twice = repeated_payload(self._log, self._scratch)
        try:
            self._scratch.check_roots(self._pool.build_parts)
        except AtEntryError as error:
            if twice is None or error.index < twice:
                self._report.size = error.index
                raise
        if twice is not None:
            self._report.size = twice
            raise AtEntryError(twice, f"entry {twice} repeats an earlier payload")

    def _told(self, done: int) -> None:
        if self._progress is not None:
            self._progress(done, self._total)


@contextlib.contextmanager
def _scratch(keep_in: Path | None, ledger_id: str) -> Iterator[Scratch]:
    with contextlib.ExitStack() as opened:
        try:
            if keep_in is None:
                place = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="lichen-audit-")))
            else:
                place = keep_in / ledger_id
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
            scratch = _opened_scratch(place, is_kept=keep_in is not None)
        except (OSError, sqlite3.Error) as error:
            raise StorageError(
                f"cannot keep what the audit derives in {keep_in or tempfile.gettempdir()}: {error}",
                remedy="Make room there, or name another directory with TMPDIR.",
            ) from error
        opened.callback(scratch.close)
        yield scratch


def _opened_scratch(place: Path, *, is_kept: bool) -> Scratch:
    """Open what was kept; what is no database any more is worth nothing, and made anew."""
    try:
        return Scratch(place, is_kept=is_kept)
    except sqlite3.DatabaseError:
        Scratch.remove(place)
        return Scratch(place, is_kept=is_kept)


def _problem(report: AuditReport, error: LichenError) -> Problem:
    if isinstance(error, Rejected):
        return Problem(report.size, error.rule, error.message)
    if isinstance(error, AtEntryError):
        return Problem(error.index, CorruptLedgerError.code, error.message)
    remedy = error.remedy if isinstance(error, RowDiffersError) else ""
    return Problem(None if report.is_read else report.size, error.code, error.message, remedy)


def _misread(report: AuditReport, uri: str, error: Exception) -> Problem:
    """Say what is wrong with a file whose rows were not of their types.

    Raises:
        Exception: The error itself, when SQLite finds nothing wrong with the file: then it is a mistake of this program.
    """
    from lichen.ledger.audit.pages import damaged_pages

    try:
        damage = damaged_pages(uri)
    except sqlite3.Error as worse:
        damage = str(worse)
    if damage is None:
        raise error
    return Problem(
        None if report.is_read else report.size, CorruptLedgerError.code, f"the file is damaged: {damage}"
    )


def _said_of(pages: Future[str | None]) -> str | None:
    try:
        return pages.result()
    except sqlite3.Error as error:
        return str(error)


def _discredited(log: LogFile, replay: Replay) -> list[int]:
    """Entries that were accepted, and whose key is now known to have been compromised at that index.

    A key speaks for a range of indices, so where it is believed at the first and last entry it signed, it is for all.
    """
    found: list[int] = []
    authority = log.rules.authority
    for key_id, span in replay.key_spans.items():
        if all(authority.is_believed(key_id, index, replay) for index in span):
            continue
        rows = log.database.connection.execute(
            "SELECT idx FROM entries WHERE idx BETWEEN ? AND ? AND checkpoint IS NULL AND substr(entry, 2, 16)=?",
            (*span, key_id),
        )
        found += [index for (index,) in rows if not authority.is_believed(key_id, index, replay)]
    return sorted(found)
