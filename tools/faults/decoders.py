"""Every reader of bytes from elsewhere, with bytes that it accepts: the law is that it accepts or raises its own error.

Its own error is one of `lichen.errors`: nothing else may escape, nothing may hang, and what is accepted must be written again as
the same bytes where there is a writer.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.site import Site
from lichen.content.car import read_car, write_car
from lichen.content.cid import Cid
from lichen.content.dag_pb import decode_file_node, encode_node, file_data, link_to
from lichen.content.unixfs import hash_bytes
from lichen.crypto.keys import PublicKey
from lichen.crypto.note import NoteKey, SignedNote
from lichen.crypto.sealed import open_bytes, seal_bytes
from lichen.encoding.base import b64_decode, b64u_decode, hex_decode
from lichen.encoding.canonical import canonical_json, parse_canonical
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement
from lichen.errors import EncodingError, LichenError
from lichen.ledger.checkpoint import Checkpoint
from lichen.ledger.genesis import Genesis
from lichen.ledger.high_water import Mark
from lichen.ledger.policy import parse_policy
from lichen.ledger.receipt import Receipt, verify_receipt
from lichen.ledger.seal import Seal
from lichen.ledger.split_view import SplitView
from lichen.ledger.state_bucket import Bucket
from lichen.ledger.state_map import MapProof
from lichen.ledger.witness import AddCheckpoint
from lichen.net.signed_request import SignedRequest
from lichen.net.tile_paths import TilePath, pack_bundle, unpack_bundle
from lichen.runs.work.manifest import Manifest

__all__ = ["Decoder", "broken", "decoders", "mutated"]


@dataclass(frozen=True)
class Decoder:
    """A reader.

    Args:
        name: Of the format.
        read: Reads bytes.
        write: Writes what was read; None where nothing writes it.
        seeds: Bytes that it accepts.
    """

    name: str
    read: Callable[[bytes], Any]
    write: Callable[[Any], bytes] | None
    seeds: tuple[bytes, ...]


def broken(decoder: Decoder, data: bytes) -> str | None:
    """Try bytes on a reader; say how the law is broken, or None."""
    try:
        value = decoder.read(data)
    except LichenError:
        return None
    except Exception as error:
        return f"{decoder.name}: {type(error).__name__}: {error}"
    if decoder.write is not None and decoder.write(value) != data:
        return f"{decoder.name}: accepted what it would write otherwise"
    return None


def mutated(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Change bytes as damage, mistakes and malice do: a bit, a run, a number, a splice, a repetition."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(changed) + 1)
        size = rng.choice((1, 1, 2, 4, 16, 64))
        turn = rng.randrange(7)
        if turn == 0 and changed:
            changed[min(at, len(changed) - 1)] ^= 1 << rng.randrange(8)
        elif turn == 1:
            changed[at : at + size] = rng.randbytes(size)
        elif turn == 2:
            del changed[at : at + size]
        elif turn == 3:
            changed[at:at] = changed[at : at + size] * rng.choice((1, 2, 9))
        elif turn == 4:
            start = rng.randrange(len(other) + 1)
            changed[at:at] = other[start : start + size]
        elif turn == 5:
            numbers = (b"\0", b"\xff" * size, b"\x7f\xff", b"\x80" * 10, b"9" * size, b"-1", b"1e999", b'"')
            changed[at : at + size] = rng.choice(numbers)
        else:
            del changed[at:]
    return bytes(changed)


def decoders(scratch: Path) -> list[Decoder]:
    """Every reader, with seeds made from a small ledger.

    Args:
        scratch: An empty directory for that.
    """
    site, rng = Site(scratch), random.Random(5)
    with site.create() as ledger:
        ledger.append_many(site.entries(ledger, rng, 3), seal=True)
        entries = [entry for _, entry in ledger.entries()]
        receipts = [
            ledger.receipt(2),
            ledger.receipt(5),
            ledger.state_receipt("registry", b"exact/" + bytes(32)),
        ]
        note, origin, key = ledger.checkpoint(), ledger.origin, ledger.genesis.log_key
    statements = [Statement.from_bytes(entry.payload) for entry in entries]
    texts = tuple(receipt.to_text().encode() for receipt in receipts)
    proofs = tuple(receipt.about.map_proof.to_bytes() for receipt in receipts[2:])  # type: ignore[union-attr]
    return [
        *_encodings(entries, statements),
        *_of_ledgers(entries, note, proofs),
        Decoder("receipt", _text(Receipt.parse), lambda receipt: receipt.to_text().encode(), texts),
        Decoder(
            "verified receipt",
            _text(lambda text: verify_receipt(Receipt.parse(text), key, origin)),
            None,
            texts,
        ),
        *_of_content(),
        *_of_the_net(entries),
    ]


def _text(read: Callable[[str], Any]) -> Callable[[bytes], Any]:
    """Read text from bytes; bytes that are no text are refused as such."""

    def reads(data: bytes) -> Any:
        try:
            return read(data.decode())
        except UnicodeDecodeError as error:
            raise EncodingError("not text") from error

    return reads


def _encodings(entries: list[Entry], statements: list[Statement]) -> list[Decoder]:
    payloads = tuple(entry.payload for entry in entries)
    return [
        Decoder(
            "canonical JSON", parse_canonical, canonical_json, (*payloads, b'{"a":[1,-0.5,1e+21,"\\u0001"]}')
        ),
        Decoder("statement", Statement.from_bytes, Statement.to_bytes, payloads),
        Decoder("entry", Entry.from_bytes, Entry.to_bytes, tuple(entry.to_bytes() for entry in entries)),
        Decoder("envelope", Entry.from_dsse, Entry.to_dsse, tuple(entry.to_dsse() for entry in entries)),
        Decoder("base64url", _text(b64u_decode), None, (b"AAAA", b"_-8")),
        Decoder("base64", _text(b64_decode), None, (b"AAAA", b"+/8=")),
        Decoder("hexadecimal", _text(hex_decode), None, (b"00ff",)),
        Decoder(
            "did:key",
            _text(PublicKey.from_did_key),
            lambda key: key.did_key.encode(),
            (_log_key_text(entries),),
        ),
        Decoder(
            "genesis", lambda data: Genesis.from_entry(Entry.from_bytes(data)), None, (entries[0].to_bytes(),)
        ),
        Decoder(
            "seal",
            lambda data: Seal.from_statement(Statement.from_bytes(data)),
            lambda seal: seal.to_statement().to_bytes(),
            tuple(one.to_bytes() for one in statements if one.kind == "seal"),
        ),
    ]


def _log_key_text(entries: list[Entry]) -> bytes:
    """The log's key in the form people hand on."""
    return Genesis.from_entry(entries[0]).log_key.did_key.encode()


