"""Checkpoints: the published example, our own, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from lichen.crypto.keys import SigningKey
from lichen.errors import EncodingError, VerificationError
from lichen.ledger.checkpoint import Checkpoint, open_checkpoint, origin_of, parse_checkpoint, sign_checkpoint

KEY = SigningKey.from_seed(bytes(range(32)))
ORIGIN = origin_of("ab" * 32)
CHECKPOINT = Checkpoint(ORIGIN, 3, bytes(32))
SIGNED = sign_checkpoint(CHECKPOINT, KEY)

# The example of the C2SP tlog-checkpoint specification.
PUBLISHED = (
    "example.com/behind-the-sofa\n"
    "20852163\n"
    "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    "\n"
    "— example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
)


def test_the_published_example_is_read() -> None:
    checkpoint, note = parse_checkpoint(PUBLISHED)
    assert (checkpoint.origin, checkpoint.tree_size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.root.hex().startswith("0ac5186a")
    assert note.to_text() == PUBLISHED
    assert checkpoint.body() == note.text


def test_our_own_opens_under_the_logs_key_and_origin_only() -> None:
    assert SIGNED.startswith(f"lichen/{'ab' * 32}\n3\n")
    assert open_checkpoint(SIGNED, ORIGIN, KEY.public) == CHECKPOINT
    with pytest.raises(VerificationError, match="another ledger"):
        open_checkpoint(SIGNED, origin_of("cd" * 32), KEY.public)
    with pytest.raises(VerificationError, match="no trusted key"):
        open_checkpoint(SIGNED, ORIGIN, SigningKey.from_seed(bytes(32)).public)
    with pytest.raises(VerificationError, match="does not hold"):
        open_checkpoint(SIGNED.replace("\n3\n", "\n4\n"), ORIGIN, KEY.public)


def test_extension_lines_of_others_are_kept() -> None:
    checkpoint = Checkpoint("example.com/log", 0, bytes(32), ("more", "and more"))
    assert Checkpoint.from_body(checkpoint.body()) == checkpoint


@pytest.mark.parametrize("ledger_id", ["", "ab", "AB" * 32, "ab" * 33, "zz" * 32, "ab" * 32 + "\n"])
def test_an_origin_contains_a_ledger_id(ledger_id: str) -> None:
    with pytest.raises(EncodingError):
        origin_of(ledger_id)


BODY = CHECKPOINT.body()


@pytest.mark.parametrize(
    "body",
    [
        "",
        "\n\n\n",
        BODY[:-1],
        BODY + "\n",
        BODY.replace("\n3\n", "\n03\n"),
        BODY.replace("\n3\n", "\n+3\n"),
        BODY.replace("\n3\n", "\n3 \n"),
        BODY.replace("\n3\n", "\n\n"),
        BODY.replace("\n3\n", "\n-3\n"),
        BODY.replace("\n3\n", "\n٣\n"),
        BODY.replace("\n3\n", f"\n{2**63}\n"),
        BODY.replace("\n3\n", f"\n{10**30}\n"),
        BODY.replace("AAAA=", "AAA=="),
        BODY.replace("=", ""),
        BODY.split("\n", 1)[1],
    ],
)
def test_other_bodies_are_refused(body: str) -> None:
    with pytest.raises(EncodingError):
        Checkpoint.from_body(body)


@pytest.mark.parametrize(
    "arguments",
    [
        ("", 1, bytes(32)),
        ("a\nb", 1, bytes(32)),
        ("a", -1, bytes(32)),
        ("a", True, bytes(32)),
        ("a", 2**63, bytes(32)),
        ("a", 1, bytes(31)),
        ("a", 1, bytes(32), ("",)),
    ],
)
def test_a_checkpoint_is_well_formed_from_the_start(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(EncodingError):
        Checkpoint(*arguments)
