"""The published vectors of witnesses and policies: answered as they say, and still what the generator makes."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from lichen.crypto.note import NoteKey, SignedNote
from lichen.errors import EncodingError, VerificationError
from lichen.ledger.policy import parse_policy
from lichen.ledger.quorums import quorum_strength
from lichen.ledger.witness import Checked, Refusal, Seen, check_request, decide

VECTORS = Path(__file__).parents[2] / "vectors" / "witness"


def load(name: str) -> list[dict[str, Any]]:
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


def each(name: str) -> list[Any]:
    return [pytest.param(vector, id=vector["name"]) for vector in load(name)]


@pytest.mark.parametrize("vector", each("policies.json"))
def test_a_policy_is_read_or_refused_with_its_line(vector: dict[str, Any]) -> None:
    policy = base64.b64decode(vector["policy"])
    if vector["accepted"]:
        parse_policy(policy)
        return
    with pytest.raises(EncodingError) as caught:
        parse_policy(policy)
    found = re.match(r"line (\d+) of the policy", caught.value.message)
    assert (None if found is None else int(found[1])) == vector["line"]


@pytest.mark.parametrize("vector", each("quorums.json"))
def test_a_quorum_is_reached_or_not(vector: dict[str, Any]) -> None:
    policy = parse_policy(base64.b64decode(vector["policy"]))
    assert policy.is_quorum([name.encode() for name in vector["signed"]]) == vector["is_quorum"]
    strength = quorum_strength(policy)
    assert (strength.overlap_min, strength.block_min) == (vector["overlap_min"], vector["block_min"])


@pytest.mark.parametrize("vector", each("cosignatures.json"))
def test_a_cosignature_holds_or_not(vector: dict[str, Any]) -> None:
    key = NoteKey.from_vkey(vector["verifier_key"])
    if vector["accepted"]:
        assert SignedNote.from_text(vector["note"]).cosigned_at(key) == vector["time_unix_seconds"]
        return
    try:
        time = SignedNote.from_text(vector["note"]).cosigned_at(key)
    except (EncodingError, VerificationError):
        return
    assert time != vector["time_unix_seconds"]


@pytest.mark.parametrize("vector", each("add-checkpoint.json"))
def test_a_request_gets_the_status_that_the_protocol_says(vector: dict[str, Any]) -> None:
    logs: dict[str, tuple[Any, ...]] = {}
    for key in map(NoteKey.from_vkey, vector["log_keys"]):
        logs[key.name] = (*logs.get(key.name, ()), key.key)
    record = Seen(vector["record_size"], bytes.fromhex(vector["record_root"]))
    checked = check_request(base64.b64decode(vector["body"]), logs, NoteKey.from_vkey(vector["witness_key"]))
    if isinstance(checked, Checked):
        decision = decide(checked, record)
        assert decision.record is None or decision.record.size >= record.size
        answer = decision.refusal
    else:
        answer = checked
    assert (200 if answer is None else answer.status) == vector["status"]
    if vector["status"] == 409:
        assert isinstance(answer, Refusal)
        assert (answer.body, answer.content_type) == (vector["answer"], "text/x.tlog.size")


def test_the_files_are_what_the_generator_makes() -> None:
    spec = importlib.util.spec_from_file_location("make_witness_vectors", VECTORS / "make.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    for name, content in made.build().items():
        assert (VECTORS / name).read_text(encoding="utf-8") == made.text_of(content), name
        assert len({vector["name"] for vector in content}) == len(content), name
