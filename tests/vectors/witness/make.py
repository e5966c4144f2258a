"""Make the vectors of witnesses: policies, quorums, cosignatures and requests, refused ones named after the mutation.

``python make.py`` writes the JSON files beside it; ``python make.py --check`` says whether they are what it would write.
Every vector is tried here first: one that does not answer as it is said to stops the program.
"""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lichen.crypto.keys import SigningKey
from lichen.crypto.note import NoteKey, NoteSignature, SignatureType, SignedNote, cosign_note, sign_note
from lichen.errors import EncodingError, VerificationError
from lichen.ledger.checkpoint import Checkpoint, sign_checkpoint
from lichen.ledger.policy import parse_policy
from lichen.ledger.proof import consistency_proof
from lichen.ledger.quorums import quorum_strength
from lichen.ledger.tree import EMPTY_ROOT, leaf_hash, root_of
from lichen.ledger.witness import AddCheckpoint, Refusal, Seen, check_request, decide

HERE = Path(__file__).resolve().parent
LOG, OTHER_LOG, STRANGER, *WITNESSES = (SigningKey.from_seed(bytes([number]) * 32) for number in range(1, 12))
ORIGIN = "lichen/" + "ab" * 32
LOG_KEY = NoteKey(ORIGIN, LOG.public)
WITNESS_KEYS = [
    NoteKey(f"witness.example/w{number}", key.public, SignatureType.COSIGNATURE_V1)
    for number, key in enumerate(WITNESSES, start=1)
]
W1, W1_KEY = WITNESSES[0], WITNESS_KEYS[0]
TIME = 1_760_000_000
NEVER = Seen()

Vector = dict[str, Any]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def flipped(data: bytes, position: int = 0) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1
    return bytes(changed)


def must(condition: bool, name: str) -> None:
    if not condition:
        raise SystemExit(f"the vector {name} does not answer as it should")


# ---- policies ---------------------------------------------------------------------------------------------------


def witness_lines(count: int) -> bytes:
    return b"".join(b"witness W%d %s\n" % (n, WITNESS_KEYS[n - 1].vkey.encode()) for n in range(1, count + 1))


LOG_LINE = b"log %s\n" % LOG_KEY.vkey.encode()
FLAT = LOG_LINE + witness_lines(3) + b"group trio 2 W1 W2 W3\nquorum trio\n"
NESTED = (
    LOG_LINE
    + witness_lines(6)
    + b"group X-witnesses 2 W1 W2 W3\n"
    + b"group Y-witnesses any W4 W5 W6\n"
    + b"group X-and-Y all X-witnesses Y-witnesses\n"
    + b"quorum X-and-Y\n"
)


def policy_claim(name: str, policy: bytes, refused_line: int | bool | None = False) -> Vector:
    """A policy that is accepted, or refused at a line; None when no line is to blame."""
    accepted = refused_line is False
    try:
        parse_policy(policy)
        must(accepted, name)
    except EncodingError as error:
        found = re.match(r"line (\d+) of the policy", error.message)
        must(not accepted and (int(found[1]) if found else None) == refused_line, f"{name}: {error.message}")
    return {
        "accepted": accepted,
        "line": None if accepted else refused_line,
        "name": name,
        "policy": b64(policy),
    }


