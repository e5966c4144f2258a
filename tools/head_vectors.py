"""Vectors of what a log commits to: seals, checkpoints, cosignatures, receipts.

Source: C2SP signed-note, tlog-checkpoint, tlog-cosignature, tlog-proof.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from record_vectors import AUTHOR, LOG, OTHER, RECORD, WITNESS, Vector, changed, flipped, labelled

from lichen.crypto.keys import SigningKey
from lichen.crypto.note import NoteKey, NoteSignature, SignatureType, SignedNote, cosign_note, sign_note
from lichen.encoding.canonical import canonical_json
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement
from lichen.errors import VerificationError
from lichen.ledger.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from lichen.ledger.genesis import Admin, Genesis, ledger_id_of
from lichen.ledger.proof import inclusion_proof
from lichen.ledger.receipt import Receipt, verify_receipt
from lichen.ledger.seal import Seal, check_succession
from lichen.ledger.state_map import StateMap, state_key
from lichen.ledger.tree import leaf_hash, root_of

__all__ = ["checkpoint_vectors", "cosignature_vectors", "receipt_vectors", "seal_vectors"]

# ---- seals ------------------------------------------------------------------------------------------------------

ROOT, STATE_ROOT = hashlib.sha256(b"root").digest(), hashlib.sha256(b"state").digest()
BEFORE: Final = Seal(3, 20, 40, bytes(32), bytes(32), 1_760_000_000_000)
SEAL: Final = Seal(4, 40, 50, ROOT, STATE_ROOT, 1_760_000_000_500)

SEAL_CHANGES: Final[Mapping[str, tuple[tuple[Any, ...], Any]]] = {
    "height-the-same": (("predicate", "block_height"), 3),
    "height-two-more": (("predicate", "block_height"), 5),
    "height-zero": (("predicate", "block_height"), 0),
    "height-negative": (("predicate", "block_height"), -1),
    "height-a-fraction": (("predicate", "block_height"), 4.5),
    "height-true": (("predicate", "block_height"), True),
    "height-missing": (("predicate", "block_height"), ...),
    "previous-missing": (("predicate", "previous_seal"), ...),
    "previous-null": (("predicate", "previous_seal"), None),
    "previous-another": (("predicate", "previous_seal"), 20),
    "previous-itself": (("predicate", "previous_seal"), 50),
    "previous-negative": (("predicate", "previous_seal"), -1),
    "size-one-less": (("predicate", "tree_size"), 49),
    "size-one-more": (("predicate", "tree_size"), 51),
    "size-text": (("predicate", "tree_size"), "50"),
    "size-missing": (("predicate", "tree_size"), ...),
    "time-before": (("predicate", "time_unix_ms"), 1_759_999_999_999),
    "time-negative": (("predicate", "time_unix_ms"), -1),
    "time-missing": (("predicate", "time_unix_ms"), ...),
    "sealer-a-member": (("predicate", "sealer"), "ada"),
    "sealer-empty": (("predicate", "sealer"), ""),
    "sealer-missing": (("predicate", "sealer"), ...),
    "consensus-another": (("predicate", "consensus"), "pbft"),
    "consensus-empty": (("predicate", "consensus"), ""),
    "consensus-missing": (("predicate", "consensus"), ...),
    "evidence-text": (("predicate", "evidence"), "x"),
    "evidence-null": (("predicate", "evidence"), None),
    "member-unknown": (("predicate", "note"), 1),
    "root-flipped": (("subject", 0, "digest", "sha256"), flipped(ROOT, 0).hex()),
    "state-root-flipped": (("subject", 1, "digest", "sha256"), flipped(STATE_ROOT, 31).hex()),
    "root-under-another-name": (("subject", 0, "name"), "Root"),
    "roots-exchanged": (
        ("subject",),
        [
            {"digest": {"sha256": STATE_ROOT.hex()}, "name": "state-root"},
            {"digest": {"sha256": ROOT.hex()}, "name": "root"},
        ],
    ),
    "root-alone": (("subject",), [{"digest": {"sha256": ROOT.hex()}, "name": "root"}]),
    "version-2": (("predicateType",), "urn:lichen:seal:v2"),
    "kind-another": (("predicateType",), "urn:lichen:seals:v1"),
}


def seal_claim(name: str, accepted: bool, payload: bytes, previous: Seal | None) -> Vector:
    """The payload may stand as the seal at index 50, after another seal, in a ledger that one writer orders."""

    def check() -> None:
        seal = Seal.from_statement(Statement.from_bytes(payload))
        check_succession(seal, previous)
        if (seal.tree_size, seal.sealer, seal.consensus) != (50, "log", "solo"):
            raise VerificationError("not one that this ledger's log makes there")
        if (seal.root, seal.state_root) != (ROOT, STATE_ROOT):
            raise VerificationError("the roots are not those derived")

    before = None if previous is None else previous.to_statement().to_bytes().hex()
    return labelled(
        name,
        accepted,
        check,
        index=50,
        payload=payload.hex(),
        previous=before,
        root=ROOT.hex(),
        state_root=STATE_ROOT.hex(),
    )


def seal_vectors() -> Iterator[Vector]:
    """Seals that follow, and seals that do not."""
    payload = SEAL.to_statement().to_bytes()
    value = json.loads(payload)
    yield seal_claim("seal", True, payload, BEFORE)
    same_time = changed(value, ("predicate", "time_unix_ms"), BEFORE.time_unix_ms)
    yield seal_claim("time-the-same", True, canonical_json(same_time), BEFORE)
    with_evidence = changed(value, ("predicate", "evidence"), {"votes": 3})
    yield seal_claim("with-evidence", True, canonical_json(with_evidence), BEFORE)
    first = Seal(0, None, 50, ROOT, STATE_ROOT, 1)
    yield seal_claim("the-first", True, first.to_statement().to_bytes(), None)
    yield seal_claim("said-to-be-the-first", False, payload, None)
    yield seal_claim("the-first-a-second-time", False, first.to_statement().to_bytes(), BEFORE)
    for name, (path, new) in SEAL_CHANGES.items():
        yield seal_claim(name, False, canonical_json(changed(value, path, new)), BEFORE)
    near = Seal(3, 20, 49, bytes(32), bytes(32), 1)
    closing = changed(value, ("predicate", "previous_seal"), 49)
    yield seal_claim("closes-nothing", False, canonical_json(closing), near)


# ---- checkpoints and cosignatures -------------------------------------------------------------------------------

ORIGIN: Final = "lichen/" + "5c" * 32
BODY: Final = Checkpoint(ORIGIN, 51, ROOT).body()


def checkpoint_claim(name: str, accepted: bool, note: str) -> Vector:
    """The note is a checkpoint of the origin, signed by the log's key."""
    return labelled(
        name,
        accepted,
        lambda: open_checkpoint(note, ORIGIN, LOG.public),
        log_key=LOG.public.raw.hex(),
        note=note,
        origin=ORIGIN,
    )


