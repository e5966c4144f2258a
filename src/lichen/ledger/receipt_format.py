"""The text of receipts.

::

    c2sp.org/tlog-proof@v1
    extra <base64 of what the receipt is about, in canonical JSON>
    index <index of the entry, or of the seal>
    <inclusion proof, one base64 hash on each line>
    <empty line>
    <signed checkpoint>

A receipt is about an entry, or about a key of the state as a seal left it (a value, or its absence). Nothing is
verified here: see :mod:`lichen.ledger.receipt`.

Source: C2SP tlog-proof v1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lichen.crypto.keys import PublicKey
from lichen.encoding.base import b64, b64_decode, b64u, b64u_decode
from lichen.encoding.canonical import canonical_json, parse_canonical
from lichen.encoding.entry import Entry
from lichen.encoding.fields import Fields
from lichen.errors import EncodingError
from lichen.ledger.checkpoint import Checkpoint, parse_checkpoint
from lichen.ledger.state_map import MapProof
from lichen.ledger.succession import SuccessionLink

__all__ = ["ABOUT_VERSION", "EntryAnswer", "Receipt", "StateAnswer"]

MAGIC = "c2sp.org/tlog-proof@v1"
ABOUT_VERSION = 1
TEXT_LENGTH_MAX = 500_000
PROOF_COUNT_MAX = 63
SUCCESSION_COUNT_MAX = 64
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class EntryAnswer:
    """An entry, said to stand at the receipt's index.

    Attributes:
        entry: The entry.
        author: Public key it was signed with, when the receipt carries it.
        genesis: Entry 0, when the receipt carries it.
        succession: How the log came from its first key to the one that signed the checkpoint; empty where it is the first.
    """

    entry: Entry
    author: PublicKey | None = None
    genesis: Entry | None = None
    succession: tuple[SuccessionLink, ...] = ()


@dataclass(frozen=True, slots=True)
class StateAnswer:
    """A key of the state, said to have a value, or to be absent, under the seal at the receipt's index.

    Attributes:
        seal: The seal's entry.
        contract: Contract whose key it is.
        key: What the contract calls the key.
        value: Its value; None when it is said to be absent.
        map_proof: Way from the key, or from the leaf its lookup reaches, to the root of the state.
        genesis: Entry 0, when the receipt carries it.
        succession: How the log came from its first key to the one that signed the checkpoint; empty where it is the first.
    """

    seal: Entry
    contract: str
    key: bytes
    value: bytes | None
    map_proof: MapProof
    genesis: Entry | None = None
    succession: tuple[SuccessionLink, ...] = ()

    @property
    def entry(self) -> Entry:
        """The entry that the receipt's inclusion proof is about."""
        return self.seal


@dataclass(frozen=True, slots=True)
class Receipt:
    """A proof that can be handed on. Building or parsing one verifies nothing: see `lichen.ledger.receipt.verify_receipt`.

    Attributes:
        index: Index of the entry, or of the seal.
        proof: Sibling hashes from the entry's leaf up, 32 bytes each.
        checkpoint: Signed checkpoint, as text.
        about: What it is a receipt for.
    """

    index: int
    proof: tuple[bytes, ...]
    checkpoint: str
    about: EntryAnswer | StateAnswer

    @classmethod
    def of_entry(
        cls,
        entry: Entry,
        index: int,
        proof: Sequence[bytes],
        checkpoint: str,
        *,
        author: PublicKey | None = None,
        genesis: Entry | None = None,
        succession: Sequence[SuccessionLink] = (),
    ) -> Receipt:
        """Build the receipt of an entry.

        Args:
            entry: The entry.
            index: Where it stands.
            proof: Its inclusion proof in the tree of the checkpoint.
            checkpoint: A signed checkpoint that covers it.
            author: Key it was signed with, so that the reader can check the signature.
            genesis: Entry 0, so that the ledger's id is all a reader needs.
            succession: How the log came from its first key to the one that signed the checkpoint.

        Returns:
            The receipt.
        """
        return cls(index, tuple(proof), checkpoint, EntryAnswer(entry, author, genesis, tuple(succession)))

    @classmethod
    def of_state(
        cls,
        seal: Entry,
        index: int,
        proof: Sequence[bytes],
        checkpoint: str,
        *,
        contract: str,
        key: bytes,
        value: bytes | None,
        map_proof: MapProof,
        genesis: Entry | None = None,
        succession: Sequence[SuccessionLink] = (),
    ) -> Receipt:
        """Build the receipt of a key's value or absence.

        Args:
            seal: Entry of the seal that commits to the state.
            index: Where the seal stands.
            proof: Its inclusion proof in the tree of the checkpoint.
            checkpoint: The signed checkpoint whose last entry is the seal.
            contract: Contract whose key it is.
            key: What the contract calls the key.
            value: Its value; None when it is absent.
            map_proof: Proof of that in the state of the seal.
            genesis: Entry 0, so that the ledger's id is all a reader needs.
            succession: How the log came from its first key to the one that signed the checkpoint.

        Returns:
            The receipt.
        """
        about = StateAnswer(seal, contract, key, value, map_proof, genesis, tuple(succession))
        return cls(index, tuple(proof), checkpoint, about)

    @property
    def head(self) -> Checkpoint:
        """What the checkpoint says; its signature is not checked.

        Raises:
            EncodingError: Not a checkpoint.
        """
        return parse_checkpoint(self.checkpoint)[0]

    def to_text(self) -> str:
        """Write the receipt."""
        hashes = "".join(f"{b64(item)}\n" for item in self.proof)
        return (
            f"{MAGIC}\nextra {b64(_about_bytes(self.about))}\nindex {self.index}\n{hashes}\n{self.checkpoint}"
        )

    @classmethod
    def parse(cls, text: str) -> Receipt:
        """Read a receipt.

        Args:
            text: Text as :meth:`to_text` writes it; ``parse(text).to_text() == text``.

        Returns:
            The receipt; nothing in it has been verified.

        Raises:
            EncodingError: Not a receipt of Lichen.
        """
        if len(text) > TEXT_LENGTH_MAX:
            raise EncodingError(f"a receipt has at most {TEXT_LENGTH_MAX} characters")
        head, blank, checkpoint = text.partition("\n\n")
        magic, *lines = head.split("\n")
        if not blank or magic != MAGIC:
            raise EncodingError("not a receipt: it must start with " + MAGIC)
        if len(lines) < 2 or not lines[0].startswith("extra "):
            raise EncodingError("a receipt without its extra line does not say what it is about")
        match = _INDEX.fullmatch(lines[1])
        if match is None:
            raise EncodingError("the third line of a receipt must be its index")
        if len(lines) - 2 > PROOF_COUNT_MAX:
            raise EncodingError(f"the proof of a receipt has at most {PROOF_COUNT_MAX} hashes")
        parse_checkpoint(checkpoint)
        about = _about(b64_decode(lines[0].removeprefix("extra ")))
        return cls(int(match[1]), tuple(b64_decode(line, 32) for line in lines[2:]), checkpoint, about)


