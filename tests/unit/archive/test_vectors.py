"""The mutation vectors, put to Lichen and to the program that travels with an archive."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mutation_vectors
import pytest

from lichen.crypto.keys import PublicKey
from lichen.crypto.note import NoteKey, SignedNote
from lichen.encoding.canonical import parse_canonical
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement
from lichen.errors import EncodingError, VerificationError
from lichen.ledger.checkpoint import open_checkpoint
from lichen.ledger.receipt import Receipt, verify_receipt
from lichen.ledger.seal import Seal, check_succession

VECTORS = Path(__file__).parents[2] / "vectors"
Vector = dict[str, Any]


def load(name: str) -> list[Vector]:
    found: list[Vector] = json.loads((VECTORS / name).read_text(encoding="utf-8"))
    return found


def raw(vector: Vector, name: str) -> bytes:
    return bytes.fromhex(vector[name])


# -- as Lichen judges --


def seal_in_lichen(vector: Vector) -> None:
    seal = Seal.from_statement(Statement.from_bytes(raw(vector, "payload")))
    before = vector["previous"]
    check_succession(
        seal, None if before is None else Seal.from_statement(Statement.from_bytes(raw(vector, "previous")))
    )
    if (seal.tree_size, seal.sealer, seal.consensus) != (vector["index"], "log", "solo"):
        raise VerificationError("another seal")
    if (seal.root.hex(), seal.state_root.hex()) != (vector["root"], vector["state_root"]):
        raise VerificationError("other roots")


LICHEN: dict[str, Callable[[Vector], object]] = {
    "ed25519": lambda v: PublicKey(raw(v, "public_key")).verify(raw(v, "message"), raw(v, "signature")),
    "canonical-json": lambda v: parse_canonical(raw(v, "data")),
    "statements": lambda v: Statement.from_bytes(raw(v, "payload")),
    "envelopes": lambda v: Entry.from_dsse(raw(v, "envelope")).verify(PublicKey(raw(v, "public_key"))),
    "seals": seal_in_lichen,
    "checkpoints": lambda v: open_checkpoint(v["note"], v["origin"], PublicKey(raw(v, "log_key"))),
    "cosignatures": lambda v: SignedNote.from_text(v["note"]).cosigned_at(
        NoteKey.from_vkey(v["witness"]), v["now_unix_seconds"]
    ),
    "receipts": lambda v: verify_receipt(
        Receipt.parse(v["receipt"]), PublicKey(raw(v, "log_key")), v["origin"]
    ),
}

# -- as the one-file program judges --

Program = types.ModuleType


def held(program: Program, is_so: bool) -> None:
    if not is_so:
        raise program.Fault("it does not hold")


def seal_alone(program: Program, vector: Vector) -> None:
    replay = program.Replay(None)
    fixed = {"log": raw(vector, "root"), "state": raw(vector, "state_root")}
    for name, root in fixed.items():
        setattr(replay, name, types.SimpleNamespace(root=lambda root=root: root, size=vector["index"]))
    replay.genesis = types.SimpleNamespace(
        consensus="solo", log_key=None, contracts={"members": 1, "registry": 1}
    )
    replay.members.log_keys = [(0, None)]
    if vector["previous"] is not None:
        replay.seal = program.parse_record(raw(vector, "previous")).said
    record = program.parse_record(raw(vector, "payload"))
    record.index = vector["index"]
    held(program, record.kind == "seal")
    replay.take_seal(record)


def checkpoint_alone(program: Program, vector: Vector) -> None:
    key = program.note_key(vector["origin"], program.Key(raw(vector, "log_key")))
    text, _, _ = program.open_note(vector["note"], [key])
    held(program, program.parse_checkpoint(text)[0] == vector["origin"])


def entry_alone(program: Program, vector: Vector) -> None:
    key_id, signature, payload = program.parse_entry(raw(vector, "entry"))
    key = program.Key(raw(vector, "public_key"))
    held(program, key.key_id == key_id and key.verify(program.signed_bytes(payload), signature))


def note_alone(program: Program, vector: Vector) -> None:
    keys = [program.witness_key(text) for text in vector["verifier_keys"]]
    _, signed, _ = program.open_note(vector["note"], keys)
    held(program, len(signed) == len(keys))


ALONE: dict[str, Callable[[Program, Vector], object]] = {
    "mutations/ed25519": lambda p, v: held(
        p, p.Key(raw(v, "public_key")).verify(raw(v, "message"), raw(v, "signature"))
    ),
    "mutations/canonical-json": lambda p, v: p.parse_canonical(raw(v, "data")),
    "mutations/statements": lambda p, v: p.parse_record(raw(v, "payload")),
    "mutations/seals": seal_alone,
    "mutations/checkpoints": checkpoint_alone,
    "mutations/cosignatures": lambda p, v: p.open_note(
        v["note"], [p.witness_key(v["witness"])], v["now_unix_seconds"]
    ),
    "ledger/entry-signatures": entry_alone,
    "ledger/note-signatures": note_alone,
}


@pytest.mark.parametrize("family", sorted(LICHEN))
def test_lichen_judges_as_the_vectors_say(family: str):
    for vector in load(f"mutations/{family}.json"):
        try:
            LICHEN[family](vector)
        except (EncodingError, VerificationError) as error:
            assert not vector["accepted"], f"{vector['name']}: {error}"
        else:
            assert vector["accepted"], vector["name"]


@pytest.mark.parametrize("family", sorted(ALONE))
def test_the_program_of_an_archive_judges_as_the_vectors_say(family: str, verifier: Program):
    for vector in load(f"{family}.json"):
        try:
            ALONE[family](verifier, vector)
        except verifier.Fault as error:
            assert not vector["accepted"], f"{vector['name']}: {error}"
        else:
            assert vector["accepted"], vector["name"]


def test_every_family_has_vectors_of_both_kinds_under_names_of_their_own():
    families = [load(path.relative_to(VECTORS).as_posix()) for path in (VECTORS / "mutations").glob("*.json")]
    assert {path.stem for path in (VECTORS / "mutations").glob("*.json")} == set(LICHEN)
    for vectors in families:
        assert {vector["accepted"] for vector in vectors} == {True, False}
        assert len({vector["name"] for vector in vectors}) == len(vectors)
    assert sum(map(len, families)) >= 200


@pytest.mark.parametrize("family", sorted(mutation_vectors.FAMILIES))
def test_the_files_are_what_the_generator_makes(family: str):
    assert (VECTORS / "mutations" / f"{family}.json").read_text(encoding="utf-8") == mutation_vectors.text_of(
        family
    )


RFC_8032_SIGNATURES = {
    "rfc-8032-1": (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    "rfc-8032-2": (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "rfc-8032-3": (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    "rfc-8032-4": (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
}


def test_the_first_vectors_are_those_of_the_rfc():
    by_name = {vector["name"]: vector for vector in load("mutations/ed25519.json")}
    for name, (key, signature) in RFC_8032_SIGNATURES.items():
        assert (by_name[name]["public_key"], by_name[name]["signature"]) == (key, signature)


def test_both_judge_random_signatures_alike(verifier: Program):
    """Among them signatures with a component of small order, where cofactor and byte comparison decide."""
    import random

    from lichen.crypto.keys import SigningKey

    draw = random.Random(8032)
    for number in range(150):
        key, message = SigningKey.from_seed(draw.randbytes(32)), draw.randbytes(number)
        signature = key.sign(message)
        kind = number % 3
        if kind == 1:
            point = verifier.point_of(signature[:32])
            shifted = verifier.brought_down(
                [verifier.added(point, *small_point(verifier, draw.randrange(1, 8)))]
            )[0]
            first = (shifted[1] | (shifted[0] & 1) << 255).to_bytes(32, "little")
            signature = first + signature[32:]
        elif kind == 2:
            place = draw.randrange(64)
            signature = (
                signature[:place]
                + bytes([signature[place] ^ 1 << draw.randrange(8)])
                + signature[place + 1 :]
            )
        try:
            key.public.verify(message, signature)
        except VerificationError:
            expected = False
        else:
            expected = True
        assert expected is (kind == 0)
        assert verifier.Key(key.public.raw).verify(message, signature) is expected


def small_point(program: Program, multiple: int) -> tuple[int, int, int]:
    """A multiple of a point of order eight, in the form that `added` takes."""
    start = program.point_of(program.SMALL_ORDER_Y[4].to_bytes(32, "little"))
    total = (0, 1, 1, 0)
    x, y, _, product = start
    step = (y - x, y + x, 2 * program.D * product % program.P)
    for _ in range(multiple):
        total = program.added(total, *step)
    x, y, _, product = program.brought_down([total])[0]
    return y - x, y + x, 2 * program.D * product % program.P


def test_both_encode_numbers_alike(verifier: Program):
    import math
    import random
    import struct

    from lichen.encoding.canonical import canonical_json

    draw = random.Random(8785)
    for number in range(4_000):
        value = (
            struct.unpack(">d", draw.randbytes(8))[0]
            if number % 2
            else round(draw.uniform(-1e6, 1e6), number % 13)
        )
        if not math.isfinite(value):
            continue
        try:
            expected = canonical_json(value).decode()
        except EncodingError:
            with pytest.raises(verifier.Fault):
                verifier.canonical(value)
        else:
            assert verifier.canonical(value) == expected
