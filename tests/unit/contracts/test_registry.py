"""What may be registered: one test per rule, and what each kind changes in the state."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lichen.contracts.record_forms import FORMS
from lichen.contracts.registry import (
    exact_fingerprint,
    is_withdrawn,
    same_work_fingerprint,
    tally_of,
    withdrawn_key,
)
from lichen.crypto.hashes import keyed_digest
from lichen.crypto.keys import SigningKey
from lichen.encoding.base import b64u
from lichen.encoding.canonical import canonical_json
from lichen.encoding.statement import Subject
from lichen.errors import Rejected

CID = "bafkrei" + "a" * 52


def refused(rule, message=""):
    return pytest.raises(Rejected, match=f"^registry[.]{rule}: .*{message}")


def parts_of(world, index):
    return world.record(index).predicate["parts"]


def reuse(world, of, *, member="alice", **changes):
    said = {"of": of, "credit": True, "avoided_joules": 1000.5, "avoided_u95": 0.2} | changes
    return world.say("reuse", said, member=member)


def publish(world, kind, **changes):
    return world.say(
        kind, {"cid": CID, "size_bytes": 10} | changes, subjects=[Subject("iris.csv", b"\x07" * 32)]
    )


class TestFingerprints:
    def test_they_follow_from_the_parts_and_nothing_else(self):
        parts = {
            part: b64u(hashlib.sha256(part.encode()).digest())
            for part in ("command", "code", "data", "rest", "seed")
        }
        assert exact_fingerprint(parts) == exact_fingerprint(dict(reversed(parts.items())))
        other_seed = parts | {"seed": b64u(bytes(32))}
        assert exact_fingerprint(parts) != exact_fingerprint(other_seed)
        assert same_work_fingerprint(parts) == same_work_fingerprint(other_seed)
        for part in ("command", "code", "data", "rest"):
            changed = parts | {part: b64u(bytes(32))}
            assert same_work_fingerprint(parts) != same_work_fingerprint(changed)

    def test_they_are_as_the_format_says(self):
        """SHA-256 of a domain, a zero byte and canonical JSON; computed here by hand."""
        parts = dict.fromkeys(("command", "code", "data", "rest", "seed"), b64u(bytes(32)))
        text = ",".join(f'"{name}":"{b64u(bytes(32))}"' for name in sorted(parts))
        assert (
            exact_fingerprint(parts) == hashlib.sha256(b"lichen exact v1\0{" + text.encode() + b"}").digest()
        )
        text = ",".join(f'"{name}":"{b64u(bytes(32))}"' for name in sorted(parts) if name != "seed")
        assert (
            same_work_fingerprint(parts)
            == hashlib.sha256(b"lichen same-work v1\0{" + text.encode() + b"}").digest()
        )

    def test_no_field_can_state_one(self, world):
        with refused("schema", "unknown field 'exact'"):
            world.run(exact=b64u(bytes(32)))


class TestRun:
    def test_it_writes_exactly_two_keys(self, world):
        before = len(world.values)
        index = world.run()
        assert len(world.values) == before + 2
        parts = parts_of(world, index)
        assert tally_of(world.get, "exact", exact_fingerprint(parts)) == (1, index)
        assert tally_of(world.get, "same-work", same_work_fingerprint(parts)) == (1, index)

    def test_counts_rise_and_the_last_index_moves(self, world):
        world.run(seed="1")
        second, third = world.run(seed="1"), world.run(seed="2")
        parts = parts_of(world, second)
        assert tally_of(world.get, "exact", exact_fingerprint(parts)) == (2, second)
        assert tally_of(world.get, "same-work", same_work_fingerprint(parts)) == (3, third)

    def test_work_never_done_is_absent(self, world):
        assert tally_of(world.get, "exact", bytes(32)) is None

    @pytest.mark.parametrize(
        "changes",
        [
            {"status": "great"},
            {"status": None},
            {"reusable": 1},
            {"reusable": False},
            {"reason": "partial"},
            {"status": "failed"},
            {"status": "interrupted"},
            {"reusable": False, "reason": "Partial!"},
            {"parts": {"command": b64u(bytes(32))}},
            {"family": "x"},
            {"family": b64u(bytes(16))[:-1] + "B"},
            {"data": [b64u(bytes(32))] * 5, "data_count": 5},
            {"data_count": 1},
            {"data": "d"},
            {"metrics": {"accuracy": "high"}},
            {"metrics": {"accuracy": True}},
            {"metrics": {"a" * 65: 1}},
            {"metrics": {f"m{n}": n for n in range(65)}},
            {"target": [1]},
            {"manifest": "QmOldStyle"},
            {"exit_status": "0"},
            {"exit_status": 999},
            {"ranks": 0},
            {"parent": ""},
            {"energy": None},
            {"energy": {"joules": 1}},
            {"nonce": "short"},
            {"time_unix_ms": -1},
            {"time_unix_ms": 1.5},
            {"surprise": 1},
        ],
    )
    def test_its_form_is_closed(self, world, changes):
        with refused("schema"):
            world.run(**changes)

    @pytest.mark.parametrize("status", ["failed", "interrupted"])
    def test_unsuccessful_work_counts_too(self, world, status):
        index = world.run(status=status, reusable=False, reason="exit-status", exit_status=1)
        assert tally_of(world.get, "exact", exact_fingerprint(parts_of(world, index))) == (1, index)

    @pytest.mark.parametrize("name", ["/etc/passwd", "../model.bin", "a/../../b", "nul\0", "x" * 513])
    def test_outputs_stay_inside_the_directory(self, world, name):
        run = world.record(world.run())
        said = {
            key: value
            for key, value in run.predicate.items()
            if key not in ("ledger", "member", "nonce", "time_unix_ms")
        }
        with refused("schema"):
            world.say("run", said, subjects=[Subject(name, bytes(32))])

    def test_many_outputs_become_one_subject(self, world):
        run = world.record(world.run())
        said = {
            key: value
            for key, value in run.predicate.items()
            if key not in ("ledger", "member", "nonce", "time_unix_ms")
        }
        with refused("schema", "9 subjects"):
            world.say("run", said, subjects=[Subject(f"output/{n}", bytes(32)) for n in range(9)])

    @pytest.mark.parametrize(
        "energy",
        [
            {"joules": 1e12, "seconds": 10.5, "parts": {"cpu": [1e12, 0.1]}},
            {"joules": 5.5, "seconds": 0, "parts": {"cpu": [5.5, 0.1]}},
            {"joules": 1000.5, "parts": {"cpu": [900.5, 0.1]}},
        ],
    )
    def test_joules_must_be_possible(self, world, energy):
        whole = {
            "joules": 1.5,
            "u95": 0.2,
            "method": "model",
            "boundary": "process",
            "seconds": 10.5,
        } | energy
        with refused("implausible-energy"):
            world.run(energy=whole)

    @pytest.mark.parametrize(
        "energy",
        [
            {"joules": -1},
            {"u95": -0.1},
            {"method": "guess"},
            {"boundary": "desk"},
            {"parts": {"cpu": 3}},
            {"parts": {"cpu": [1, -1]}},
            {"parts": {"cpu": [1, 1, "guess"]}},
        ],
    )
    def test_energy_has_a_form(self, world, energy):
        whole = {
            "joules": 1.5,
            "u95": 0.2,
            "method": "model",
            "boundary": "process",
            "seconds": 10.5,
        } | energy
        with refused("schema", "energy: "):
            world.run(energy=whole)


class TestReuse:
    def test_it_is_credited_once_for_fingerprint_and_member(self, world):
        world.admit("bob")
        run = world.run()
        first = reuse(world, run)
        with refused("double-credit", f"entry {first}"):
            reuse(world, run)
        with refused("double-credit"):
            reuse(world, world.run(), avoided_joules=1)
        assert reuse(world, run, member="bob")
        assert reuse(world, run, credit=False)
        assert reuse(world, world.run(work="other"))

    def test_same_work_is_credited_by_its_own_fingerprint(self, world):
        one, other = world.run(seed="1"), world.run(seed="2")
        reuse(world, one)
        reuse(world, other)
        reuse(world, one, level="same-work")
        with refused("double-credit"):
            reuse(world, other, level="same-work")

    def test_nobody_avoids_more_than_the_run_cost(self, world):
        with refused("implausible-energy"):
            reuse(world, world.run(), avoided_joules=1000.6)

    def test_the_run_must_be_there(self, world):
        for of in (0, 1, 99, publish(world, "data")):
            with refused("unknown-reference"):
                reuse(world, of)

    def test_the_run_must_be_reusable(self, world):
        run = world.run(reusable=False, reason="network")
        with refused("not-reusable", "network"):
            reuse(world, run)

    def test_withdrawn_runs_answer_nothing(self, world):
        run = world.run()
        world.say("withdraw", {"of": run})
        with refused("withdrawn"):
            reuse(world, run)

    @pytest.mark.parametrize("action", ["revoke", "compromise"])
    def test_a_bad_key_takes_its_hits_along(self, world, action):
        world.admit("bob")
        run = world.run(member="bob")
        said = {"from_index": run} if action == "compromise" else {}
        world.act(action, "bob", key=world.key("bob").public, **said)
        with refused("discredited"):
            reuse(world, run)

    def test_a_rotated_key_does_not(self, world):
        world.admit("bob")
        run = world.run(member="bob")
        world.act("rotate", "bob", by="bob", key=SigningKey.generate().public)
        assert reuse(world, run)

    def test_a_subject_that_names_the_fingerprint_must_be_it(self, world):
        run = world.run()
        said = {"of": run, "credit": True, "avoided_joules": 1, "avoided_u95": 0.2}
        with refused("wrong-fingerprint"):
            world.say("reuse", said, subjects=[Subject("exact", bytes(32))])
        assert world.say("reuse", said, subjects=[Subject("exact", exact_fingerprint(parts_of(world, run)))])


class TestArtefacts:
    @pytest.mark.parametrize("kind", ["data", "model"])
    def test_they_are_counted_by_digest(self, world, kind):
        publish(world, kind)
        last = publish(world, kind)
        assert tally_of(world.get, "artefact", b"\x07" * 32) == (2, last)

    def test_energy_of_work_done_elsewhere_is_declared(self, world):
        energy = {"joules": 5.5, "u95": 0.5, "method": "model", "boundary": "node", "seconds": 2.5}
        with refused("undeclared"):
            publish(world, "model", energy=energy)
        assert publish(world, "model", energy=energy | {"method": "declared"})
        assert publish(world, "model", energy=energy, run=world.run())

    def test_lineage_names_what_is_there(self, world):
        data, run = publish(world, "data"), world.run()
        model = publish(world, "model", run=run, data=[data])
        assert publish(world, "model", base=model)
        for wrong in ({"run": data}, {"data": [run]}, {"base": run}, {"data": [99]}):
            with refused("unknown-reference"):
                publish(world, "model", **wrong)

    def test_evaluations_are_about_models_or_runs(self, world):
        model = publish(world, "model")
        index = world.say("evaluation", {"of": model, "metrics": {"accuracy": 0.9}})
        assert tally_of(world.get, "evaluated", model.to_bytes(8, "big")) == (1, index)
        with refused("unknown-reference"):
            world.say("evaluation", {"of": publish(world, "data"), "metrics": {}})


class TestObjections:
    def test_flags_are_counted_against_their_target(self, world):
        model = publish(world, "model")
        index = world.say("flag", {"of": model, "error": "misses every second case", "severity": "high"})
        assert tally_of(world.get, "flagged", model.to_bytes(8, "big")) == (1, index)
        with refused("schema", "needs an error"):
            world.say("flag", {"of": model})
        with refused("unknown-reference"):
            world.say("flag", {"of": index, "error": "e"})

    def test_a_dispute_is_about_equal_work_with_unequal_results(self, world):
        one, same = world.run(output="a"), world.run(output="a")
        unequal, other_work = world.run(output="b"), world.run(work="v", output="b")
        index = world.say("dispute", {"of": one, "against": unequal})
        assert tally_of(world.get, "disputed", exact_fingerprint(parts_of(world, one))) == (1, index)
        for against in (one, same, other_work):
            with refused("no-dispute"):
                world.say("dispute", {"of": one, "against": against})

    def test_only_its_author_withdraws_and_only_once(self, world):
        world.admit("bob")
        run = world.run(member="bob")
        with refused("withdraw-not-author", "'bob'"):
            world.say("withdraw", {"of": run})
        index = world.say("withdraw", {"of": run, "reason": "wrong labels"}, member="bob")
        assert is_withdrawn(world.get, run)
        assert world.get("registry", withdrawn_key(run)) == index.to_bytes(8, "big")
        with refused("already-withdrawn"):
            world.say("withdraw", {"of": run}, member="bob")
        with refused("unknown-reference"):
            world.say("withdraw", {"of": index}, member="bob")


@pytest.mark.parametrize("kind", sorted(FORMS))
def test_later_versions_are_not_guessed_at(world, kind):
    with refused("schema", "version 1, not 2"):
        world.say(kind, {}, version=2)


@given(st.dictionaries(st.text(max_size=6), st.text(max_size=10), max_size=6))
@example({"seed": 'a","z":"b'})
@example({'a":"b","c': "d"})
@example({"a": "\\", "b": "\x7f", "seed": "\u20ac"})
def test_fingerprints_are_digests_of_canonical_json(parts):
    """Whatever stands in the parts: the short way of writing them never differs."""
    rest = {name: digest for name, digest in parts.items() if name != "seed"}
    assert exact_fingerprint(parts) == keyed_digest(None, "lichen exact v1", canonical_json(parts))
    assert same_work_fingerprint(parts) == keyed_digest(None, "lichen same-work v1", canonical_json(rest))