def accepted_policies() -> Iterator[Vector]:
    yield policy_claim("two-of-three", FLAT)
    yield policy_claim("groups-in-groups", NESTED)
    yield policy_claim("quorum-none-alone", b"quorum none\n")
    yield policy_claim("quorum-of-one-witness", witness_lines(1) + b"quorum W1\n")
    yield policy_claim("group-of-one", witness_lines(1) + b"group g all W1\nquorum g\n")
    yield policy_claim("tabs-and-blanks-around-items", FLAT.replace(b"witness W1 ", b" \twitness\t\t W1 \t "))
    yield policy_claim("empty-lines-and-comments", b"\n \t\n# one\n\t # two\n" + FLAT + b"#\n")
    yield policy_claim("urls", FLAT.replace(b"\nwitness W2", b" https://w1.example/\nwitness W2"))
    yield policy_claim("definitions-after-the-quorum", b"quorum none\n" + FLAT.replace(b"quorum trio\n", b""))
    yield policy_claim("name-with-octets-that-are-no-utf-8", FLAT.replace(b"W1 ", b"\xff\x80 "))
    yield policy_claim(
        "name-with-a-kelvin-sign-beside-k", FLAT.replace(b"W1 ", b"K ").replace(b"W2 ", b"\xe2\x84\xaa ")
    )
    yield policy_claim("names-that-are-keywords", FLAT.replace(b"trio", b"group").replace(b"W1 ", b"all "))
    yield policy_claim("witness-that-no-group-uses", FLAT.replace(b"2 W1 W2 W3", b"2 W1 W2"))
    yield policy_claim("names-that-differ-in-case", FLAT.replace(b"W1 ", b"w2 "))
    many = b"".join(
        b"log %s\n" % NoteKey(f"log{n}", SigningKey.from_seed(bytes([n, 1]) * 16).public).vkey.encode()
        for n in range(32)
    )
    crowd = b"".join(
        b"witness w%d %s\n"
        % (
            n,
            NoteKey(
                f"w{n}", SigningKey.from_seed(bytes([n, 2]) * 16).public, SignatureType.COSIGNATURE_V1
            ).vkey.encode(),
        )
        for n in range(32)
    )
    groups = b"".join(b"group g%d all %s\n" % (n, b"g%d" % (n - 1) if n else b"w0") for n in range(32))
    yield policy_claim("thirty-two-logs-witnesses-and-groups", many + crowd + groups + b"quorum g31\n")


def refused_policies() -> Iterator[Vector]:
    yield policy_claim("empty", b"", None)
    yield policy_claim("quorum-left-out", FLAT.replace(b"quorum trio\n", b""), None)
    yield policy_claim("final-newline-left-out", FLAT[:-1], 6)
    yield policy_claim("quorum-twice", FLAT + b"quorum trio\n", 7)
    yield policy_claim("quorum-none-after-a-quorum", FLAT + b"quorum none\n", 7)
    yield policy_claim("quorum-undefined", FLAT.replace(b"quorum trio", b"quorum Trio"), 6)
    yield policy_claim(
        "quorum-before-its-group", LOG_LINE + witness_lines(1) + b"quorum g\ngroup g any W1\n", 3
    )
    yield policy_claim("quorum-without-a-name", FLAT.replace(b"quorum trio", b"quorum"), 6)
    yield policy_claim("quorum-with-two-names", FLAT.replace(b"quorum trio", b"quorum W1 W2"), 6)
    yield policy_claim("keyword-unknown", FLAT + b"cosigner W1\n", 7)
    yield policy_claim("keyword-in-capitals", FLAT.replace(b"quorum trio", b"QUORUM trio"), 6)
    yield policy_claim("comment-behind-a-line", FLAT.replace(b"quorum trio", b"quorum trio # ours"), 6)
    for name, octet, line in [
        ("carriage-returns", b"\r", 1),
        ("zero-octet", b"\0", 1),
        ("delete-octet", b"\x7f", 1),
    ]:
        yield policy_claim(name, FLAT.replace(b"\n", octet + b"\n"), line)
    yield policy_claim("form-feed-for-a-blank", FLAT.replace(b"quorum trio", b"quorum\x0ctrio"), 6)
    yield policy_claim("no-break-space-for-a-blank", FLAT.replace(b"quorum trio", b"quorum\xc2\xa0trio"), 6)
    yield from refused_groups()
    yield from refused_keys()


