"""Who may write: one test per rule, and the ranges in which keys speak."""

from __future__ import annotations

import pytest

from lichen.contracts.members import (
    KEY_COUNT_MAX,
    is_key_in_force,
    is_key_valid,
    key_binding,
    member_of,
)
from lichen.crypto.keys import SigningKey
from lichen.encoding.base import b64u
from lichen.errors import Rejected


def refused(rule):
    return pytest.raises(Rejected, match=f"^{rule.replace('.', '[.]')}: ")


class TestAdmission:
    def test_the_genesis_binds_its_admins_and_the_log_key(self, world):
        assert key_binding(world.get, world.key("alice").public.key_id).first == 1
        assert member_of(world.get, "alice").admin
        assert key_binding(world.get, world.log_key.public.key_id).member == "log"
        assert member_of(world.get, "log") is None

    def test_an_admitted_member_may_write_from_the_next_entry_on(self, world):
        index = world.admit("bob")
        assert key_binding(world.get, world.key("bob").public.key_id).first == index + 1
        assert world.run(member="bob") == index + 1
        assert not member_of(world.get, "bob").admin

    def test_who_was_not_admitted_may_not(self, world):
        with refused("members.not-admitted"):
            world.run(member="bob")

    def test_nobody_writes_in_anothers_name(self, world):
        world.admit("bob")
        with refused("members.forged-author"):
            world.say("run", {}, member="alice", key=world.key("bob"))

    def test_the_log_key_is_nobodys(self, world):
        for member in ("log", "alice"):
            with refused("members.not-admitted"):
                world.say("run", {}, member=member, key=world.log_key)
        with refused("members.duplicate-key"):
            world.act("admit", "eve", key=world.log_key.public)

    def test_only_admins_admit_and_add_keys(self, world):
        world.admit("bob")
        with refused("members.not-admin"):
            world.act("admit", "carol", by="bob", key=world.key("carol").public)
        with refused("members.not-admin"):
            world.act("add-key", "bob", by="bob", key=SigningKey.generate().public)

    def test_an_admin_may_be_admitted_later(self, world):
        world.admit("bob", admin=True)
        assert world.act("admit", "carol", by="bob", key=world.key("carol").public)

    def test_a_member_is_admitted_once(self, world):
        world.admit("bob")
        with refused("members.already-admitted"):
            world.act("admit", "bob", key=SigningKey.generate().public)

    def test_a_key_belongs_to_one_member_for_ever(self, world):
        world.admit("bob")
        for action, subject in (("admit", "carol"), ("add-key", "alice"), ("rotate", "alice")):
            with refused("members.duplicate-key"):
                world.act(action, subject, key=world.key("bob").public)

    @pytest.mark.parametrize(
        ("action", "fields"),
        [("add-key", ["key"]), ("rotate", ["key"]), ("revoke", []), ("compromise", ["key", "from_index"])],
    )
    def test_nothing_happens_to_who_is_no_member(self, world, action, fields):
        said = {"key": SigningKey.generate().public, "from_index": 1}
        with refused("members.unknown-member"):
            world.act(action, "bob", **{name: said[name] for name in fields})


class TestKeys:
    def test_a_second_key_speaks_beside_the_first(self, world):
        world.admit("bob")
        second = SigningKey.generate()
        world.act("add-key", "bob", key=second.public)
        world.say("flag", {"of": world.run(member="bob"), "error": "e"}, member="bob", key=second)
        assert member_of(world.get, "bob").keys == (world.key("bob").public.key_id, second.public.key_id)

    def test_keys_are_bounded_in_number(self, world):
        for _ in range(KEY_COUNT_MAX - 1):
            world.act("add-key", "alice", key=SigningKey.generate().public)
        with refused("members.too-many-keys"):
            world.act("add-key", "alice", key=SigningKey.generate().public)

    def test_rotating_ends_the_key_that_signed_and_no_other(self, world):
        world.admit("bob")
        phone, new = SigningKey.generate(), SigningKey.generate()
        world.act("add-key", "bob", key=phone.public)
        index = world.act("rotate", "bob", by="bob", signed_with=phone, key=new.public)
        binding = key_binding(world.get, phone.public.key_id)
        assert (binding.end, binding.reason) == (index + 1, "rotated")
        with refused("members.key-revoked"):
            world.say("run", {}, member="bob", key=phone)
        assert world.run(member="bob")
        assert is_key_in_force(world.get, phone.public.key_id), (
            "rotating does not discredit what a key signed"
        )
        assert is_key_valid(world.get, new.public.key_id, world.size)

    def test_an_admin_rotates_every_key_of_another(self, world):
        world.admit("bob")
        new = SigningKey.generate()
        world.act("rotate", "bob", key=new.public)
        with refused("members.key-revoked"):
            world.run(member="bob")
        world.keys["bob"] = new
        assert world.run(member="bob")

    def test_a_member_revokes_its_own_key(self, world):
        world.admit("bob")
        index = world.act("revoke", "bob", by="bob", key=world.key("bob").public)
        key_id = world.key("bob").public.key_id
        assert is_key_valid(world.get, key_id, index), "the revocation itself was signed with it"
        assert not is_key_valid(world.get, key_id, index + 1)
        assert not is_key_in_force(world.get, key_id)
        with refused("members.key-revoked"):
            world.run(member="bob")

    def test_an_admin_revokes_all_keys_and_can_let_the_member_back(self, world):
        world.admit("bob")
        world.act("add-key", "bob", key=SigningKey.generate().public)
        world.act("revoke", "bob")
        with refused("members.key-revoked"):
            world.run(member="bob")
        with refused("members.key-revoked"):
            world.act("revoke", "bob")
        world.keys["bob"] = SigningKey.generate()
        world.act("add-key", "bob", key=world.key("bob").public)
        assert world.run(member="bob")

    def test_nobody_else_touches_a_members_keys(self, world):
        world.admit("bob")
        world.admit("carol")
        for action, said in (("rotate", {"key": SigningKey.generate().public}), ("revoke", {})):
            with refused("members.not-admin"):
                world.act(action, "carol", by="bob", **said)
        with refused("members.unknown-key"):
            world.act("revoke", "bob", by="bob", key=world.key("carol").public)

    def test_the_last_admin_stays(self, world):
        with refused("members.last-admin"):
            world.act("revoke", "alice")
        second = SigningKey.generate()
        world.act("add-key", "alice", key=second.public)
        world.act("revoke", "alice", key=world.key("alice").public)
        world.keys["alice"] = second
        with refused("members.last-admin"):
            world.act("revoke", "alice", key=second.public)
        world.admit("bob", admin=True)
        assert world.act("revoke", "alice")


