"""Several artefacts in one answer: what is packed is read as it was, and nothing else is read at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.content.directory_store import DirectoryStore
from lichen.content.unixfs import hash_bytes
from lichen.errors import EncodingError, NotFoundError, RemoteProtocolError, VerificationError
from lichen.net.remote.connection import Connection, Reply
from lichen.net.remote.remote_log import RemoteLog
from lichen.net.remote.remote_store import RemoteStore
from lichen.net.together import TOGETHER_BYTES_MAX, TOGETHER_COUNT_MAX, pack_artefacts, unpack_artefacts


@given(st.lists(st.none() | st.binary(max_size=40), min_size=1, max_size=9))
def test_what_is_packed_is_read(artefacts: list[bytes | None]) -> None:
    assert unpack_artefacts(pack_artefacts(artefacts), len(artefacts)) == artefacts


@given(st.binary(max_size=60), st.integers(1, 9))
def test_whatever_comes_is_read_or_refused(body: bytes, count: int) -> None:
    try:
        found = unpack_artefacts(body, count)
    except EncodingError:
        return
    assert 1 <= len(found) <= count
    assert pack_artefacts(found) == body


def test_an_answer_is_bounded() -> None:
    half = bytes(TOGETHER_BYTES_MAX // 2)
    body = pack_artefacts([half, bytes(TOGETHER_BYTES_MAX), half])
    assert unpack_artefacts(body, 3) == [half, None]


class Scripted(Connection):
    """A server that answers from a table of artefacts, or with one body whatever it is asked."""

    def __init__(
        self, held: dict[str, bytes] | None = None, body: bytes | None = None, room: int = 99
    ) -> None:
        super().__init__("http://127.0.0.1:1")
        self.asked: list[int] = []
        self._held, self._body, self._room = held or {}, body, room

    def ask(self, method: str, target: str, **options: object) -> Reply:
        cids = target.removeprefix("/artefacts/").split(".")
        self.asked.append(len(cids))
        if self._body is not None:
            return Reply(200, {}, self._body)
        return Reply(200, {}, pack_artefacts(self._held.get(cid) for cid in cids[: self._room]))


def remote(connection: Connection) -> RemoteLog:
    def nobody() -> object:
        raise AssertionError("nothing is signed for a public ledger")

    return RemoteLog(connection, nobody)  # type: ignore[arg-type]


def test_a_store_asks_again_for_what_had_no_room_and_stores_what_it_verified(tmp_path) -> None:
    held = {str(hash_bytes(b"%d" % number).cid): b"%d" % number for number in range(200)}
    cids = [hash_bytes(data).cid for data in held.values()]
    missing = hash_bytes(b"missing").cid
    connection = Scripted(held, room=50)
    store = RemoteStore(tmp_path / "store", remote(connection))
    store.bring_all([*cids, missing, *cids], 2)
    kept = [cid for cid in cids if store.keeps(cid)]
    assert [str(cid) for cid in kept] == [cid for cid, data in held.items() if len(data) <= 2]
    assert not store.keeps(missing)
    assert max(connection.asked) <= TOGETHER_COUNT_MAX
    assert connection.asked == [64, 64, 64, 51], (
        "each answer had room for 50; one alone is asked for when it is read"
    )
    assert DirectoryStore(tmp_path / "store").read_bytes(cids[7]) == b"7"


@pytest.mark.parametrize("body", [b"", b"\0\0", b"\0\0\0\x09short", b"\xff" * 12, b"\0\0\0\0" * 3])
def test_an_answer_that_makes_no_sense_is_refused(body: bytes) -> None:
    cids = [hash_bytes(text).cid for text in (b"a", b"b")]
    with pytest.raises(RemoteProtocolError):
        remote(Scripted(body=body)).fetch_artefacts(cids)


def test_other_bytes_than_those_named_are_refused_and_not_stored(tmp_path) -> None:
    cids = [hash_bytes(text).cid for text in (b"a", b"b")]
    store = RemoteStore(tmp_path / "store", remote(Scripted(body=pack_artefacts([b"a", b"evil"]))))
    with pytest.raises(VerificationError, match="other bytes"):
        store.bring_all(cids, 100)
    assert list(store.list()) == []


def test_a_server_that_gives_artefacts_one_by_one_is_no_error(tmp_path) -> None:
    class Older(Scripted):
        def ask(self, method: str, target: str, **options: object) -> Reply:
            return Reply(404, {}, b'{"detail":"there is nothing at this path"}')

    log = remote(Older())
    cids = [hash_bytes(text).cid for text in (b"a", b"b")]
    with pytest.raises(NotFoundError):
        log.fetch_artefacts(cids)
    store = RemoteStore(tmp_path / "store", log)
    store.bring_all(cids, 100)
    assert list(store.list()) == []