def refused_groups() -> Iterator[Vector]:
    for name, line in [
        ("threshold-zero", b"group trio 0 W1 W2 W3"),
        ("threshold-beyond-the-members", b"group trio 4 W1 W2 W3"),
        ("threshold-negative", b"group trio -1 W1 W2 W3"),
        ("threshold-with-a-plus", b"group trio +2 W1 W2 W3"),
        ("threshold-with-a-leading-zero", b"group trio 02 W1 W2 W3"),
        ("threshold-in-hexadecimal", b"group trio 0x2 W1 W2 W3"),
        ("threshold-in-words", b"group trio most W1 W2 W3"),
        ("threshold-in-capitals", b"group trio ALL W1 W2 W3"),
        ("threshold-in-arabic-digits", "group trio \u0662 W1 W2 W3".encode()),
        ("threshold-beyond-64-bits", b"group trio 18446744073709551618 W1 W2 W3"),
        ("threshold-left-out", b"group trio W1 W2 W3"),
        ("members-left-out", b"group trio all"),
        ("member-undefined", b"group trio 2 W1 W2 W4"),
        ("member-twice", b"group trio 2 W1 W2 W2"),
        ("member-none", b"group trio 2 W1 W2 none"),
        ("member-itself", b"group trio 2 W1 W2 trio"),
        ("member-in-another-case", b"group trio 2 W1 W2 w3"),
        ("name-of-a-witness", b"group W1 2 W2 W3"),
        ("name-none", b"group none 2 W1 W2 W3"),
    ]:
        yield policy_claim(f"group-{name}", FLAT.replace(b"group trio 2 W1 W2 W3", line), 5)
    yield policy_claim("group-defined-twice", FLAT + b"group trio any W1\n", 7)
    yield policy_claim("member-of-two-groups", FLAT + b"group other any W1\n", 7)
    yield policy_claim(
        "groups-in-a-circle", witness_lines(1) + b"group a any b\ngroup b any a\nquorum a\n", 2
    )


def refused_keys() -> Iterator[Vector]:
    vkey, witness_vkey = LOG_KEY.vkey.encode(), WITNESS_KEYS[0].vkey.encode()
    name, digest, encoded = vkey.split(b"+", 2)
    for label, changed in [
        ("left-out", b""),
        ("with-two-urls", vkey + b" https://a.example https://b.example"),
        ("of-a-witness", witness_vkey),
        ("hash-flipped", b"+".join((name, flipped(digest, 7), encoded))),
        ("hash-in-capitals", b"+".join((name, digest.upper(), encoded))),
        ("hash-cut", b"+".join((name, digest[:6], encoded))),
        ("cut", vkey[:-4]),
        ("without-padding", vkey.rstrip(b"=") if vkey.endswith(b"=") else vkey[:-1]),
        ("in-base64url", b"+".join((name, digest, base64.urlsafe_b64encode(b"\x01" + b"\xfb" * 32)))),
        ("renamed", b"+".join((name + b"x", digest, encoded))),
        ("nameless", b"+".join((b"", digest, encoded))),
        ("with-a-name-that-is-no-utf-8", b"+".join((b"\xff", digest, encoded))),
        ("of-type-2", b"+".join((name, digest, base64.b64encode(b"\x02" + LOG.public.raw)))),
    ]:
        yield policy_claim(f"log-key-{label}", FLAT.replace(vkey, changed, 1), 1)
    yield policy_claim("log-twice", LOG_LINE + FLAT, 2)
    again = NoteKey("another/name", LOG.public).vkey.encode()
    yield policy_claim("log-twice-under-two-names", b"log %s\n" % again + FLAT, 2)
    post_quantum = b"witness.example/w1+00000000+" + base64.b64encode(b"\x06" + bytes(1312))
    yield policy_claim("witness-key-of-a-log", FLAT.replace(witness_vkey, vkey), 2)
    yield policy_claim("witness-key-of-post-quantum-type", FLAT.replace(witness_vkey, post_quantum), 2)
    renamed = NoteKey("else/where", WITNESSES[0].public, SignatureType.COSIGNATURE_V1).vkey.encode()
    yield policy_claim("witness-key-twice", FLAT.replace(WITNESS_KEYS[1].vkey.encode(), witness_vkey), 3)
    yield policy_claim(
        "witness-key-twice-under-two-names", FLAT.replace(WITNESS_KEYS[1].vkey.encode(), renamed), 3
    )
    yield policy_claim("witness-name-twice", FLAT.replace(b"witness W2 ", b"witness W1 "), 3)
    yield policy_claim("witness-name-none", FLAT.replace(b"witness W2 ", b"witness none "), 3)
    yield policy_claim("witness-name-left-out", FLAT.replace(b"witness W2 ", b"witness "), 3)
    yield policy_claim(
        "witness-with-two-urls", FLAT.replace(b"\nwitness W2", b" http://a http://b\nwitness W2"), 2
    )


def policy_vectors() -> Iterator[Vector]:
    yield from accepted_policies()
    yield from refused_policies()


# ---- quorums ----------------------------------------------------------------------------------------------------