def _about_bytes(about: EntryAnswer | StateAnswer) -> bytes:
    value: dict[str, Any] = {"v": ABOUT_VERSION}
    if about.genesis is not None:
        value["genesis"] = b64u(about.genesis.to_bytes())
    if about.succession:
        value["succession"] = [
            {
                "entry": b64u(link.entry.to_bytes()),
                "index": link.index,
                "proof": [b64u(item) for item in link.proof],
            }
            for link in about.succession
        ]
    if isinstance(about, EntryAnswer):
        value["entry"] = b64u(about.entry.to_bytes())
        if about.author is not None:
            value["author"] = b64u(about.author.raw)
    else:
        value["seal"] = b64u(about.seal.to_bytes())
        value["contract"] = about.contract
        value["key"] = b64u(about.key)
        value["value"] = None if about.value is None else b64u(about.value)
        value["map_proof"] = b64u(about.map_proof.to_bytes())
    return canonical_json(value)


def _about(data: bytes) -> EntryAnswer | StateAnswer:
    value = parse_canonical(data)
    if isinstance(value, dict) and "entry" in value:
        fields = Fields(value, "the receipt", ("entry", "v"), ("author", "genesis", "succession"))
        fields.integer("v", ABOUT_VERSION, ABOUT_VERSION)
        author = PublicKey(fields.octets("author", 32)) if "author" in fields else None
        return EntryAnswer(Entry.from_bytes(fields.octets("entry")), author, _genesis(fields), _links(fields))
    fields = Fields(
        value,
        "the receipt",
        ("contract", "key", "map_proof", "seal", "v", "value"),
        ("genesis", "succession"),
    )
    fields.integer("v", ABOUT_VERSION, ABOUT_VERSION)
    return StateAnswer(
        seal=Entry.from_bytes(fields.octets("seal")),
        contract=fields.text("contract", 64),
        key=fields.octets("key"),
        value=None if value["value"] is None else b64u_decode(value["value"]),
        map_proof=MapProof.from_bytes(fields.octets("map_proof")),
        genesis=_genesis(fields),
        succession=_links(fields),
    )


def _genesis(fields: Fields) -> Entry | None:
    return Entry.from_bytes(fields.octets("genesis")) if "genesis" in fields else None


def _links(fields: Fields) -> tuple[SuccessionLink, ...]:
    if "succession" not in fields:
        return ()
    links = fields.array("succession", SUCCESSION_COUNT_MAX)
    if not links:
        raise EncodingError("a receipt without successions of the log's key leaves that member out")
    return tuple(map(_link, links))


def _link(value: object) -> SuccessionLink:
    fields = Fields(value, "a succession in the receipt", ("entry", "index", "proof"))
    return SuccessionLink(
        Entry.from_bytes(fields.octets("entry")),
        fields.integer("index", 1),
        tuple(b64u_decode(item, 32) for item in fields.array("proof", PROOF_COUNT_MAX)),
    )