def signed_body(body: str, key: SigningKey = LOG, name: str = ORIGIN) -> str:
    """A note over any text, signed as a checkpoint is."""
    line = NoteSignature(name, NoteKey(name, key.public).hash, key.sign(body.encode())).line
    return f"{body}\n{line}"


def checkpoint_vectors() -> Iterator[Vector]:
    """Checkpoints, and notes that are none, most of them well signed."""
    note = sign_checkpoint(Checkpoint(ORIGIN, 51, ROOT), LOG)
    root = base64.b64encode(ROOT).decode()
    yield checkpoint_claim("checkpoint", True, note)
    yield checkpoint_claim("with-an-extension", True, signed_body(f"{BODY}extension\n"))
    for name, body in {
        "origin-of-another-ledger": f"lichen/{'5d' * 32}\n51\n{root}\n",
        "origin-in-capitals": f"LICHEN/{'5c' * 32}\n51\n{root}\n",
        "size-with-a-leading-zero": f"{ORIGIN}\n051\n{root}\n",
        "size-with-a-plus": f"{ORIGIN}\n+51\n{root}\n",
        "size-negative": f"{ORIGIN}\n-51\n{root}\n",
        "size-hexadecimal": f"{ORIGIN}\n0x33\n{root}\n",
        "size-empty": f"{ORIGIN}\n\n{root}\n",
        "size-of-twenty-digits": f"{ORIGIN}\n{10**19}\n{root}\n",
        "size-of-another-script": f"{ORIGIN}\n\u0665\u0661\n{root}\n",
        "size-with-a-blank": f"{ORIGIN}\n51 \n{root}\n",
        "root-of-31-bytes": f"{ORIGIN}\n51\n{base64.b64encode(ROOT[:31]).decode()}\n",
        "root-of-33-bytes": f"{ORIGIN}\n51\n{base64.b64encode(ROOT + b'x').decode()}\n",
        "root-in-hexadecimal": f"{ORIGIN}\n51\n{ROOT.hex()}\n",
        "root-in-base64url": f"{ORIGIN}\n51\n{base64.urlsafe_b64encode(flipped(ROOT, 0)).decode().replace('+', '-')[:-1]}_\n",
        "root-without-padding": f"{ORIGIN}\n51\n{root.rstrip('=')}\n",
        "root-missing": f"{ORIGIN}\n51\n",
        "lines-exchanged": f"{ORIGIN}\n{root}\n51\n",
    }.items():
        yield checkpoint_claim(name, False, signed_body(body))
    yield checkpoint_claim("signed-by-another-key", False, signed_body(BODY, OTHER))
    yield checkpoint_claim("signed-under-another-name", False, signed_body(BODY, LOG, "lichen/other"))
    for position in (5, 66, 70, 80):
        name = f"character-{position}-changed"
        letter = "0" if note[position] != "0" else "1"
        yield checkpoint_claim(name, False, note[:position] + letter + note[position + 1 :])
    line = note[len(BODY) + 1 :]
    for name, text in {
        "body-alone": BODY,
        "signature-line-alone": line,
        "signature-twice-with-one-false": note + signed_body(BODY + "x\n")[len(BODY) + 3 :],
        "empty-line-missing": BODY + line,
        "two-empty-lines": f"{BODY}\n\n{line}",
        "carriage-returns": note.replace("\n", "\r\n"),
        "final-newline-missing": note[:-1],
        "nothing": "",
    }.items():
        yield checkpoint_claim(name, False, text)


