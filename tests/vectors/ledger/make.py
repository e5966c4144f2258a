"""Make the vectors of ledger format v1: what must be accepted, and what must be refused, named after the mutation.

``python make.py`` writes the JSON files beside it; ``python make.py --check`` says whether they are what it would write.
Every mutation is tried here first: one that is accepted by mistake stops the program instead of becoming a vector.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lichen.crypto.keys import PublicKey, SigningKey
from lichen.crypto.note import NoteKey, NoteSignature, SignatureType, SignedNote, cosign_note, sign_note
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement, Subject
from lichen.errors import EncodingError, VerificationError
from lichen.ledger.checkpoint import Checkpoint, origin_of, sign_checkpoint
from lichen.ledger.genesis import Admin, Genesis, Sealing, ledger_id_of
from lichen.ledger.proof import consistency_proof, inclusion_proof, verify_consistency, verify_inclusion
from lichen.ledger.receipt import Receipt, verify_receipt
from lichen.ledger.seal import Seal
from lichen.ledger.state_map import MapProof, StateMap, state_key, verify_absence, verify_membership
from lichen.ledger.tree import leaf_hash, root_of

HERE = Path(__file__).resolve().parent
LOG, AUTHOR, OTHER, WITNESS = (SigningKey.from_seed(bytes([number]) * 32) for number in (1, 2, 3, 4))
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
FIELD_PRIME = 2**255 - 19

Vector = dict[str, Any]


def refused(check: Callable[[], object]) -> bool:
    try:
        check()
    except (EncodingError, VerificationError):
        return True
    return False


def flipped(data: bytes, position: int = 0) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1
    return bytes(changed)


def labelled(name: str, accepted: bool, check: Callable[[], object], **members: Any) -> Vector:
    """Return a vector after checking that it is accepted, or refused, as it is said to be."""
    if refused(check) == accepted:
        raise SystemExit(f"the vector {name} is not {'accepted' if accepted else 'refused'}")
    return {"accepted": accepted, "name": name, **members}


# ---- the log's tree ---------------------------------------------------------------------------------------------


LEAVES = [leaf_hash(b"leaf %d" % number) for number in range(300)]


def subtree_root(start: int, end: int) -> bytes:
    return root_of(LEAVES[start:end])


def inclusion_claim(name: str, accepted: bool, claim: tuple[int, int, bytes, list[bytes], bytes]) -> Vector:
    index, size, leaf, proof, root = claim
    return labelled(
        name,
        accepted,
        lambda: verify_inclusion(*claim),
        leaf_hash=leaf.hex(),
        leaf_index=index,
        proof=[item.hex() for item in proof],
        root_hash=root.hex(),
        tree_size=size,
    )


def inclusion_vectors() -> Iterator[Vector]:
    cases = [
        (0, 1),
        (0, 2),
        (1, 2),
        (2, 3),
        (4, 7),
        (6, 7),
        (0, 8),
        (7, 8),
        (12, 13),
        (255, 256),
        (256, 257),
        (100, 300),
    ]
    for index, size in cases:
        proof = inclusion_proof(index, size, subtree_root)
        claim = (index, size, LEAVES[index], proof, subtree_root(0, size))
        yield inclusion_claim(f"{index}-of-{size}", True, claim)
    for index, size in [(0, 1), (4, 7), (12, 13), (100, 300)]:
        for name, claim in inclusion_mutations(index, size):
            yield inclusion_claim(f"{index}-of-{size}-{name}", False, claim)


def inclusion_mutations(
    index: int, size: int
) -> Iterator[tuple[str, tuple[int, int, bytes, list[bytes], bytes]]]:
    leaf, root = LEAVES[index], subtree_root(0, size)
    proof = inclusion_proof(index, size, subtree_root)
    yield "index-one-more", (index + 1, size, leaf, proof, root)
    yield "index-equal-to-size", (size, size, leaf, proof, root)
    yield "index-negative", (-1, size, leaf, proof, root)
    yield "index-beyond-63-bits", (index + 2**63, size, leaf, proof, root)
    yield "size-zero", (index, 0, leaf, proof, root)
    yield "size-doubled", (index, 2 * size + 2, leaf, proof, root)
    yield "leaf-flipped", (index, size, flipped(leaf), proof, root)
    yield "leaf-not-hashed", (index, size, b"leaf %d" % index, proof, root)
    yield "leaf-hashed-as-node", (index, size, hashlib.sha256(b"\x01leaf %d" % index).digest(), proof, root)
    yield (
        "leaf-hashed-without-prefix",
        (index, size, hashlib.sha256(b"leaf %d" % index).digest(), proof, root),
    )
    yield "root-flipped", (index, size, leaf, proof, flipped(root, 31))
    yield "root-of-nothing", (index, size, leaf, proof, root_of([]))
    yield "root-empty", (index, size, leaf, proof, b"")
    yield "proof-with-root-appended", (index, size, leaf, [*proof, root], root)
    yield "proof-with-leaf-before-it", (index, size, leaf, [leaf, *proof], root)
    yield "proof-with-an-empty-hash-appended", (index, size, leaf, [*proof, b""], root)
    for position in range(len(proof)):
        for name, item in [
            ("flipped", flipped(proof[position])),
            ("cut", proof[position][:31]),
            ("zero", bytes(32)),
        ]:
            changed = [*proof[:position], item, *proof[position + 1 :]]
            yield f"hash-{position}-{name}", (index, size, leaf, changed, root)
        yield f"hash-{position}-left-out", (index, size, leaf, proof[:position] + proof[position + 1 :], root)
        doubled = proof[: position + 1] + proof[position:]
        yield f"hash-{position}-doubled", (index, size, leaf, doubled, root)
    if len(proof) > 1:
        yield "proof-reversed", (index, size, leaf, proof[::-1], root)


def consistency_claim(name: str, accepted: bool, claim: tuple[int, int, bytes, bytes, list[bytes]]) -> Vector:
    first, second, root_first, root_second, proof = claim
    return labelled(
        name,
        accepted,
        lambda: verify_consistency(*claim),
        proof=[item.hex() for item in proof],
        root_first=root_first.hex(),
        root_second=root_second.hex(),
        size_first=first,
        size_second=second,
    )


def consistency_vectors() -> Iterator[Vector]:
    cases = [
        (0, 0),
        (0, 5),
        (1, 1),
        (1, 2),
        (3, 7),
        (4, 7),
        (6, 7),
        (6, 8),
        (7, 7),
        (8, 13),
        (255, 257),
        (256, 300),
    ]
    for first, second in cases:
        proof = consistency_proof(first, second, subtree_root)
        claim = (first, second, subtree_root(0, first), subtree_root(0, second), proof)
        yield consistency_claim(f"{first}-to-{second}", True, claim)
    for first, second in [(0, 5), (3, 7), (4, 7), (7, 7), (255, 257)]:
        for name, claim in consistency_mutations(first, second):
            yield consistency_claim(f"{first}-to-{second}-{name}", False, claim)


def consistency_mutations(
    first: int, second: int
) -> Iterator[tuple[str, tuple[int, int, bytes, bytes, list[bytes]]]]:
    one, two = subtree_root(0, first), subtree_root(0, second)
    proof = consistency_proof(first, second, subtree_root)
    yield "sizes-swapped", (second + 1, first, two, one, proof)
    yield "size-negative", (-1, second, one, two, proof)
    yield "first-root-flipped", (first, second, flipped(one), two, proof)
    yield "first-root-cut", (first, second, one[:31], two, proof)
    yield "second-root-cut", (first, second, one, two[:31], proof)
    yield "proof-with-a-root-appended", (first, second, one, two, [*proof, two])
    if first > 0:
        yield "second-root-flipped", (first, second, one, flipped(two), proof)
        yield "first-root-of-nothing", (first, second, root_of([]), two, proof)
    if proof:
        yield "proof-empty", (first, second, one, two, [])
        yield "proof-reversed-with-one-more", (first, second, one, two, [*proof[::-1], proof[0]])
    for position in range(len(proof)):
        changed = [*proof[:position], flipped(proof[position]), *proof[position + 1 :]]
        yield f"hash-{position}-flipped", (first, second, one, two, changed)
        yield f"hash-{position}-left-out", (first, second, one, two, proof[:position] + proof[position + 1 :])


# ---- the state map ----------------------------------------------------------------------------------------------


STATE = StateMap({state_key("registry", b"%d" % number): b"value %d" % number for number in range(50)})
PRESENT = state_key("registry", b"7")
ABSENT = state_key("registry", b"50")


def map_claim(
    name: str, accepted: bool, root: bytes, key: bytes, value: bytes | None, proof: bytes
) -> Vector:
    def check() -> None:
        decoded = MapProof.from_bytes(proof)
        if value is None:
            verify_absence(root, key, decoded)
        else:
            verify_membership(root, key, value, decoded)

    return labelled(
        name,
        accepted,
        check,
        key=key.hex(),
        proof=proof.hex(),
        root=root.hex(),
        value=None if value is None else value.hex(),
    )


def map_vectors() -> Iterator[Vector]:
    root, empty = STATE.root(), StateMap()
    one = StateMap({PRESENT: b"v"})
    yield map_claim(
        "absent-from-the-empty-map", True, empty.root(), ABSENT, None, empty.prove(ABSENT).to_bytes()
    )
    yield map_claim("the-only-key", True, one.root(), PRESENT, b"v", one.prove(PRESENT).to_bytes())
    yield map_claim(
        "absent-beside-the-only-key", True, one.root(), ABSENT, None, one.prove(ABSENT).to_bytes()
    )
    yield map_claim("present", True, root, PRESENT, b"value 7", STATE.prove(PRESENT).to_bytes())
    yield map_claim("absent", True, root, ABSENT, None, STATE.prove(ABSENT).to_bytes())
    twins = StateMap({PRESENT: b"a", flipped(PRESENT, 31): b"b"})
    yield map_claim(
        "parted-at-the-last-bit", True, twins.root(), PRESENT, b"a", twins.prove(PRESENT).to_bytes()
    )
    yield from map_mutations("present", root, PRESENT, b"value 7")
    yield from map_mutations("absent", root, ABSENT, None)


def map_mutations(label: str, root: bytes, key: bytes, value: bytes | None) -> Iterator[Vector]:
    proof = STATE.prove(key)
    encoded = proof.to_bytes()
    other_key = next(item for item in STATE if item != key)
    other_value = STATE.get(other_key)

    def bad(
        name: str, proof: bytes, key: bytes = key, value: bytes | None = value, root: bytes = root
    ) -> Vector:
        return map_claim(f"{label}-{name}", False, root, key, value, proof)

    yield bad("root-flipped", encoded, root=flipped(root))
    yield bad("root-of-the-empty-map", encoded, root=StateMap().root())
    yield bad("key-flipped-in-its-first-bit", encoded, key=bytes([key[0] ^ 128]) + key[1:])
    yield bad("another-key", encoded, key=other_key, value=other_value if value else None)
    yield bad("said-to-be-the-opposite", encoded, value=None if value else b"value 50")
    yield bad("proof-empty", b"")
    yield bad("proof-without-steps", encoded[:1] if value else encoded[:65])
    yield bad("proof-cut-by-a-byte", encoded[:-1])
    yield bad("proof-with-a-byte-more", encoded + b"\0")
    yield bad("tag-unknown", b"\x02" + encoded[1:])
    yield bad("tag-of-the-opposite", (b"\x01" if value else b"\x00") + encoded[1:])
    start = 1 if value else 65
    steps = [encoded[at : at + 33] for at in range(start, len(encoded), 33)]
    yield bad("steps-reversed", encoded[:start] + b"".join(steps[::-1]))
    yield bad("last-step-left-out", encoded[:-33])
    yield bad("first-step-left-out", encoded[:start] + b"".join(steps[1:]))
    yield bad("last-step-doubled", encoded + steps[-1])
    for number, step in enumerate(steps):
        for name, item in [
            ("sibling-flipped", step[:1] + flipped(step[1:])),
            ("bit-one-more", bytes([step[0] + 1]) + step[1:]),
        ]:
            changed = [*steps[:number], item, *steps[number + 1 :]]
            yield bad(f"step-{number}-{name}", encoded[:start] + b"".join(changed))
    if value:
        yield bad("value-flipped", encoded, value=flipped(value))
        yield bad("value-empty", encoded, value=b"")
        yield bad("value-too-long", encoded, value=bytes(1025))
    elif proof.other:
        yield bad("leaf-value-flipped", encoded[:33] + flipped(encoded[33:65]) + encoded[65:])
        yield bad("leaf-key-flipped-in-its-last-bit", encoded[:32] + bytes([encoded[32] ^ 1]) + encoded[33:])
        yield bad("present-key-with-its-own-leaf", encoded, key=proof.other[0])
        far = next(item for item in STATE if item[0] >> 7 != key[0] >> 7)
        value_digest = hashlib.sha256(STATE.get(far) or b"").digest()
        elsewhere = MapProof(STATE.prove(far).steps, (far, value_digest)).to_bytes()
        yield bad("leaf-that-the-lookup-does-not-reach", elsewhere)


# ---- signatures -------------------------------------------------------------------------------------------------


RECORD = Statement(
    "run",
    (Subject("output/0", hashlib.sha256(b"model").digest()),),
    {
        "member": "ada",
        "metrics": {"accuracy": 0.951},
        "nonce": "AAECAwQFBgcICQoL",
        "time_unix_ms": 1_760_000_000_000,
    },
)
ENTRY = Entry.signed(RECORD.to_bytes(), AUTHOR)


def entry_claim(name: str, accepted: bool, data: bytes, key: bytes) -> Vector:
    def check() -> None:
        Entry.from_bytes(data).verify(PublicKey(key))

    return labelled(name, accepted, check, entry=data.hex(), public_key=key.hex())


def entry_vectors() -> Iterator[Vector]:
    data, key = ENTRY.to_bytes(), AUTHOR.public.raw
    yield entry_claim("signed", True, data, key)
    scalar = (int.from_bytes(data[49:81], "little") + GROUP_ORDER).to_bytes(32, "little")
    for name, changed in [
        ("version-2", b"\x02" + data[1:]),
        ("key-id-flipped", data[:1] + flipped(data[1:])),
        ("key-id-of-another-key", data[:1] + OTHER.public.key_id + data[17:]),
        ("signature-first-half-flipped", data[:17] + flipped(data[17:])),
        ("signature-second-half-flipped", data[:49] + flipped(data[49:])),
        ("signature-of-zeros", data[:17] + bytes(64) + data[81:]),
        ("signature-with-the-group-order-added", data[:49] + scalar + data[81:]),
        ("signature-over-the-payload-itself", data[:17] + AUTHOR.sign(ENTRY.payload) + data[81:]),
        (
            "signature-over-another-payload-type",
            data[:17] + AUTHOR.sign(other_type(ENTRY.payload)) + data[81:],
        ),
        ("payload-flipped", data[:-1] + flipped(data[-1:])),
        ("payload-cut", data[:-1]),
        ("payload-with-a-newline", data + b"\n"),
        ("payload-empty", data[:81]),
        ("cut-in-the-signature", data[:80]),
        ("nothing", b""),
    ]:
        yield entry_claim(name, False, changed, key)
    yield entry_claim("another-public-key", False, data, OTHER.public.raw)
    yield from forgeries()


def other_type(payload: bytes) -> bytes:
    return b"DSSEv1 16 application/json %d %s" % (len(payload), payload)


def forgeries() -> Iterator[Vector]:
    """Entries under keys of small order: a first half of [s]B with a second half of s verifies for any message."""
    base_point = bytes([0x58]) + bytes([0x66]) * 31
    signature = base_point + (1).to_bytes(32, "little")
    for name, y in [("small-order-key-1", 1), ("small-order-key-not-canonical", FIELD_PRIME + 1)]:
        raw = y.to_bytes(32, "little")
        key_id = hashlib.sha256(b"lichen key v1\n" + raw).digest()[:16]
        yield entry_claim(name, False, Entry(key_id, signature, ENTRY.payload).to_bytes(), raw)


BODY = Checkpoint("lichen/" + "ab" * 32, 3, bytes(range(32))).body()
LOG_NOTE_KEY = NoteKey("lichen/" + "ab" * 32, LOG.public)
WITNESS_NOTE_KEY = NoteKey("witness.example/w1", WITNESS.public, SignatureType.COSIGNATURE_V1)


def note_claim(name: str, accepted: bool, text: str, *keys: NoteKey) -> Vector:
    def check() -> None:
        found = SignedNote.from_text(text).verify(keys)
        if found != keys:
            raise VerificationError("not all keys signed")

    return labelled(name, accepted, check, note=text, verifier_keys=[key.vkey for key in keys])


def note_vectors() -> Iterator[Vector]:
    signed = SignedNote(BODY, (sign_note(BODY, LOG_NOTE_KEY.name, LOG),))
    witnessed = signed.with_signature(cosign_note(BODY, WITNESS_NOTE_KEY.name, WITNESS, 1_760_000_000))
    text, cosigned = signed.to_text(), witnessed.to_text()
    line, witness_line = (signature.line for signature in witnessed.signatures)
    cosignature = witnessed.signatures[1]
    yield note_claim("signed", True, text, LOG_NOTE_KEY)
    yield note_claim("cosigned", True, cosigned, LOG_NOTE_KEY, WITNESS_NOTE_KEY)
    yield note_claim("a-signature-of-an-unknown-key-is-ignored", True, cosigned, LOG_NOTE_KEY)
    stranger = NoteSignature(LOG_NOTE_KEY.name, b"\0\0\0\0", b"x").line
    yield note_claim(
        "a-signature-with-a-known-name-and-another-hash-is-ignored", True, text + stranger, LOG_NOTE_KEY
    )
    later = NoteSignature(cosignature.name, cosignature.key_hash, flipped(cosignature.signature, 7))
    short = NoteSignature(cosignature.name, cosignature.key_hash, cosignature.signature[8:])
    plain = sign_note(BODY, WITNESS_NOTE_KEY.name, WITNESS)
    for name, changed in [
        ("text-changed", text.replace("\n3\n", "\n4\n")),
        ("text-without-final-newline", text.replace("\n\n", "\n")),
        ("text-with-a-tab", text.replace("\n3\n", "\n3\t\n")),
        ("carriage-returns", text.replace("\n", "\r\n")),
        (
            "signature-flipped",
            f"{BODY}\n{NoteSignature(LOG_NOTE_KEY.name, LOG_NOTE_KEY.hash, bytes(64)).line}",
        ),
        ("signature-cut", f"{BODY}\n{line[:-5]}\n"),
        ("key-name-changed", text.replace("— lichen", "— Lichen")),
        ("key-name-left-out", text.replace(f"— {LOG_NOTE_KEY.name} ", "— ")),
        ("hyphen-for-the-dash", text.replace("— ", "- ")),
        ("no-signature", BODY + "\n"),
        ("final-newline-left-out", text[:-1]),
        ("an-empty-line-after-the-signatures", text + "\n"),
        (
            "a-false-signature-beside-the-true-one",
            text + NoteSignature(LOG_NOTE_KEY.name, LOG_NOTE_KEY.hash, b"x").line,
        ),
    ]:
        yield note_claim(name, False, changed, LOG_NOTE_KEY)
    for name, changed in [
        ("cosignature-of-another-time", later.line),
        ("cosignature-without-its-time", short.line),
        ("plain-signature-by-the-witness", plain.line),
        ("cosignature-under-another-name", witness_line.replace("w1", "w2")),
    ]:
        yield note_claim(name, False, text + changed, LOG_NOTE_KEY, WITNESS_NOTE_KEY)


# ---- one small ledger, whole ------------------------------------------------------------------------------------


def ledger_vector() -> Vector:
    """Return a ledger of three entries with everything that follows from it."""
    genesis = Genesis(
        name="vectors",
        created_unix_ms=1_760_000_000_000,
        admins=(Admin("ada", AUTHOR.public),),
        log_key=LOG.public,
        contracts={"members": 1, "registry": 1},
        nonce=bytes(range(12)),
        sealing=Sealing("solo", 100, 5_000),
    )
    first = genesis.to_entry(LOG)
    leaves = [leaf_hash(first.to_bytes()), leaf_hash(ENTRY.to_bytes())]
    seal = Seal(0, None, 2, root_of(leaves), STATE.root(), 1_760_000_000_500)
    last = Entry.signed(seal.to_statement().to_bytes(), LOG)
    leaves.append(leaf_hash(last.to_bytes()))
    origin = origin_of(ledger_id_of(first))
    checkpoint = sign_checkpoint(Checkpoint(origin, 3, root_of(leaves)), LOG)

    def proof(index: int) -> list[bytes]:
        return inclusion_proof(index, 3, lambda start, end: root_of(leaves[start:end]))

    receipts = {
        "entry": Receipt.of_entry(ENTRY, 1, proof(1), checkpoint, author=AUTHOR.public, genesis=first),
        **{
            name: Receipt.of_state(
                last,
                2,
                proof(2),
                checkpoint,
                contract="registry",
                key=key,
                value=STATE.get(state_key("registry", key)),
                map_proof=STATE.prove(state_key("registry", key)),
            )
            for name, key in [("present", b"7"), ("absent", b"50")]
        },
    }
    for receipt in receipts.values():
        verify_receipt(receipt, LOG.public, origin)
    return {
        "checkpoint": checkpoint,
        "entries": [entry.to_bytes().hex() for entry in (first, ENTRY, last)],
        "envelopes": [entry.to_dsse().decode() for entry in (first, ENTRY, last)],
        "ledger_id": ledger_id_of(first),
        "log_key": {"did": LOG.public.did_key, "id": LOG.public.key_id.hex(), "raw": LOG.public.raw.hex()},
        "payloads": [entry.payload.decode() for entry in (first, ENTRY, last)],
        "receipts": {name: receipt.to_text() for name, receipt in receipts.items()},
        "seeds": {"author": AUTHOR.seed.hex(), "log": LOG.seed.hex()},
        "state": {key.hex(): (STATE.get(key) or b"").hex() for key in STATE},
        "state_root": STATE.root().hex(),
    }


def build() -> dict[str, Any]:
    """Return the content of each file by its name."""
    return {
        "consistency.json": list(consistency_vectors()),
        "entry-signatures.json": list(entry_vectors()),
        "inclusion.json": list(inclusion_vectors()),
        "ledger.json": ledger_vector(),
        "note-signatures.json": list(note_vectors()),
        "state-proofs.json": list(map_vectors()),
    }


def text_of(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def main() -> int:
    stale = []
    for name, content in build().items():
        path = HERE / name
        text = text_of(content)
        if "--check" in sys.argv[1:]:
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                stale.append(name)
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        print(f"not what this program writes: {', '.join(stale)}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
