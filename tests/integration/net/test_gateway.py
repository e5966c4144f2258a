"""A ledger's server as a trustless IPFS gateway: blocks and CAR files that verify themselves."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable

import pytest

from lichen.content.car import import_artefact, read_car
from lichen.content.cid import DAG_PB, Cid
from lichen.content.dag_pb import decode_file_node
from lichen.content.directory_store import DirectoryStore
from lichen.content.memory_store import MemoryStore
from lichen.content.unixfs import CHUNK_SIZE, hash_bytes
from lichen.crypto.keys import SigningKey

from .conftest import Server, Team, problem

Start = Callable[..., Server]
SMALL = b"a model"
LARGE = bytes(range(256)) * (3 * CHUNK_SIZE // 256) + b"end"  # three equal chunks and one more
DEEP = hashlib.shake_256(b"deep").digest(180 * CHUNK_SIZE)  # two levels of nodes


def keep(team: Team, *artefacts: bytes) -> list[Cid]:
    store = DirectoryStore(team.directory / "store")
    return [store.put_bytes(data, durable=False).cid for data in artefacts]


def key_of(team: Team) -> SigningKey | None:
    return team.keys["bob"] if team.access == "private" else None


def block(server: Server, team: Team, cid: Cid) -> bytes:
    answer = server.get(f"/ipfs/{cid}?format=raw", key=key_of(team))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/vnd.ipld.raw"
    assert hashlib.sha256(answer.body).digest() == cid.digest
    return answer.body


def content(server: Server, team: Team, cid: Cid) -> bytes:
    """Read a file as a client that believes nothing does: each block by its own name."""
    found = block(server, team, cid)
    if cid.codec != DAG_PB:
        return found
    return b"".join(content(server, team, child) for child in decode_file_node(found).children)


def test_a_file_is_read_block_by_block(team: Team, serve: Start) -> None:
    cids = keep(team, b"", SMALL, LARGE)
    server = serve(team)
    assert [content(server, team, cid) for cid in cids] == [b"", SMALL, LARGE]


def test_a_file_is_read_as_a_car_file(team: Team, serve: Start) -> None:
    contents = (b"", SMALL, LARGE, DEEP)
    cids = keep(team, *contents)
    server = serve(team)
    for cid, data in zip(cids, contents, strict=True):
        answer = server.ask(
            "GET",
            f"/ipfs/{cid}",
            headers={"Accept": "text/html, application/vnd.ipld.car;version=1"},
            key=key_of(team),
        )
        assert answer.headers["content-type"] == "application/vnd.ipld.car; version=1; order=dfs; dups=n"
        assert answer.headers["content-disposition"] == f'attachment; filename="{cid}.car"'
        store = MemoryStore()
        assert import_artefact(store, io.BytesIO(answer.body), expected=cid) == hash_bytes(data)
        assert store.read_bytes(cid) == data
        root, blocks = read_car(
            io.BytesIO(server.get(f"/ipfs/{cid}?format=car&dag-scope=block", key=key_of(team)).body)
        )
        assert [found for found, _ in blocks] == [root] == [cid]


def test_a_part_of_a_file_is_had_as_a_car_file_too(public_team: Team, serve: Start) -> None:
    (cid,) = keep(public_team, DEEP)
    server = serve(public_team)
    first, second = decode_file_node(block(server, public_team, cid)).children
    _, blocks = read_car(io.BytesIO(server.get(f"/ipfs/{second}?format=car").body))
    leaves = [data for found, data in blocks if found.codec != DAG_PB]
    assert b"".join(leaves) == DEEP[174 * CHUNK_SIZE :]
    assert len(decode_file_node(block(server, public_team, first)).children) == 174


def test_what_is_not_held_or_not_asked_for_rightly_is_said(public_team: Team, serve: Start) -> None:
    (cid,) = keep(public_team, SMALL)
    server = serve(public_team)
    other = hash_bytes(b"other").cid
    for path, status, code in [
        (f"/ipfs/{other}?format=raw", 404, "not-found"),
        (f"/ipfs/{Cid(DAG_PB, other.digest)}?format=car", 404, "not-found"),
        ("/ipfs/QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn?format=raw", 404, "not-found"),
        (f"/ipfs/{cid}", 406, "not-acceptable"),
        (f"/ipfs/{cid}?format=html", 400, "usage"),
        (f"/ipfs/{cid}?format=car&dag-scope=some", 400, "usage"),
    ]:
        problem(server.get(path), status, code)
    probe = server.get("/ipfs/bafkqaaa?format=raw")
    assert (probe.status, probe.body) == (200, b"")


def test_a_block_is_not_sent_again_to_whoever_has_it(public_team: Team, serve: Start) -> None:
    (cid,) = keep(public_team, LARGE)
    server = serve(public_team)
    for query in ("format=raw", "format=car", "format=car&dag-scope=block"):
        first = server.get(f"/ipfs/{cid}?{query}")
        assert "immutable" in first.headers["cache-control"]
        again = server.ask("GET", f"/ipfs/{cid}?{query}", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status, again.body) == (304, b"")
        head = server.ask("HEAD", f"/ipfs/{cid}?{query}")
        assert (head.status, head.body) == (200, b"")


def test_a_damaged_artefact_is_not_given(public_team: Team, serve: Start) -> None:
    cids = keep(public_team, SMALL, LARGE)
    for cid in cids:
        (path,) = (public_team.directory / "store").glob(f"objects/*/{cid}")
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.write(b"X")
    server = serve(public_team)
    for cid in cids:
        for form in ("raw", "car"):
            assert server.get(f"/ipfs/{cid}?format={form}").status in {404, 422}


def test_a_private_ledger_gives_blocks_to_members_alone(private_team: Team, serve: Start) -> None:
    (cid,) = keep(private_team, SMALL)
    server = serve(private_team)
    for path in (f"/ipfs/{cid}?format=raw", f"/routing/v1/providers/{cid}"):
        assert server.get(path).status == 401
        assert server.get(path, key=private_team.keys["bob"]).status == 200


def test_the_server_is_named_as_provider_of_what_it_holds(public_team: Team, serve: Start) -> None:
    cids = keep(public_team, SMALL, LARGE)
    server = serve(public_team)
    for cid in cids:
        (provider,) = server.get(f"/routing/v1/providers/{cid}").json()["Providers"]
        assert provider["Schema"] == "peer"
        assert provider["ID"] == public_team.log_key.public.peer_id
        assert provider["Protocols"] == ["transport-ipfs-gateway-http"]
        assert provider["Addrs"] == [f"/ip4/127.0.0.1/tcp/{server.port}/http"]
    for text in (str(hash_bytes(b"other").cid), "nonsense", "bafkqaaa"):
        assert server.get(f"/routing/v1/providers/{text}").json() == {"Providers": []}


@pytest.mark.parametrize("seed", range(2))
def test_the_name_of_a_peer_is_its_key_in_base_58(seed: int) -> None:
    key = SigningKey.from_seed(bytes([seed]) * 32).public
    digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    number = 0
    for digit in key.peer_id:
        number = 58 * number + digits.index(digit)
    assert number.to_bytes(37, "big") == b"\x24\x08\x01\x12\x20" + key.raw
    assert key.peer_id.startswith("12D3KooW")


def test_what_was_asked_for_longest_ago_is_forgotten_first() -> None:
    from lichen.content.block_index import BlockIndex
    from lichen.errors import NotFoundError

    store = MemoryStore()
    artefacts = [os.urandom(2 * CHUNK_SIZE) for _ in range(3)]
    cids = [store.put_bytes(data).cid for data in artefacts]
    index = BlockIndex(store, leaf_count_max=4)
    leaves = [hash_bytes(data[:CHUNK_SIZE]).cid for data in artefacts]
    for cid in cids[:2]:
        index.block(cid)
    assert index.block(leaves[0]) == artefacts[0][:CHUNK_SIZE]
    index.block(cids[2])
    with pytest.raises(NotFoundError):
        index.block(leaves[1])
    assert index.block(leaves[0]) == artefacts[0][:CHUNK_SIZE]
    assert index.block(leaves[2]) == artefacts[2][:CHUNK_SIZE]
    index.close()
    with pytest.raises(NotFoundError):
        index.block(leaves[0])