def cosignature_vectors() -> Iterator[Vector]:
    """Checkpoints that a witness cosigned, and ones that only look so."""
    name = "witness.example/w1"
    identity = NoteKey(name, WITNESS.public, SignatureType.COSIGNATURE_V1)
    signed = SignedNote(BODY, (sign_note(BODY, ORIGIN, LOG),))
    time = 1_760_000_000
    good = cosign_note(BODY, name, WITNESS, time)

    def claim(label: str, accepted: bool, line: str, now: int = time) -> Vector:
        note = signed.to_text() + line

        def check() -> None:
            found = SignedNote.from_text(note)
            found.cosigned_at(identity, now)

        return labelled(label, accepted, check, note=note, now_unix_seconds=now, witness=identity.vkey)

    def line(signature: bytes, *, key_hash: bytes = good.key_hash, who: str = name) -> str:
        return NoteSignature(who, key_hash, signature).line

    yield claim("cosigned", True, good.line)
    yield claim("cosigned-at-time-zero", True, cosign_note(BODY, name, WITNESS, 0).line)
    yield claim("cosigned-a-day-ahead", True, good.line, time - 86_400)
    yield claim("cosigned-more-than-a-day-ahead", False, good.line, time - 86_401)
    yield claim(
        "cosigned-thirty-years-ahead", False, cosign_note(BODY, name, WITNESS, time + 946_728_000).line
    )
    yield claim("no-cosignature", False, "")
    raw = good.signature
    other_body = Checkpoint(ORIGIN, 52, ROOT).body()
    body = BODY.encode()
    for label, text in {
        "time-one-more": line((time + 1).to_bytes(8, "big") + raw[8:]),
        "time-beyond-63-bits": line((time | 1 << 63).to_bytes(8, "big") + raw[8:]),
        "time-little-endian": line(time.to_bytes(8, "little") + raw[8:]),
        "time-missing": line(raw[8:]),
        "signature-flipped": line(flipped(raw, 20)),
        "signature-cut": line(raw[:-1]),
        "signature-longer": line(raw + b"\0"),
        "of-another-checkpoint": line(cosign_note(other_body, name, WITNESS, time).signature),
        "by-another-key": line(cosign_note(BODY, name, OTHER, time).signature),
        "a-plain-signature": line(time.to_bytes(8, "big") + WITNESS.sign(body)),
        "without-its-header": line(time.to_bytes(8, "big") + WITNESS.sign(b"time %d\n%s" % (time, body))),
        "of-another-version": line(
            time.to_bytes(8, "big") + WITNESS.sign(b"cosignature/v2\ntime %d\n%s" % (time, body))
        ),
        "under-another-name": line(raw, who="witness.example/w2"),
        "with-the-hash-of-a-log-key": line(raw, key_hash=NoteKey(name, WITNESS.public).hash),
        "with-a-hash-of-zeros": line(raw, key_hash=bytes(4)),
        "line-without-a-dash": good.line.replace("\u2014", "-"),
        "line-with-two-blanks": good.line.replace(name + " ", name + "  "),
    }.items():
        yield claim(label, False, text)