def quorum_claim(
    name: str, policy: bytes, signed: str, is_quorum: bool, overlap_min: int, block_min: int
) -> Vector:
    read = parse_policy(policy)
    names = signed.split()
    strength = quorum_strength(read)
    must(read.is_quorum({item.encode() for item in names}) == is_quorum, name)
    must((strength.overlap_min, strength.block_min) == (overlap_min, block_min), f"{name}: {strength}")
    return {
        "block_min": block_min, "is_quorum": is_quorum, "name": name, "overlap_min": overlap_min,
        "policy": b64(policy), "signed": names,
    }  # fmt: skip


def quorum_vectors() -> Iterator[Vector]:
    def flat(rule: str, count: int) -> bytes:
        members = " ".join(f"W{n}" for n in range(1, count + 1))
        return witness_lines(count) + f"group g {rule} {members}\nquorum g\n".encode()

    yield quorum_claim("none-and-nobody", b"quorum none\n", "", True, 0, 0)
    yield quorum_claim("one-witness-signed", witness_lines(2) + b"quorum W1\n", "W1", True, 1, 1)
    yield quorum_claim("another-witness-signed", witness_lines(2) + b"quorum W1\n", "W2", False, 1, 1)
    yield quorum_claim("any-of-three-one", flat("any", 3), "W2", True, 0, 3)
    yield quorum_claim("any-of-three-none", flat("any", 3), "", False, 0, 3)
    yield quorum_claim("two-of-three-two", flat("2", 3), "W1 W3", True, 1, 2)
    yield quorum_claim("two-of-three-one", flat("2", 3), "W3", False, 1, 2)
    yield quorum_claim("two-of-four-two", flat("2", 4), "W1 W3", True, 0, 3)
    yield quorum_claim("three-of-four-three", flat("3", 4), "W1 W2 W4", True, 2, 2)
    yield quorum_claim("all-of-three-two", flat("all", 3), "W1 W2", False, 3, 1)
    yield quorum_claim("all-of-three-three", flat("all", 3), "W1 W2 W3", True, 3, 1)
    yield quorum_claim("five-of-seven-strangers-too", flat("5", 7), "W1 W2 W3 W4 X1 X2", False, 3, 3)
    yield quorum_claim("groups-both", NESTED, "W1 W3 W6", True, 1, 2)
    yield quorum_claim("groups-first-only", NESTED, "W1 W2 W3", False, 1, 2)
    yield quorum_claim("groups-second-only", NESTED, "W4 W5 W6", False, 1, 2)
    yield quorum_claim("groups-one-and-all", NESTED, "W1 W4 W5 W6", False, 1, 2)
    mixed = witness_lines(5) + b"group pair all W1 W2\ngroup g 2 pair W3 W4\nquorum g\n"
    yield quorum_claim("group-beside-witnesses", mixed, "W1 W2 W4", True, 1, 2)
    yield quorum_claim("half-a-group-beside-a-witness", mixed, "W1 W4", False, 1, 2)


# ---- cosignatures -----------------------------------------------------------------------------------------------


LEAVES = [leaf_hash(b"leaf %d" % number) for number in range(40)]
FORKED = [*LEAVES[:10], *(leaf_hash(b"other leaf %d" % number) for number in range(30))]


def subtree_root(start: int, end: int) -> bytes:
    return root_of(LEAVES[start:end])


def checkpoint(
    size: int, leaves: list[bytes] | None = None, key: SigningKey = LOG, origin: str = ORIGIN
) -> str:
    root = root_of((leaves or LEAVES)[:size])
    return sign_checkpoint(Checkpoint(origin, size, root), key)


BODY = Checkpoint(ORIGIN, 20, subtree_root(0, 20)).body()


def cosignature_claim(
    name: str, accepted: bool, note: str, time: int = TIME, key: NoteKey = W1_KEY
) -> Vector:
    try:
        must((SignedNote.from_text(note).cosigned_at(key) == time) == accepted, name)
    except (EncodingError, VerificationError):
        must(not accepted, name)
    return {
        "accepted": accepted,
        "name": name,
        "note": note,
        "time_unix_seconds": time,
        "verifier_key": key.vkey,
    }


