"""A new key for the log: who must agree, what it signs from when on, and how a reader follows from the old key to the new."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from lichen.contracts import default_contracts
from lichen.crypto.keys import SigningKey
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement
from lichen.errors import EncodingError, KeyFileError, LichenError, Rejected, RollbackError, VerificationError
from lichen.ledger.audit import audit
from lichen.ledger.genesis import Admin
from lichen.ledger.ledger import Ledger
from lichen.ledger.receipt import Receipt, verify_receipt
from lichen.ledger.succession import LOG_KEY_KIND, Approval, Succession, SuccessionLink, follow_succession

if TYPE_CHECKING:
    from tests.unit.ledger.conftest import Site

NEW, NEWER, STRANGER = (SigningKey.from_seed(bytes([number]) * 32) for number in (101, 102, 103))
BOB, CAROL = (SigningKey.from_seed(bytes([number]) * 32) for number in (104, 105))


def succeed(site: Site, ledger: Ledger, new: SigningKey = NEW, old: SigningKey | None = None) -> int:
    said = Succession.sign(ledger.id, old or site.log_key, new)
    return ledger.succeed_log_key(said, "alice", site.alice, new).index


def reopened(site: Site, key: SigningKey) -> Ledger:
    return site.open(log_key=key)


def test_the_new_key_signs_from_the_entry_after_the_record_on(site: Site) -> None:
    ledger = site.create()
    before = ledger.append(site.entry(ledger), seal=True).index
    index = succeed(site, ledger)
    ledger.append(site.entry(ledger), seal=True)
    keys = [entry.key_id for at, entry in ledger.entries() if b"lichen:seal" in entry.payload and at > before]
    assert ledger.entry(before + 1).key_id == site.log_key.public.key_id
    assert keys[1:] == [NEW.public.key_id] * (len(keys) - 1)
    assert ledger.entry(index + 1).key_id == NEW.public.key_id
    assert (ledger.log_key, ledger.log_keys) == (NEW.public, (site.log_key.public, NEW.public))
    assert ledger.genesis.log_key == site.log_key.public
    ledger.close()
    report = audit(site.directory, default_contracts())
    assert report.is_sound, report.problem
    again = reopened(site, NEW)
    again.append(site.entry(again), seal=True)
    again.close()
    assert audit(site.directory, default_contracts()).is_sound


def test_the_old_key_opens_the_ledger_no_more(site: Site) -> None:
    ledger = site.create()
    succeed(site, ledger)
    ledger.close()
    with pytest.raises(KeyFileError, match="an old one"):
        reopened(site, site.log_key)
    with pytest.raises(KeyFileError, match="not the one"):
        reopened(site, STRANGER)


def test_who_has_it_open_with_the_old_key_seals_nothing_and_appends_nothing_that_must_be_sealed(
    site: Site,
) -> None:
    ledger, other = site.create(), site.open()
    succeed(site, ledger)
    size = ledger.size
    with pytest.raises(KeyFileError, match="new key since entry"):
        other.append(site.entry(other), seal=True)
    assert ledger.size == size
    other._appender = None  # so that closing it does not try to seal either


def test_a_record_without_the_new_key_at_hand_is_refused(site: Site) -> None:
    """Else nothing could be sealed after it."""
    ledger = site.create()
    said = Succession.sign(ledger.id, site.log_key, NEW)
    statement = ledger.statement(LOG_KEY_KIND, [said.subject], said.predicate(), member="alice")
    with pytest.raises(Rejected, match="log-key-elsewhere"):
        ledger.append_signed(statement, site.alice)
    with pytest.raises(Rejected, match="log-key-elsewhere"):
        ledger.append(Entry.signed(statement.to_bytes(), site.alice))


def test_a_copy_from_before_the_succession_is_a_rollback(site: Site) -> None:
    import shutil

    ledger = site.create()
    ledger.append(site.entry(ledger), seal=True)
    ledger.close()
    shutil.copytree(site.directory, site.directory.parent / "copy")
    ledger = site.open()
    succeed(site, ledger)
    ledger.close()
    shutil.rmtree(site.directory)
    shutil.copytree(site.directory.parent / "copy", site.directory)
    for key in (site.log_key, NEW):
        with pytest.raises(RollbackError):
            reopened(site, key)


# ---- who must agree ---------------------------------------------------------------------------------------------


def with_admins(site: Site) -> Ledger:
    return site.create(
        admins=(Admin("alice", site.alice.public), Admin("bob", BOB.public), Admin("carol", CAROL.public))
    )


def approval(site: Site, ledger: Ledger, by: SigningKey, new: SigningKey = NEW) -> Approval:
    return Approval.sign(ledger.id, site.log_key.public, new.public, by)


def test_a_majority_of_the_admins_must_agree(site: Site) -> None:
    ledger = with_admins(site)
    with pytest.raises(Rejected, match="1 of 3 admins"):
        succeed(site, ledger)
    assert ledger.log_key == site.log_key.public
    said = Succession.sign(ledger.id, site.log_key, NEW, [approval(site, ledger, BOB)])
    ledger.succeed_log_key(said, "alice", site.alice, NEW)
    assert ledger.log_key == NEW.public


def test_an_admin_whose_keys_are_gone_does_not_count(site: Site) -> None:
    ledger = with_admins(site)
    revoke = {"action": "revoke", "subject_member": "carol"}
    ledger.append_signed(
        ledger.statement("member", [dataclasses.replace(Succession.sign(ledger.id, site.log_key, NEW).subject, name="carol")],
                         revoke, member="alice"),
        site.alice,
    )  # fmt: skip
    with pytest.raises(Rejected, match="1 of 2 admins"):
        succeed(site, ledger)
    said = Succession.sign(ledger.id, site.log_key, NEW, [approval(site, ledger, CAROL)])
    with pytest.raises(Rejected, match="speaks for no admin"):
        ledger.succeed_log_key(said, "alice", site.alice, NEW)


Change = Callable[["Site", Ledger], tuple[Succession, str, SigningKey]]


def _with(**changes: object) -> Change:
    def make(site: Site, ledger: Ledger) -> tuple[Succession, str, SigningKey]:
        said = Succession.sign(ledger.id, site.log_key, NEW, [approval(site, ledger, BOB)])
        return dataclasses.replace(said, **changes), "alice", site.alice

    return make


def _approved(*makers: Callable[[Site, Ledger], Approval]) -> Change:
    def make(site: Site, ledger: Ledger) -> tuple[Succession, str, SigningKey]:
        said = Succession.sign(ledger.id, site.log_key, NEW, [each(site, ledger) for each in makers])
        return said, "alice", site.alice

    return make


REFUSED: dict[str, tuple[str, Change]] = {
    "consent by a stranger": ("log-key-consent", _with(consent=STRANGER.sign(b"x"))),
    "consent of zeros": ("log-key-consent", _with(consent=bytes(64))),
    "acceptance by a stranger": ("log-key-consent", _with(acceptance=STRANGER.sign(b"x"))),
    "consent for another ledger": (
        "log-key-consent",
        lambda site, _: (Succession.sign("ab" * 32, site.log_key, NEW), "alice", site.alice),
    ),
    "consent for another key": ("log-key-consent", _with(key=NEWER.public)),
    "a key in place of one that is not the log's": (
        "log-key-previous",
        lambda site, ledger: (Succession.sign(ledger.id, STRANGER, NEW), "alice", site.alice),
    ),
    "an admin's key in place of the log's": (
        "log-key-previous",
        lambda site, ledger: (Succession.sign(ledger.id, site.alice, NEW), "alice", site.alice),
    ),
    "the same key again": (
        "duplicate-key",
        lambda site, ledger: (Succession.sign(ledger.id, site.log_key, site.log_key), "alice", site.alice),
    ),
    "the key of an admin": (
        "duplicate-key",
        lambda site, ledger: (Succession.sign(ledger.id, site.log_key, BOB), "alice", site.alice),
    ),
    "no approval": ("log-key-majority", _with(approvals=())),
    "an approval by a stranger": ("log-key-approval", _approved(lambda s, g: approval(s, g, STRANGER))),
    "an approval by the log's key": ("log-key-approval", _approved(lambda s, g: approval(s, g, s.log_key))),
    "an approval of another key": ("log-key-approval", _approved(lambda s, g: approval(s, g, BOB, NEWER))),
    "an approval for another ledger": (
        "log-key-approval",
        _approved(lambda s, g: Approval.sign("ab" * 32, s.log_key.public, NEW.public, BOB)),
    ),
    "an approval under another admin's key id": (
        "log-key-approval",
        _approved(lambda s, g: dataclasses.replace(approval(s, g, BOB), key_id=CAROL.public.key_id)),
    ),
    "the author approving once more": ("log-key-approval", _approved(lambda s, g: approval(s, g, s.alice))),
    "one admin approving twice": (
        "log-key-approval",
        _approved(lambda s, g: approval(s, g, BOB), lambda s, g: approval(s, g, BOB)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_agreed_on_changes_nothing(site: Site, name: str) -> None:
    ledger = with_admins(site)
    rule, change = REFUSED[name]
    said, member, author = change(site, ledger)
    with pytest.raises(Rejected) as caught:
        ledger.succeed_log_key(said, member, author, NEW)
    assert caught.value.rule == f"members.{rule}"
    assert ledger.log_keys == (site.log_key.public,)
    ledger.append(site.entry(ledger), seal=True)


def test_somebody_who_is_no_admin_may_not_say_it(site: Site) -> None:
    ledger = site.create()
    admit = {
        "action": "admit",
        "subject_member": "bob",
        "key": Succession.sign(ledger.id, BOB, BOB).predicate()["key"],
    }
    subject = Succession.sign(ledger.id, site.log_key, BOB).subject
    ledger.append_signed(ledger.statement("member", [subject], admit, member="alice"), site.alice)
    said = Succession.sign(ledger.id, site.log_key, NEW)
    with pytest.raises(Rejected, match="not-admin"):
        ledger.succeed_log_key(said, "bob", BOB, NEW)


@pytest.mark.parametrize("field", ["acceptance", "approvals", "consent", "key", "previous"])
def test_a_record_that_lacks_a_part_is_refused(site: Site, field: str) -> None:
    ledger = site.create()
    said = Succession.sign(ledger.id, site.log_key, NEW)
    predicate = {name: value for name, value in said.predicate().items() if name != field}
    statement = ledger.statement(LOG_KEY_KIND, [said.subject], predicate, member="alice")
    with pytest.raises(Rejected, match=r"members\.schema"):
        ledger.append_signed(statement, site.alice)


# ---- what an auditor finds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["seal", "checkpoint"])
def test_an_auditor_finds_what_the_old_key_signed_after_its_time(site: Site, what: str) -> None:
    ledger = site.create()
    index = succeed(site, ledger)
    appender, old = ledger._appender, site.log_key
    assert appender is not None

    def seal_falsely() -> None:
        log = appender._log
        add = log.add_seal

        def add_seal(data: bytes, sign: Callable[[bytes], bytes]) -> None:
            payload = Entry.from_bytes(data).payload
            if what == "seal":
                add(Entry.signed(payload, old).to_bytes(), sign)
            else:
                add(data, old.sign)

        log.add_seal = add_seal  # type: ignore[method-assign]
        try:
            ledger.append(site.entry(ledger), seal=True)
        finally:
            log.add_seal = add  # type: ignore[method-assign]

    seal_falsely()
    ledger._appender = None
    ledger.close()
    report = audit(site.directory, default_contracts())
    assert not report.is_sound
    assert report.problem is not None
    assert report.problem.index == index + 3
    assert "not signed by the log" in report.problem.message


# ---- how a reader follows ---------------------------------------------------------------------------------------


@pytest.fixture
def twice(site: Site) -> Ledger:
    """A ledger whose log is at its third key, with a run before, between and after."""
    ledger = site.create()
    ledger.append(site.entry(ledger), seal=True)
    succeed(site, ledger)
    ledger.append(site.entry(ledger), seal=True)
    succeed(site, ledger, NEWER, NEW)
    ledger.append(site.entry(ledger), seal=True)
    return ledger


def test_whoever_trusts_any_of_the_keys_or_the_id_believes_a_receipt(site: Site, twice: Ledger) -> None:
    for index in range(twice.size):
        receipt = Receipt.parse(twice.receipt(index).to_text())
        assert len(receipt.about.succession) == 2
        for key, origin in [
            (None, twice.origin),
            (site.log_key.public, None),
            (NEW.public, None),
            (NEWER.public, twice.origin),
        ]:
            found = verify_receipt(receipt, key, origin)
            assert any("majority of the admins" in sentence for sentence in found.does_not_prove)
        with pytest.raises(VerificationError):
            verify_receipt(receipt, STRANGER.public, twice.origin)
    state = Receipt.parse(twice.state_receipt("members", b"admins").to_text())
    assert verify_receipt(state, site.log_key.public, twice.origin).value == b"1"


def test_a_receipt_from_before_says_nothing_of_it(site: Site) -> None:
    ledger = site.create()
    text = ledger.receipt(0).to_text()
    succeed(site, ledger)
    assert Receipt.parse(text).about.succession == ()
    assert verify_receipt(Receipt.parse(text), site.log_key.public).index == 0


def changed(receipt: Receipt, *links: SuccessionLink) -> Receipt:
    return dataclasses.replace(receipt, about=dataclasses.replace(receipt.about, succession=links))


def resigned(site: Site, link: SuccessionLink, ledger: Ledger, **changes: object) -> SuccessionLink:
    """The same link with its record changed, and signed again by whoever is in a position to."""
    statement = Statement.from_bytes(link.entry.payload)
    said = dataclasses.replace(Succession.from_statement(statement), **changes)
    common = {name: statement.predicate[name] for name in ("ledger", "member", "nonce", "time_unix_ms")}
    new = Statement(LOG_KEY_KIND, (said.subject,), {**said.predicate(), **common})
    return dataclasses.replace(link, entry=Entry.signed(new.to_bytes(), site.alice))


MUTATIONS: dict[str, Callable[[Site, Ledger, SuccessionLink, SuccessionLink], tuple[SuccessionLink, ...]]] = {
    "none": lambda s, g, a, b: (),
    "the first only": lambda s, g, a, b: (a,),
    "the second only": lambda s, g, a, b: (b,),
    "in the wrong order": lambda s, g, a, b: (b, a),
    "the first twice": lambda s, g, a, b: (a, a, b),
    "an index one more": lambda s, g, a, b: (dataclasses.replace(a, index=a.index + 1), b),
    "a proof with a hash flipped": lambda s, g, a, b: (dataclasses.replace(a, proof=(bytes(32), *a.proof[1:])), b),
    "a proof with a hash left out": lambda s, g, a, b: (a, dataclasses.replace(b, proof=b.proof[:-1])),
    "an entry of another place": lambda s, g, a, b: (dataclasses.replace(a, entry=b.entry), b),
    "an entry of another kind": lambda s, g, a, b: (dataclasses.replace(a, entry=g.entry(2)), b),
    "a record that is not in the log": lambda s, g, a, b: (resigned(s, a, g, approvals=(Approval(bytes(16), bytes(64)),)), b),
    "a consent that does not hold": lambda s, g, a, b: (resigned(s, a, g, consent=bytes(64)), b),
    "an acceptance that does not hold": lambda s, g, a, b: (a, resigned(s, b, g, acceptance=bytes(64))),
    "another new key": lambda s, g, a, b: (a, resigned(s, b, g, key=STRANGER.public)),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
@pytest.mark.parametrize("trusted", ["the id", "the first key"])
def test_a_chain_that_was_changed_leads_nowhere(site: Site, twice: Ledger, name: str, trusted: str) -> None:
    receipt = twice.receipt(2)
    bad = changed(receipt, *MUTATIONS[name](site, twice, *receipt.about.succession))
    with pytest.raises((VerificationError, EncodingError)):
        verify_receipt(bad, None if trusted == "the id" else site.log_key.public, twice.origin)


def test_a_stolen_old_key_alone_gives_the_log_no_new_key(site: Site) -> None:
    """It can consent; but what it says must be in a log that the new key signs, and readers of the true one never meet it."""
    ledger = site.create()
    succeed(site, ledger)
    receipt = ledger.receipt(1)
    thief = Succession.sign(ledger.id, site.log_key, STRANGER)
    link = receipt.about.succession[0]
    forged = resigned(
        site, link, ledger, **{name: getattr(thief, name) for name in ("key", "consent", "acceptance")}
    )
    assert follow_succession([forged], ledger.id, site.log_key.public) == STRANGER.public
    with pytest.raises(VerificationError):
        verify_receipt(changed(receipt, forged), site.log_key.public, ledger.origin)


def test_a_chain_of_another_ledger_is_refused(site: Site, twice: Ledger) -> None:
    with pytest.raises(VerificationError, match="another ledger"):
        follow_succession(twice.receipt(2).about.succession, "ab" * 32, site.log_key.public)


def test_malformed_chains_are_refused_by_the_reader(twice: Ledger) -> None:
    from lichen.encoding.base import b64, b64_decode

    text = twice.receipt(2).to_text()
    magic, extra, *rest = text.split("\n")
    said = b64_decode(extra.removeprefix("extra "))
    for old, new in [
        (b'"succession":[', b'"succession":[[],'), (b'"index":', b'"indey":'), (b'"proof":["', b'"proof":["A'),
        (b'"succession":[{', b'"succession":[{"a":1,'),
    ]:  # fmt: skip
        assert old in said
        bad = "\n".join([magic, "extra " + b64(said.replace(old, new, 1)), *rest])
        with pytest.raises(LichenError):
            Receipt.parse(bad)