# ---- receipts ---------------------------------------------------------------------------------------------------


class Log:
    """A log of seven entries, the last of them a seal, and receipts from it."""

    def __init__(self) -> None:
        genesis = Genesis(
            name="mutations",
            created_unix_ms=1,
            admins=(Admin("ada", AUTHOR.public),),
            log_key=LOG.public,
            contracts={"members": 1, "registry": 1},
            nonce=bytes(12),
        )
        self.first = genesis.to_entry(LOG)
        records = [
            Statement("run", RECORD.subjects, {**RECORD.predicate, "number": number}) for number in range(5)
        ]
        self.entries = [self.first, *(Entry.signed(record.to_bytes(), AUTHOR) for record in records)]
        self.state = StateMap(
            {state_key("registry", b"%d" % number): b"value %d" % number for number in range(9)}
        )
        self.leaves = [leaf_hash(entry.to_bytes()) for entry in self.entries]
        seal = Seal(0, None, 6, root_of(self.leaves), self.state.root(), 2)
        self.seal = Entry.signed(seal.to_statement().to_bytes(), LOG)
        self.leaves.append(leaf_hash(self.seal.to_bytes()))
        self.origin = f"lichen/{ledger_id_of(self.first)}"
        self.checkpoint = sign_checkpoint(Checkpoint(self.origin, 7, root_of(self.leaves)), LOG)

    def proof(self, index: int) -> list[bytes]:
        """Inclusion proof under the whole log."""
        return inclusion_proof(index, 7, lambda start, end: root_of(self.leaves[start:end]))

    def of_entry(self) -> str:
        """Receipt of entry 3."""
        receipt = Receipt.of_entry(
            self.entries[3], 3, self.proof(3), self.checkpoint, author=AUTHOR.public, genesis=self.first
        )
        return receipt.to_text()

    def of_state(self, key: bytes) -> str:
        """Receipt of a key of the state."""
        place = state_key("registry", key)
        receipt = Receipt.of_state(
            self.seal,
            6,
            self.proof(6),
            self.checkpoint,
            contract="registry",
            key=key,
            value=self.state.get(place),
            map_proof=self.state.prove(place),
        )
        return receipt.to_text()