def cosignature_vectors() -> Iterator[Vector]:
    line = cosign_note(BODY, W1_KEY.name, W1, TIME)
    log_line = sign_note(BODY, ORIGIN, LOG)

    def note(*lines: NoteSignature, body: str = BODY) -> str:
        return SignedNote(body, (log_line, *lines)).to_text()

    def with_bytes(data: bytes) -> str:
        return note(NoteSignature(line.name, line.key_hash, data))

    extended = BODY + "an extension\n"
    yield cosignature_claim("cosigned", True, note(line))
    yield cosignature_claim(
        "cosigned-first-of-two", True, note(line, cosign_note(BODY, "else/where", WITNESSES[1], 5))
    )
    yield cosignature_claim("cosigned-with-an-extension-line", True, SignedNote(
        extended, (cosign_note(extended, W1_KEY.name, W1, TIME),)).to_text())  # fmt: skip
    latest = 2**63 - 1
    yield cosignature_claim(
        "at-the-latest-time", True, note(cosign_note(BODY, W1_KEY.name, W1, latest)), latest
    )
    yield cosignature_claim(
        "by-a-stranger-only", False, note(cosign_note(BODY, "else/where", WITNESSES[1], TIME))
    )
    yield cosignature_claim("by-the-log-only", False, note())
    yield cosignature_claim("under-another-key", False, note(line), key=WITNESS_KEYS[1])
    yield cosignature_claim("said-to-be-a-second-later", False, note(line), TIME + 1)
    yield cosignature_claim("over-another-size", False, note(line, body=BODY.replace("\n20\n", "\n21\n")))
    yield cosignature_claim(
        "over-an-extension-that-was-added", False, SignedNote(extended, (line,)).to_text()
    )
    signed = line.signature
    for name, data in [
        ("time-flipped", flipped(signed, 7)),
        ("time-beyond-63-bits", b"\x80" + signed[1:]),
        ("time-left-out", signed[8:]),
        ("time-little-endian", signed[:8][::-1] + signed[8:]),
        ("signature-first-half-flipped", flipped(signed, 8)),
        ("signature-second-half-flipped", flipped(signed, 60)),
        ("signature-cut", signed[:-1]),
        ("signature-with-an-octet-more", signed + b"\0"),
        ("signature-over-the-plain-text", signed[:8] + W1.sign(BODY.encode())),
        (
            "signature-with-the-header-of-version-2",
            signed[:8] + W1.sign(f"cosignature/v2\ntime {TIME}\n{BODY}".encode()),
        ),
        ("signature-without-the-time-line", signed[:8] + W1.sign(f"cosignature/v1\n{BODY}".encode())),
        (
            "signature-with-a-leading-zero-in-the-time",
            signed[:8] + W1.sign(f"cosignature/v1\ntime 0{TIME}\n{BODY}".encode()),
        ),
        (
            "signature-by-another-witness",
            signed[:8] + cosign_note(BODY, "x", WITNESSES[1], TIME).signature[8:],
        ),
    ]:
        yield cosignature_claim(name, False, with_bytes(data))
    plain = sign_note(BODY, W1_KEY.name, W1)
    yield cosignature_claim("plain-signature-under-the-hash-of-its-own-type", False, note(plain))
    wrong = NoteSignature(W1_KEY.name, W1_KEY.hash, flipped(signed, 20))
    yield cosignature_claim("a-false-line-beside-the-true-one", False, note(line, wrong))


# ---- requests ---------------------------------------------------------------------------------------------------


def request_claim(
    name: str, status: int, body: bytes, record: Seen = NEVER, log_keys: tuple[NoteKey, ...] = (LOG_KEY,)
) -> Vector:
    trusted: dict[str, tuple[Any, ...]] = {}
    for key in log_keys:
        trusted[key.name] = (*trusted.get(key.name, ()), key.key)
    checked = check_request(body, trusted, W1_KEY)
    answer = checked if isinstance(checked, Refusal) else decide(checked, record).refusal
    found = 200 if answer is None else int(answer.status)
    must(found == status, f"{name}: {found} {answer}")
    vector = {
        "body": b64(body), "log_keys": [key.vkey for key in log_keys], "name": name, "record_root": record.root.hex(),
        "record_size": record.size, "status": status, "witness_key": W1_KEY.vkey,
    }  # fmt: skip
    return vector | ({"answer": answer.body} if answer is not None and status == 409 else {})


