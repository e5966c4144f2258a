"""The parts of an audit: the state from writes alone, checks on other processors, going on from an earlier audit."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from lichen.contracts import default_contracts
from lichen.encoding.statement import Subject
from lichen.errors import StorageError
from lichen.ledger.audit import audit, pool
from lichen.ledger.audit.checked import Checked, Checker, Scope
from lichen.ledger.audit.pool import CheckPool
from lichen.ledger.audit.sound_state import sound_state
from lichen.ledger.audit.state_roots import StateRoots
from lichen.ledger.audit.view_rows import RowComparer
from lichen.ledger.ports import RowView
from lichen.ledger.state_map import StateMap
from lichen.runs.queries.views import default_views


def writes_of_seals(rng: Random, count: int) -> list[dict[bytes, bytes | None]]:
    """Keys that share long beginnings, come, change and go."""
    known: list[bytes] = []
    seals = []
    for _ in range(count):
        writes: dict[bytes, bytes | None] = {}
        for _ in range(rng.randrange(7)):
            if known and rng.random() < 0.5:
                key = rng.choice(known)
            else:
                shared = rng.choice(known)[: rng.randrange(32)] if known and rng.random() < 0.5 else b""
                key = (shared + rng.randbytes(32))[:32]
                known.append(key)
            writes[key] = None if rng.random() < 0.35 else rng.randbytes(9)
        seals.append(writes)
    return seals


class TestStateRoots:
    """The roots are those of the definition, after every seal, however the writes are kept."""

    @pytest.mark.parametrize("seed", range(6))
    @pytest.mark.parametrize("spilled", [False, True])
    def test_roots_are_those_of_the_map(self, tmp_path: Path, seed: int, spilled: bool) -> None:
        rng = Random(seed)
        state, roots, expected = StateMap(), StateRoots(tmp_path), []
        for writes in writes_of_seals(rng, 60):
            state.update(writes)
            roots.add(writes)
            expected.append(state.root())
            if spilled and rng.random() < 0.2:
                roots.spill()
        assert list(roots.roots()) == expected
        assert not list(tmp_path.glob("roots-*"))

    def test_what_was_spilled_is_taken_over_up_to_where_it_counts(self, tmp_path: Path) -> None:
        seals = writes_of_seals(Random(9), 40)
        first, state = StateRoots(tmp_path), StateMap()
        for writes in seals[:25]:
            first.add(writes)
            state.update(writes)
        sizes = first.spill()
        for writes in seals[25:]:
            first.add(writes)
        first.spill()
        again = StateRoots(tmp_path)
        again.take_over(sizes, 25)
        assert list(again.roots())[-1] == state.root()
        with pytest.raises(OSError, match="shorter than it was"):
            again.take_over([size + 1 for size in sizes], 25)
        again.discard()
        assert not list(tmp_path.iterdir())


def scope_of(log, **changes: Any) -> Scope:
    uri = changes.get("uri") or log.database.read_only_uri()
    said = Scope(log.rules.in_force, log.origin, log.id_text, log.genesis.log_key.raw, uri)
    return replace(said, **changes)


def all_rows(log) -> list[tuple[int, bytes | None, bytes]]:
    return log.database.connection.execute(
        "SELECT idx, checkpoint, entry FROM entries ORDER BY idx"
    ).fetchall()


class TestChecks:
    """What is known of an entry by itself is the same wherever it is found out."""

    def test_other_processes_find_the_same(self, filled) -> None:
        log = filled._log
        key = log.record(2).key
        known, stretches = (
            {key.key_id: key.raw},
            [(at, min(at + 50, log.size)) for at in range(0, log.size, 50)],
        )
        scope = scope_of(log)
        here = Checker(scope).check(all_rows(log), known)
        with CheckPool(scope, 2) as processes:
            assert processes.worker_count == 2
            there = list(processes.examine(stretches, lambda: known))
        assert [one.start for one in there] == [start for start, _ in stretches]
        assert [leaf for one in there for leaf in one.leaves] == [one.leaf for one in here]
        assert [one for found in there for one in found.checks] == [
            Checked.unpack(one.pack()) for one in here
        ]
        assert all(Checked.unpack(one.pack({"run"})) == one for one in here)
        assert len([one for one in here if one.is_checkpoint_signed]) == 13
        told = [one.effect for one in here if one.row[1] is None]
        assert told[0] is None  # the genesis
        assert sum(effect is not None and len(effect.writes) == 2 for effect in told) >= 100

    def test_what_does_not_hold_is_told_of_the_entry_it_is_about(self, filled) -> None:
        log = filled._log
        key = log.record(2).key
        rows = all_rows(log)[:12]
        rows[7] = (7, None, rows[7][2][:-9] + b"x" * 9)
        rows[9] = (9, b"short", b"")
        here = Checker(scope_of(log)).check(rows, {key.key_id: key.raw})
        assert [one.signer is None for one in here[5:10]] == [False, False, True, False, True]
        assert here[9].statement is None
        assert (here[9].row, here[9].is_checkpoint_signed) == (rows[9], False)
        assert all(Checked.unpack(one.pack({"run"})) == one for one in here)

    def test_what_looks_back_or_names_another_ledger_is_judged_in_order(self, site, filled) -> None:
        log = filled._log
        run = filled.append(site.entry(filled)).index
        said = filled.statement(
            "flag", [Subject("it", bytes(32))], {"of": run, "error": "wrong"}, member="alice"
        )
        flag = filled.append_signed(said, site.alice).index
        rows = all_rows(log)
        known = {site.alice.public.key_id: site.alice.public.raw}
        here = Checker(scope_of(log))
        ours = here.check(rows, known)
        assert ours[run].effect is not None
        assert ours[flag].effect is None
        assert ours[flag].signer == site.alice.public.raw
        elsewhere = Checker(scope_of(log, ledger="A" * 43))
        assert not any(one.effect for one in elsewhere.check(rows, known))
        unsigned = here.check([(run, None, rows[run][2][:20] + bytes(61) + rows[run][2][81:])], known)
        assert unsigned[0].effect is None

    def test_statements_are_sent_only_where_they_are_needed(self, filled) -> None:
        log = filled._log
        key = log.record(2).key
        checks = Checker(scope_of(log)).check(all_rows(log), {key.key_id: key.raw})
        lean = [Checked.unpack(one.pack()) for one in checks]
        assert [one.statement is None for one in lean] == [one.effect is not None for one in checks]
        assert [one.row is None for one in lean] == [one.effect is not None for one in checks]

    def test_a_process_that_dies_is_an_error(self, filled) -> None:
        with CheckPool(scope_of(filled._log), 1) as processes:
            processes._workers[0].kill()
            processes._workers[0].wait()
            with pytest.raises(StorageError, match="a process of this audit ended with status -9"):
                list(processes.examine([(0, 256)], dict))

    def test_contracts_that_cannot_be_handed_over_are_asked_here(self, filled) -> None:
        class Local:
            name, version, kinds = "local", 1, frozenset({"run"})

        with CheckPool(scope_of(filled._log, contracts=(Local(),)), 2) as processes:
            assert processes.worker_count == 0

    @pytest.mark.parametrize("worker_count", [0, 1])
    def test_a_stretch_ends_before_what_is_missing(self, site, filled, worker_count: int) -> None:
        scope = scope_of(filled._log)
        filled.close()
        with sqlite3.connect(site.path, isolation_level=None) as connection:
            connection.execute("DELETE FROM entries WHERE idx = 300")
        connection.close()
        with CheckPool(scope, worker_count) as pool:
            found = list(pool.examine([(256, 512), (512, 520)], dict))
        assert [(len(one.leaves), one.misread) for one in found] == [(44, None), (8, None)]

    def test_what_sqlite_cannot_read_is_told(self, site, filled) -> None:
        scope = scope_of(filled._log)
        filled.close()
        site.path.write_bytes(b"SQLite format 3\0" + bytes(4_080))
        with CheckPool(scope, 1) as pool:
            (found,) = pool.examine([(0, 256)], dict)
        assert found.leaves == []
        assert found.misread


def test_a_sound_state_is_told_and_another_is_looked_at_again(site, filled) -> None:
    filled.close()
    uri = filled._log.database.read_only_uri()
    with site.open(read_only=True) as ledger:
        newest = (ledger._log.store.version, ledger._log.store.root)
    with CheckPool(scope_of(filled._log, uri=uri), 1) as pool:
        assert pool.sound_state(uri).result() == sound_state(uri) == newest
        with contextlib.closing(sqlite3.connect(site.path, isolation_level=None)) as connection:
            connection.execute(
                "UPDATE state_buckets SET data = zeroblob(9) WHERE node = (SELECT max(node) FROM state_buckets)"
            )
        assert pool.sound_state(uri).result() is None
    with CheckPool(scope_of(filled._log, uri=uri), 0) as pool:
        assert pool.sound_state(uri).result() is None


class TestRowsOfViews:
    """Rows are looked up where they should be, and names told in order."""

    def test_counts_names_and_the_first_difference_are_told(self, site, filled) -> None:
        filled.close()
        with site.open(views=default_views()) as ledger:
            assert ledger.connection is not None
            records = [ledger.record(index) for index in range(2, 30)]
        with contextlib.closing(sqlite3.connect(site.path, isolation_level=None)) as connection:
            views = [view for view in default_views() if isinstance(view, RowView)]
            comparer = RowComparer(connection, [(view, 620) for view in views])
            found = comparer.compare(records)
            assert found.counts == {"view_run": 28, "view_output": 28, "view_work": 84}
            assert found.names == {"view_name": ["accuracy", "loss", b"d" * 32]}
            assert found.wrong is None
            assert comparer.compare(records).names == {}
            connection.execute("UPDATE view_output SET name = 'x' WHERE idx = 9")
            wrong = comparer.compare(records).wrong
            assert wrong is not None
            assert (wrong[0], "entry 9 is missing" in wrong[1]) == ("view_output", True)
            fewer = RowComparer(connection, [(view, 10) for view in views])
            assert fewer.compare(records[3:]).counts["view_run"] == 5


def audited(site, keep: Path | None, **options):
    return audit(site.directory, default_contracts(), views=default_views(), keep_in=keep, **options)


class TestGoingOn:
    """What was derived is kept, and believed only while the entries are those it was derived from."""

    def test_an_audit_goes_on_from_the_last_one(self, site, filled, tmp_path: Path) -> None:
        keep = tmp_path / "audits"
        filled.seal(force=True)
        first = audited(site, keep)
        assert (first.problem, first.resumed_from) == (None, 0)
        filled.append_many(site.entries(filled, 30), seal=True)
        filled.close()
        second = audited(site, keep)
        assert (second.problem, second.resumed_from) == (None, first.size)
        anew = audited(site, None)
        for name in ("size", "sealed_size", "root", "kinds", "key_count", "discredited"):
            assert getattr(second, name) == getattr(anew, name), name
        assert audited(site, keep, from_scratch=True).resumed_from == 0
        assert audited(site, keep).resumed_from == anew.size

    def test_a_changed_entry_among_those_checked_before_is_named(self, site, filled, tmp_path: Path) -> None:
        keep = tmp_path / "audits"
        filled.close()
        assert audited(site, keep).is_sound
        with sqlite3.connect(site.path, isolation_level=None) as connection:
            (data,) = connection.execute("SELECT entry FROM entries WHERE idx=600").fetchone()
            connection.execute("UPDATE entries SET entry=? WHERE idx=600", (data[:-20] + b"\0" + data[-19:],))
        connection.close()
        report = audited(site, keep)
        assert (report.resumed_from, report.problem.index) == (0, 600)

    def test_a_changed_checkpoint_among_those_checked_before_is_found(
        self, site, filled, tmp_path: Path
    ) -> None:
        keep = tmp_path / "audits"
        filled.close()
        assert audited(site, keep).is_sound
        with sqlite3.connect(site.path, isolation_level=None) as connection:
            index, checkpoint = connection.execute(
                "SELECT idx, checkpoint FROM entries WHERE checkpoint IS NOT NULL AND idx > 1 LIMIT 1"
            ).fetchone()
            changed = checkpoint[:-1] + bytes([checkpoint[-1] ^ 1])
            connection.execute("UPDATE entries SET checkpoint=? WHERE idx=?", (changed, index))
        connection.close()
        assert audited(site, keep).problem.index == index

    @pytest.mark.parametrize("harm", ["cut", "garbage", "missing", "other"])
    def test_what_is_kept_may_be_damaged(self, site, filled, tmp_path: Path, harm: str) -> None:
        keep = tmp_path / "audits"
        filled.close()
        assert audited(site, keep).is_sound
        (place,) = keep.iterdir()
        if harm == "missing":
            next(place.glob("writes-*")).unlink()
        elif harm == "cut":
            max(place.glob("writes-*"), key=lambda path: path.stat().st_size).write_bytes(b"")
        elif harm == "other":
            with sqlite3.connect(place / "derived.sqlite", isolation_level=None) as connection:
                connection.execute("UPDATE derived_progress SET said=replace(said, 'bound_to', 'bound')")
            connection.close()
        else:
            (place / "derived.sqlite").write_bytes(b"garbage" * 1_000)
        report = audited(site, keep)
        assert (report.problem, report.resumed_from) == (None, 0)

    def test_an_interrupted_audit_goes_on(self, site, filled, tmp_path: Path, monkeypatch) -> None:
        from lichen.ledger.audit import replay

        keep = tmp_path / "audits"
        filled.close()
        monkeypatch.setattr(replay, "SAVE_EVERY_COUNT", 100)

        def interrupted(done: int, _total: int) -> None:
            if done > 300:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            audited(site, keep, progress=interrupted)
        report = audited(site, keep)
        assert report.problem is None
        assert report.resumed_from > 100
        assert report.size == filled_size(site)


def filled_size(site) -> int:
    with sqlite3.connect(site.path) as connection:
        (last,) = connection.execute("SELECT max(idx) FROM entries").fetchone()
    connection.close()
    return last + 1


def test_other_processes_are_used_for_a_large_ledger_and_find_the_same(site, filled, monkeypatch) -> None:
    filled.close()
    alone = audited(site, None, worker_count=0)
    monkeypatch.setattr(pool, "AHEAD_COUNT", 1)
    together = audited(site, None, worker_count=2)
    assert together.to_json() == alone.to_json()
    assert together.is_sound


def test_a_row_of_a_view_that_was_changed_is_found(site, filled) -> None:
    filled.close()
    with site.open(views=default_views()) as ledger:
        assert ledger.connection.execute("SELECT count(*) FROM view_run").fetchone() == (605,)
    report = audited(site, None)
    assert report.is_sound, report.problem
    assert set(report.views.values()) == {report.size}
    before = site.path.read_bytes()
    for change in (
        "UPDATE view_run SET energy_joules = 1.0 WHERE idx = 77",
        "DELETE FROM view_work WHERE idx = 77",
        "INSERT INTO view_withdrawn VALUES (5, 6, 'never said')",
        "UPDATE views SET filled_to = filled_to + 1 WHERE name = 'runs'",
        "UPDATE views SET filled_to = filled_to - 400 WHERE name = 'runs'",
        "UPDATE views SET objects = '{}' WHERE name = 'runs'",
        "UPDATE views SET objects = '[' || objects WHERE name = 'runs'",
        "UPDATE views SET name = 'runt' WHERE name = 'runs'",
        "UPDATE views SET version = 0 WHERE name = 'runs'",
        "DROP INDEX view_run_exact",
        "CREATE TABLE view_more (a INTEGER)",
    ):
        with sqlite3.connect(site.path, isolation_level=None) as connection:
            connection.execute(change)
        connection.close()
        problem = audited(site, None).problem
        assert problem is not None, change
        assert problem.index is None, change
        site.path.write_bytes(before)
    assert audited(site, None).is_sound


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "UPDATE view_run SET energy_joules = 1e-9, zone = 'XX' WHERE idx = 77",
            "in the row of view_run for entry 77, energy_joules is 1e-09 and should be 1840.5; zone is 'XX' and should be nothing",
        ),
        (
            "UPDATE view_work SET value = 2 WHERE idx = 77 AND metric_id = 1",
            "in the row of view_work for entry 77 with data_id = 3, metric_id = 1, energy_millijoules = 1840500, idx = 77,"
            " value is 2.0 and should be 0.951",
        ),
        (
            "DELETE FROM view_work WHERE idx = 77 AND metric_id = 0",
            "the row of view_work for entry 77 is missing: there should be one with"
            " data_id = 3, metric_id = 0, energy_millijoules = 1840500, idx = 77",
        ),
        (
            "UPDATE view_output SET name = 'else' WHERE idx = 77",
            "the row of view_output for entry 77 is missing: there should be one with sha256 = {sha256}, idx = 77, name = 'output/0'",
        ),
        (
            "INSERT INTO view_output VALUES (x'00', 77, 'more')",
            "view_output has a row that no entry calls for, with sha256 = 00, idx = 77, name = 'more'",
        ),
        (
            "INSERT INTO view_work VALUES (1, 2, 3, 100000, 0.5)",
            "view_work has a row that no entry calls for, with data_id = 1, metric_id = 2, energy_millijoules = 3, idx = 100000",
        ),
        (
            "INSERT INTO view_withdrawn VALUES (5, 6, 'never said')",
            "view_withdrawn has a row that no entry calls for, with target = 5",
        ),
        (
            "UPDATE view_name SET name = 'lost' WHERE id = 2",
            "in the row of view_name with id = 2, name is 'lost' and should be 'loss'",
        ),
    ],
)
def test_a_row_that_differs_is_described(site, filled, change: str, message: str) -> None:
    subject = filled.record(77).statement.subjects[0].sha256.hex()
    filled.close()
    with site.open(views=default_views()) as ledger:
        assert ledger.connection is not None
    with sqlite3.connect(site.path, isolation_level=None) as connection:
        assert connection.execute(change).rowcount == 1
    connection.close()
    problem = audited(site, None).problem
    assert (problem.index, problem.code) == (None, "corrupt-ledger")
    assert problem.message == message.format(sha256=f"{subject[:60]}…")
    assert "lichen restore" in problem.remedy


def test_views_this_program_does_not_have_are_named(site, filled) -> None:
    filled.close()
    with site.open(views=default_views()) as ledger:
        assert ledger.connection is not None
    report = audit(site.directory, default_contracts())
    assert report.is_sound, report.problem
    assert report.unchecked_views == ["artefacts", "members", "reuse", "runs"]


def test_processes_say_nothing_of_their_own(site, filled, capfd) -> None:
    filled.close()
    assert audited(site, None, worker_count=1).is_sound
    assert capfd.readouterr() == ("", "")
