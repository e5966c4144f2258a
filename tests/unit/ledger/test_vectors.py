"""The published vectors: accepted or refused as they say, and still what the generator makes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lichen.crypto.keys import PublicKey, SigningKey
from lichen.crypto.note import NoteKey, SignedNote
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement
from lichen.errors import EncodingError, VerificationError
from lichen.ledger.checkpoint import open_checkpoint, origin_of
from lichen.ledger.genesis import Genesis, ledger_id_of
from lichen.ledger.proof import verify_consistency, verify_inclusion
from lichen.ledger.receipt import Receipt, verify_receipt
from lichen.ledger.seal import Seal
from lichen.ledger.state_map import MapProof, StateMap, verify_absence, verify_membership
from lichen.ledger.tree import leaf_hash, root_of

VECTORS = Path(__file__).parents[2] / "vectors" / "ledger"


def load(name: str) -> Any:
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_ledger_vectors", VECTORS / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_inclusion(vector: dict[str, Any]) -> None:
    verify_inclusion(
        vector["leaf_index"],
        vector["tree_size"],
        bytes.fromhex(vector["leaf_hash"]),
        [bytes.fromhex(item) for item in vector["proof"]],
        bytes.fromhex(vector["root_hash"]),
    )


def check_consistency(vector: dict[str, Any]) -> None:
    verify_consistency(
        vector["size_first"],
        vector["size_second"],
        bytes.fromhex(vector["root_first"]),
        bytes.fromhex(vector["root_second"]),
        [bytes.fromhex(item) for item in vector["proof"]],
    )


def check_state(vector: dict[str, Any]) -> None:
    root, key = bytes.fromhex(vector["root"]), bytes.fromhex(vector["key"])
    proof = MapProof.from_bytes(bytes.fromhex(vector["proof"]))
    if vector["value"] is None:
        verify_absence(root, key, proof)
    else:
        verify_membership(root, key, bytes.fromhex(vector["value"]), proof)


def check_entry(vector: dict[str, Any]) -> None:
    Entry.from_bytes(bytes.fromhex(vector["entry"])).verify(PublicKey(bytes.fromhex(vector["public_key"])))


def check_note(vector: dict[str, Any]) -> None:
    keys = tuple(map(NoteKey.from_vkey, vector["verifier_keys"]))
    if SignedNote.from_text(vector["note"]).verify(keys) != keys:
        raise VerificationError("not all keys signed")


FILES = {
    "inclusion.json": check_inclusion,
    "consistency.json": check_consistency,
    "state-proofs.json": check_state,
    "entry-signatures.json": check_entry,
    "note-signatures.json": check_note,
}


@pytest.mark.parametrize(
    ("file", "vector"),
    [
        pytest.param(file, vector, id=f"{file[:-5]}-{vector['name']}")
        for file in FILES
        for vector in load(file)
    ],
)
def test_a_claim_is_accepted_or_refused_as_it_should_be(file: str, vector: dict[str, Any]) -> None:
    if vector["accepted"]:
        FILES[file](vector)
    else:
        with pytest.raises((EncodingError, VerificationError)):
            FILES[file](vector)


def test_no_two_vectors_of_a_file_share_a_name() -> None:
    for file in FILES:
        names = [vector["name"] for vector in load(file)]
        assert len(names) == len(set(names)), file


def test_the_whole_ledger_follows_from_its_entries() -> None:
    ledger = load("ledger.json")
    log_key = SigningKey.from_seed(bytes.fromhex(ledger["seeds"]["log"])).public
    author = SigningKey.from_seed(bytes.fromhex(ledger["seeds"]["author"])).public
    entries = [Entry.from_bytes(bytes.fromhex(text)) for text in ledger["entries"]]
    assert [entry.to_dsse().decode() for entry in entries] == ledger["envelopes"]
    assert [entry.payload.decode() for entry in entries] == ledger["payloads"]
    genesis = Genesis.from_entry(entries[0], ledger["ledger_id"])
    assert genesis.log_key == log_key == PublicKey.from_did_key(ledger["log_key"]["did"])
    assert log_key.key_id.hex() == ledger["log_key"]["id"]
    assert ledger_id_of(entries[0]) == ledger["ledger_id"]
    leaves = [leaf_hash(entry.to_bytes()) for entry in entries]
    state = StateMap({bytes.fromhex(key): bytes.fromhex(value) for key, value in ledger["state"].items()})
    seal = Seal.from_statement(Statement.from_bytes(entries[2].payload))
    assert (seal.tree_size, seal.root) == (2, root_of(leaves[:2]))
    assert seal.state_root == state.root() == bytes.fromhex(ledger["state_root"])
    origin = origin_of(ledger["ledger_id"])
    checkpoint = open_checkpoint(ledger["checkpoint"], origin, log_key)
    assert (checkpoint.tree_size, checkpoint.root) == (3, root_of(leaves))
    found = {name: verify_receipt(Receipt.parse(text), None if name == "entry" else log_key, origin)
             for name, text in ledger["receipts"].items()}  # fmt: skip
    assert found["entry"].entry == entries[1]
    assert found["entry"].author_verified
    entries[1].verify(author)
    assert (found["present"].value, found["absent"].value) == (b"value 7", None)


def test_the_files_are_what_the_generator_makes() -> None:
    made = generator()
    for name, content in made.build().items():
        assert (VECTORS / name).read_text(encoding="utf-8") == made.text_of(content), name