def receipt_vectors() -> Iterator[Vector]:
    """Receipts that prove what they say, and ones that do not."""
    log = Log()

    def claim(name: str, accepted: bool, text: str) -> Vector:
        return labelled(
            name,
            accepted,
            lambda: verify_receipt(Receipt.parse(text), LOG.public, log.origin),
            log_key=LOG.public.raw.hex(),
            origin=log.origin,
            receipt=text,
        )

    texts = {"entry": log.of_entry(), "present": log.of_state(b"7"), "absent": log.of_state(b"77")}
    for label, text in texts.items():
        yield claim(label, True, text)
        for name, other in receipt_mutations(text, log):
            yield claim(f"{label}-{name}", False, other)


def receipt_mutations(text: str, log: Log) -> Iterator[tuple[str, str]]:
    """One receipt in every wrong form: its lines, then what its `extra` says."""
    lines = text.split("\n")
    index = int(lines[2].removeprefix("index "))
    yield "version-2", text.replace("@v1", "@v2", 1)
    yield "header-missing", "\n".join(lines[1:])
    yield "extra-missing", "\n".join([lines[0], *lines[2:]])
    yield "index-one-more", text.replace(f"index {index}", f"index {index + 1}", 1)
    yield "index-one-less", text.replace(f"index {index}", f"index {index - 1}", 1)
    yield "index-with-a-zero", text.replace(f"index {index}", f"index 0{index}", 1)
    yield "index-missing", "\n".join([*lines[:2], *lines[3:]])
    yield "proof-without-its-first-hash", "\n".join([*lines[:3], *lines[4:]])
    yield "proof-with-a-hash-doubled", "\n".join([*lines[:4], *lines[3:]])
    yield "proof-hash-flipped", text.replace(lines[3], base64.b64encode(bytes(32)).decode(), 1)
    yield "checkpoint-missing", "\n".join(lines[: lines.index("") + 1])
    yield "checkpoint-of-another-log", text.replace(log.origin, f"lichen/{'00' * 32}")
    another = sign_checkpoint(Checkpoint(log.origin, 7, bytes(32)), LOG)
    yield "checkpoint-with-another-root", text[: text.index(log.origin)] + another
    forged = sign_checkpoint(Checkpoint(log.origin, 7, root_of(log.leaves)), OTHER)
    yield "checkpoint-by-another-key", text[: text.index(log.origin)] + forged
    extra = json.loads(base64.b64decode(lines[1].removeprefix("extra ")))
    for name, changes in extra_mutations(extra):
        value = {key: item for key, item in {**extra, **changes}.items() if item is not ...}
        encoded = base64.b64encode(canonical_json(value)).decode()
        yield name, "\n".join([lines[0], f"extra {encoded}", *lines[2:]])


def extra_mutations(extra: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Changes to what a receipt carries."""
    yield "extra-version-2", {"v": 2}
    yield "extra-version-missing", {"v": ...}
    yield "extra-member-unknown", {"note": 1}
    for name in ("entry", "seal", "author", "genesis", "contract", "key", "map_proof"):
        if name in extra:
            if name not in ("author", "genesis"):
                yield f"{name}-missing", {name: ...}
            yield f"{name}-a-number", {name: 7}
            text = str(extra[name])
            letter = "c" if text[0] != "c" else "d"
            yield f"{name}-changed", {name: letter + text[1:]}
    if "value" in extra:
        is_absent = extra["value"] is None
        yield "said-to-be-the-opposite", {"value": "dmFsdWUgNw" if is_absent else None}
        yield "value-another", {"value": "dmFsdWUgOA"}
        yield "value-empty", {"value": ""}