class TestCompromise:
    def test_it_reaches_back_to_the_first_bad_index(self, world):
        world.admit("bob")
        runs = [world.run(member="bob", work=str(number)) for number in range(4)]
        key_id = world.key("bob").public.key_id
        world.act("compromise", "bob", key=world.key("bob").public, from_index=runs[2])
        assert [is_key_valid(world.get, key_id, index) for index in runs] == [True, True, False, False]
        assert not is_key_in_force(world.get, key_id)
        with refused("members.key-revoked"):
            world.run(member="bob")

    def test_it_may_only_move_the_end_forward_in_doubt(self, world):
        world.admit("bob")
        early, late = world.run(member="bob"), world.run(member="bob", work="v")
        world.act("compromise", "bob", key=world.key("bob").public, from_index=early)
        world.act("compromise", "bob", key=world.key("bob").public, from_index=late)
        assert key_binding(world.get, world.key("bob").public.key_id).end == early

    def test_the_index_lies_in_the_keys_life(self, world):
        first = world.admit("bob")
        for bad in (0, first, world.size + 1):
            with refused("members.bad-index"):
                world.act("compromise", "bob", key=world.key("bob").public, from_index=bad)

    def test_a_stolen_key_cannot_discredit_its_owners_past(self, world):
        world.admit("bob")
        index = world.run(member="bob")
        with refused("members.own-word"):
            world.act("compromise", "bob", by="bob", key=world.key("bob").public, from_index=index)
        other = SigningKey.generate()
        world.act("add-key", "bob", key=other.public)
        assert world.act(
            "compromise", "bob", by="bob", signed_with=other, key=world.key("bob").public, from_index=index
        )

    def test_a_lone_admin_can_say_its_own_key_is_lost(self, world):
        index = world.act("compromise", "alice", key=world.key("alice").public, from_index=world.size)
        assert not is_key_valid(world.get, world.key("alice").public.key_id, index)


class TestForm:
    def test_actions_are_known(self, world):
        with refused("members.unknown-action"):
            world.act("promote", "alice", key=SigningKey.generate().public)

    @pytest.mark.parametrize(
        ("action", "said"),
        [
            ("admit", {}),
            ("admit", {"key": "short"}),
            ("admit", {"key": b64u(bytes(32)), "from_index": 3}),
            ("admit", {"key": b64u(bytes(32)), "admin": 1}),
            ("rotate", {"key": b64u(bytes(32)), "admin": True}),
            ("revoke", {"from_index": 2}),
            ("compromise", {"key": b64u(bytes(32))}),
            ("compromise", {"key": b64u(bytes(32)), "from_index": -1}),
            ("add-key", {"key": b64u(bytes(32)), "note": "x"}),
        ],
    )
    def test_each_action_has_its_fields(self, world, action, said):
        with refused("members.schema"):
            world.act(action, "alice" if action != "admit" else "bob", **said)

    @pytest.mark.parametrize("name", ["", "log", "a b", "-a", "a" * 129, "é", 7])
    def test_member_ids_have_a_form(self, world, name):
        with refused("members.schema"):
            world.act("admit", name, key=SigningKey.generate().public)

    def test_a_key_must_be_a_point_of_the_curve(self, world):
        with refused("members.schema"):
            world.act("admit", "bob", key=b64u(bytes(31) + b"\x80"))

    def test_later_versions_are_not_guessed_at(self, world):
        with refused("members.schema"):
            world.say("member", {"action": "revoke", "subject_member": "alice"}, version=2)

    def test_values_fit_the_state(self, world):
        """The longest member with the most keys is still at most 1,024 bytes, or the state would refuse it."""
        name = "a" * 128
        world.act("admit", name, key=world.key(name).public)
        for _ in range(KEY_COUNT_MAX - 1):
            world.act("add-key", name, key=SigningKey.generate().public)
        assert len(member_of(world.get, name).to_bytes()) <= 1_024
