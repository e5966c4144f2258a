"""What an archive says of itself: whose keys there are, which ledger it is, and how to check it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lichen.archive.names import ARCHIVE_FORMAT
from lichen.contracts.members import key_binding, member_of
from lichen.crypto.keys import PublicKey
from lichen.crypto.note import NoteKey
from lichen.encoding.base import b64u, b64u_decode
from lichen.encoding.canonical import canonical_json
from lichen.errors import CorruptLedgerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lichen.ledger.reader import LedgerReader

__all__ = ["facts_document", "keys_document", "readme_document"]


def keys_document(
    ledger: LedgerReader, members: Iterable[str], log_keys: Iterable[tuple[int, str]] = ()
) -> bytes:
    """Write the list of keys: the log's, and each member's with the indices it speaks for.

    Args:
        ledger: The ledger.
        members: Ids of all members.
        log_keys: Keys (base64url) that took the place of the log's first one, with the first index each speaks for.

    Raises:
        CorruptLedgerError: The state lacks one of them.
    """
    value: dict[str, Any] = {
        "log": _log_key(ledger, ledger.genesis.log_key),
        "members": [_member(ledger, name) for name in sorted(members)],
    }
    successors = [
        {"first": first, **_log_key(ledger, PublicKey(b64u_decode(key, 32)))}
        for first, key in sorted(log_keys)
    ]
    if successors:
        value["successors"] = successors
    return canonical_json(value) + b"\n"


def _log_key(ledger: LedgerReader, key: PublicKey) -> dict[str, Any]:
    return {"did": key.did_key, "key": b64u(key.raw), "vkey": NoteKey(ledger.origin, key).vkey}


def _member(ledger: LedgerReader, name: str) -> dict[str, Any]:
    member = member_of(ledger.state_get, name)
    bindings = [] if member is None else [key_binding(ledger.state_get, key) for key in member.keys]
    if member is None or None in bindings:
        raise CorruptLedgerError(
            f"the state does not know member {name!r}, or one of its keys", remedy="Run `lichen verify`."
        )
    keys = []
    for binding in bindings:
        assert binding is not None
        key: dict[str, Any] = {
            "did": binding.key.did_key,
            "first": binding.first,
            "key": b64u(binding.key.raw),
        }
        keys.append(key if binding.end is None else key | {"end": binding.end, "reason": binding.reason})
    return {"admin": member.admin, "keys": keys, "member": name, "since": member.since}


def facts_document(ledger: LedgerReader, size: int, artefact_counts: Mapping[str, int]) -> bytes:
    """Write which ledger this is, as of a size.

    Args:
        ledger: The ledger.
        size: Entries in the archive.
        artefact_counts: How many artefacts came to what.
    """
    genesis = ledger.genesis
    facts = {
        "access": genesis.access,
        "artefacts": dict(artefact_counts),
        "format": ARCHIVE_FORMAT,
        "ledger": ledger.id,
        "log_key": genesis.log_key.did_key,
        "name": genesis.name,
        "root": ledger.root_at(size).hex(),
        "size": size,
    }
    return canonical_json(facts) + b"\n"


def readme_document(ledger: LedgerReader, size: int) -> bytes:
    """Write what somebody who finds the archive has to know.

    Args:
        ledger: The ledger.
        size: Entries in the archive.
    """
    genesis = ledger.genesis
    private = (
        "The ledger is private: fingerprints in it are keyed digests, and details of runs lie sealed with a group key that\n"
        "is not in this archive. Results and published files are not sealed; treat them as their owners ask."
        if genesis.access == "private"
        else "The ledger is public."
    )
    return _README.format(
        name=" ".join(genesis.name.split()),
        id=ledger.id,
        log_key=genesis.log_key.did_key,
        size=size,
        private=private,
    ).encode()


_README = """\
# Archive of a ledger

Everything that the ledger "{name}" holds, in files that need no program of its makers.

| | |
|---|---|
| ledger | `{id}` |
| log key | `{log_key}` |
| entries | {size} |

{private}

## Check it

With Python 3.9 or newer, and nothing else installed:

```
python3 verify_ledger.py .
```

It answers `holds`, or names the first entry that does not hold, and why. Exit status: 0 all holds, 1 something does not,
2 it could not be looked at, 3 what this copy of the program knows how to check holds.

Whoever forges an archive can forge the program in it. So take `verify_ledger.py` from where you trust it, or compare its
SHA-256 with the one that was published; and compare ledger and log key above with what you were given by another way:

```
python3 verify_ledger.py . --ledger-id {id} --log-key {log_key}
```

Somebody who keeps the file `checkpoint` can check next year that the log only grew: `--earlier OLD_CHECKPOINT`. Names of
witnesses who must have cosigned are given with `--witness VKEY`.

To see only that no file was changed: `sha256sum --check SHA256SUMS`.

## What lies where

| file | what |
|---|---|
| `checkpoint` | newest signed head of the log (C2SP tlog-checkpoint) |
| `tile/` | the log as static files (C2SP tlog-tiles): hash tiles and entry bundles |
| `checkpoints/` | for each seal: size, root and the log's signature, both in base64 |
| `keys.json` | the log's key; members and the indices that each of their keys speaks for |
| `artefacts/` | files that entries name, one CAR (version 1) each, named by its CID |
| `artefacts.jsonl` | what became of every artefact: included, left out, missing, or a directory |
| `archive.json` | which ledger this is, and how far it goes |

An entry is one byte 01, 16 bytes of key id, 64 bytes of Ed25519 signature, and an in-toto statement in canonical JSON; the
signature is DSSE's. `verify_ledger.py` is also the shortest complete description of the format.

## Go on from it

`lichen restore ARCHIVE DIRECTORY` makes a ledger of it again. The secret key of the log is not in the archive; whoever
holds it puts it into the directory as `log.key`, with mode 600.
"""