def _of_ledgers(entries: list[Entry], note: str, proofs: tuple[bytes, ...]) -> list[Decoder]:
    body = note.partition("\n\n")[0] + "\n"
    key = Genesis.from_entry(entries[0]).log_key
    vkey = NoteKey("example.org/log", key).vkey
    policy = f"log {vkey}\nwitness w1 {NoteKey('w1.example', key).vkey}\ngroup g 1 w1\nquorum g\n"
    bucket = Bucket.from_items([(bytes([place]) * 32, bytes([place]) * 9) for place in range(1, 9)])
    request = f"old 1\n{'A' * 43}=\n\n{note}"
    return [
        Decoder(
            "signed note",
            _text(SignedNote.from_text),
            lambda value: value.to_text().encode(),
            (note.encode(),),
        ),
        Decoder(
            "checkpoint", _text(Checkpoint.from_body), lambda value: value.body().encode(), (body.encode(),)
        ),
        Decoder(
            "verifier key", _text(NoteKey.from_vkey), lambda value: value.vkey.encode(), (vkey.encode(),)
        ),
        Decoder("policy", parse_policy, None, (policy.encode(), b"quorum none\n")),
        Decoder("proof about the state", MapProof.from_bytes, MapProof.to_bytes, (*proofs, b"\0")),
        Decoder("bucket", Bucket.from_bytes, Bucket.to_bytes, (bucket.to_bytes(),)),
        Decoder("mark", Mark.from_line, None, (Mark(7, bytes(32)).to_line(),)),
        Decoder("request to a witness", AddCheckpoint.from_bytes, None, (request.encode(),)),
        Decoder("split view", SplitView.from_bytes, None, (note.encode() + b"\n" + note.encode(),)),
    ]


def _of_content() -> list[Decoder]:
    leaf = hash_bytes(b"leaf").cid
    block = encode_node([link_to(b"leaf", ())], file_data([4]))
    archive = io.BytesIO()
    write_car(archive, leaf, [(leaf, b"leaf")])

    def whole_car(data: bytes) -> list[tuple[Cid, bytes]]:
        return list(read_car(io.BytesIO(data))[1])

    manifest = {"not": "a manifest"}
    sealed = seal_bytes(b"detail", bytes(32), bytes(32))
    return [
        Decoder("CID", Cid.from_bytes, Cid.to_bytes, (leaf.to_bytes(),)),
        Decoder("CID as text", _text(Cid.parse), lambda cid: str(cid).encode(), (str(leaf).encode(),)),
        Decoder("UnixFS node", decode_file_node, None, (block,)),
        Decoder("CAR", whole_car, None, (archive.getvalue(),)),
        Decoder("sealed artefact", lambda data: open_bytes(data, bytes(32)), None, (sealed,)),
        Decoder("manifest", Manifest.from_bytes, None, (canonical_json(manifest),)),
    ]


def _of_the_net(entries: list[Entry]) -> list[Decoder]:
    bundle = pack_bundle(entry.to_bytes() for entry in entries)
    count = len(entries)
    return [
        Decoder("tile path", _text(TilePath.parse), None, (b"tile/0/x001/067", b"tile/entries/000.p/5")),
        Decoder("bundle", lambda data: unpack_bundle(data, count), pack_bundle if count else None, (bundle,)),
        Decoder(
            "request signature",
            _text(lambda text: SignedRequest.parse(*text.partition("\n")[::2])),
            None,
            (b'sig1=("@method" "@path");created=1;keyid="x";nonce="y"\nsig1=:AAAA:',),
        ),
    ]