def request(old: int, size: int, leaves: list[bytes] | None = None, **changes: Any) -> bytes:
    chosen = leaves or LEAVES
    proof = consistency_proof(old, size, lambda start, end: root_of(chosen[start:end])) if old <= size else []
    said = {"old_size": old, "proof": tuple(proof), "note": checkpoint(size, leaves), **changes}
    return AddCheckpoint(**said).to_bytes()


def record_of(size: int) -> Seen:
    return Seen(size, root_of(LEAVES[:size]))


def request_vectors() -> Iterator[Vector]:
    ten = record_of(10)
    for old, size in [(0, 1), (0, 20), (1, 2), (10, 20), (7, 8), (8, 40), (20, 20)]:
        yield request_claim(f"from-{old}-to-{size}", 200, request(old, size), record_of(old))
    yield request_claim("empty-log-to-an-empty-log", 200, request(0, 0))
    cosigned = SignedNote.from_text(checkpoint(20)).with_signature(
        cosign_note(BODY, "else/where", STRANGER, 9)
    )
    yield request_claim("a-stranger-cosigned-too", 200, request(10, 20, note=cosigned.to_text()), ten)
    second = NoteKey(ORIGIN, OTHER_LOG.public)
    yield request_claim(
        "signed-by-the-second-of-two-keys",
        200,
        request(10, 20, note=checkpoint(20, key=OTHER_LOG)),
        ten,
        (LOG_KEY, second),
    )
    yield from malformed_requests()
    yield from unknown_and_forbidden(ten)
    yield request_claim("old-beyond-the-checkpoint", 400, request(20, 10), record_of(20))
    yield request_claim("old-behind-the-record", 409, request(5, 20), ten)
    yield request_claim("old-zero-to-learn-the-size", 409, request(0, 20), ten)
    yield request_claim("old-beyond-the-record", 409, request(15, 20), ten)
    yield request_claim("old-not-zero-at-the-first-time", 409, request(10, 20))
    yield request_claim("smaller-tree", 409, request(5, 8), ten)
    yield from inconsistent_requests(ten)
    yield from forgotten_requests(ten)


def malformed_requests() -> Iterator[Vector]:
    body, ten = request(10, 20), record_of(10)
    head, _, note = body.partition(b"\n\n")
    first, *hashes = head.split(b"\n")
    for name, changed in [
        ("nothing", b""),
        ("old-line-left-out", body.partition(b"\n")[2]),
        ("old-with-a-leading-zero", body.replace(b"old 10", b"old 010", 1)),
        ("old-negative", body.replace(b"old 10", b"old -10", 1)),
        ("old-in-capitals", body.replace(b"old 10", b"Old 10", 1)),
        ("old-with-two-blanks", body.replace(b"old 10", b"old  10", 1)),
        ("old-with-a-tab", body.replace(b"old 10", b"old\t10", 1)),
        ("old-with-a-carriage-return", body.replace(b"old 10\n", b"old 10\r\n", 1)),
        ("old-beyond-63-bits", body.replace(b"old 10", b"old 9223372036854775818", 1)),
        ("old-in-words", body.replace(b"old 10", b"old ten", 1)),
        ("empty-line-left-out", head + b"\n" + note),
        ("checkpoint-left-out", head + b"\n\n"),
        ("sixty-four-hashes", first + b"\n" + (hashes[0] + b"\n") * 64 + b"\n" + note),
        ("hash-without-padding", head[:-1] + b"\n\n" + note),
        ("hash-in-base64url", body.replace(hashes[0], base64.urlsafe_b64encode(b"\xfb" * 32), 1)),
        ("hash-of-31-bytes", body.replace(hashes[0], base64.b64encode(bytes(31)), 1)),
        ("hash-with-a-blank-behind-it", body.replace(hashes[0], hashes[0] + b" ", 1)),
        ("not-utf-8", body.replace(ORIGIN.encode(), b"\xff" * 8)),
        ("checkpoint-without-signatures", head + b"\n\n" + note.partition(b"\n\n")[0] + b"\n\n"),
        ("checkpoint-without-its-last-newline", body[:-1]),
        ("checkpoint-size-with-a-leading-zero", body.replace(b"\n20\n", b"\n020\n")),
        (
            "checkpoint-root-cut",
            body.replace(base64.b64encode(subtree_root(0, 20)), base64.b64encode(bytes(31))),
        ),
        ("checkpoint-with-a-tab", body.replace(b"\n20\n", b"\n20\t\n")),
    ]:
        must(changed != body, name)
        yield request_claim(name, 400, changed, ten)


def unknown_and_forbidden(ten: Seen) -> Iterator[Vector]:
    elsewhere = "lichen/" + "cd" * 32
    yield request_claim("origin-unknown", 404, request(10, 20, note=checkpoint(20, origin=elsewhere)), ten)
    yield request_claim("no-log-known", 404, request(10, 20), ten, ())
    yield request_claim("signed-by-another-key", 403, request(10, 20, note=checkpoint(20, key=STRANGER)), ten)
    body = request(10, 20)
    yield request_claim("checkpoint-size-changed", 403, body.replace(b"\n20\n", b"\n21\n"), ten)
    signed = SignedNote.from_text(checkpoint(20))
    false = NoteSignature(ORIGIN, LOG_KEY.hash, flipped(signed.signatures[0].signature))
    for name, note in [
        ("signature-flipped", SignedNote(signed.text, (false,))),
        ("a-false-signature-of-the-log-beside-the-true-one", signed.with_signature(false)),
        ("signed-under-another-name", SignedNote(signed.text, (sign_note(signed.text, "lichen/else", LOG),))),
        (
            "cosigned-by-the-log-key-only",
            SignedNote(signed.text, (cosign_note(signed.text, ORIGIN, LOG, TIME),)),
        ),
    ]:
        yield request_claim(name, 403, request(10, 20, note=note.to_text()), ten)


def inconsistent_requests(ten: Seen) -> Iterator[Vector]:
    proof = consistency_proof(10, 20, subtree_root)
    for name, changed in [
        ("proof-left-out", []),
        ("proof-with-its-first-hash-flipped", [flipped(proof[0]), *proof[1:]]),
        ("proof-with-its-last-hash-left-out", proof[:-1]),
        ("proof-with-a-hash-more", [*proof, bytes(32)]),
        ("proof-reversed", proof[::-1]),
    ]:
        yield request_claim(name, 422, request(10, 20, proof=tuple(changed)), ten)
    yield request_claim("proof-from-zero-that-is-not-empty", 422, request(0, 20, proof=(bytes(32),)))
    yield request_claim(
        "proof-between-equal-sizes-that-is-not-empty", 422, request(10, 10, proof=(bytes(32),)), ten
    )
    forked = [*LEAVES[:5], *FORKED[10:]]
    yield request_claim("fork-before-the-record", 422, request(10, 20, forked), ten)
    yield request_claim("fork-of-the-same-size", 422, request(10, 10, forked), ten)
    bad_root = sign_checkpoint(Checkpoint(ORIGIN, 0, bytes(32)), LOG)
    yield request_claim("empty-log-with-another-root", 422, request(0, 0, note=bad_root))
    must(root_of([]) == EMPTY_ROOT, "the empty root")


def forgotten_requests(ten: Seen) -> Iterator[Vector]:
    """The witness signed this before, and its record is from before that: it takes the size over and signs nothing."""

    def own(size: int, leaves: list[bytes] | None = None) -> str:
        note = SignedNote.from_text(checkpoint(size, leaves))
        return note.with_signature(cosign_note(note.text, W1_KEY.name, W1, TIME)).to_text()

    yield request_claim("signed-before-and-forgotten", 409, request(10, 20, note=own(20)), ten)
    yield request_claim("signed-before-and-on-record", 200, request(20, 20, note=own(20)), record_of(20))
    forked = [*LEAVES[:5], *FORKED[10:]]
    yield request_claim(
        "signed-before-and-contradicted-by-the-record",
        422,
        request(10, 10, forked, note=own(10, forked)),
        ten,
    )


def text_of(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=True) + "\n"


def build() -> dict[str, Any]:
    return {
        "policies.json": list(policy_vectors()),
        "quorums.json": list(quorum_vectors()),
        "cosignatures.json": list(cosignature_vectors()),
        "add-checkpoint.json": list(request_vectors()),
    }


def main() -> int:
    stale = 0
    for name, content in build().items():
        path, text = HERE / name, text_of(content)
        if "--check" in sys.argv[1:]:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                print(f"{name} is not what this program writes", file=sys.stderr)
                stale = 1
        else:
            path.write_text(text, encoding="utf-8")
    return stale


if __name__ == "__main__":
    sys.exit(main())
