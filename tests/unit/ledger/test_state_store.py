"""The stored map: versions, proofs against earlier ones, other processes, undone transactions, damage."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from lichen.errors import CorruptLedgerError, EncodingError, NotFoundError, UsageError
from lichen.ledger.state_bucket import BUCKET_COUNT_MAX
from lichen.ledger.state_check import check_pieces
from lichen.ledger.state_map import EMPTY_STATE_ROOT, StateMap, verify_absence, verify_membership
from lichen.ledger.state_nodes import MemoryNodes
from lichen.ledger.state_store import VERSION_COUNT_KEPT, StateStore
from lichen.ledger.state_tree import DEPTH_MAX, StateTree


def key(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def open_store(path: Path) -> tuple[sqlite3.Connection, StateStore]:
    connection = sqlite3.connect(path, isolation_level=None)
    StateStore.create_tables(connection)
    return connection, StateStore(connection)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite"


@pytest.fixture
def opened(file: Path) -> Iterator[tuple[sqlite3.Connection, StateStore]]:
    connection, store = open_store(file)
    yield connection, store
    connection.close()


@pytest.fixture
def store(opened: tuple[sqlite3.Connection, StateStore]) -> StateStore:
    return opened[1]


def test_an_empty_store_is_the_empty_map(store: StateStore) -> None:
    assert (store.root, store.version, len(store), store.versions()) == (EMPTY_STATE_ROOT, None, 0, {})
    assert store.get(key(0)) is None
    value, proof = store.prove(key(0))
    assert value is None
    verify_absence(EMPTY_STATE_ROOT, key(0), proof)
    store.check()


@pytest.mark.parametrize("count", [1, BUCKET_COUNT_MAX, BUCKET_COUNT_MAX + 1, 500, 3_000])
def test_any_number_of_keys_gives_the_root_and_proofs_of_the_definition(
    store: StateStore, count: int
) -> None:
    values = {key(number): b"%d" % number for number in range(count)}
    clear = StateMap(values)
    assert store.update(5, dict(values)) == store.root == clear.root()
    assert len(store) == count
    assert list(store.items()) == sorted(values.items())
    for at in [key(0), key(count - 1), key(count), key(count + 1)]:
        assert store.prove(at) == (clear.get(at), clear.prove(at))
    store.check()


def test_keys_come_and_go_one_batch_at_a_time(store: StateStore) -> None:
    clear = StateMap()
    for version in range(40):
        writes: dict[bytes, bytes | None] = {
            key(number): None if number % 3 == version % 3 else b"%d" % version
            for number in range(version * 7, version * 7 + 30)
        }
        clear.update(writes)
        assert store.update(version, writes) == clear.root()
    store.check()
    assert store.update(40, dict.fromkeys(clear)) == EMPTY_STATE_ROOT
    assert len(store) == 0


def test_keys_that_agree_in_their_first_60_bits_share_one_long_bucket() -> None:
    """Nobody can make them by hashing, but a store that recursed for ever on them could be stopped by one."""
    values = {bytes(8) + number.to_bytes(24, "big"): b"%d" % number for number in range(200)}
    nodes = MemoryNodes()
    tree, clear = StateTree(nodes), StateMap(values)
    tree.apply(values.items())
    assert (tree.root(), len(nodes.tiles), len(nodes.buckets)) == (clear.root(), DEPTH_MAX, 1)
    for at in list(values)[::37]:
        assert tree.prove(at) == (values[at], clear.prove(at))
    assert (check_pieces(nodes).root, check_pieces(nodes).key_count) == (clear.root(), 200)
    tree.apply((at, None) for at in list(values)[10:])
    assert (len(nodes.tiles), len(nodes.buckets), len(tree)) == (0, 1, 10)


def test_what_is_stored_depends_on_the_content_only() -> None:
    grown, direct = MemoryNodes(), MemoryNodes()
    tree = StateTree(grown)
    tree.apply((key(number), b"first") for number in range(400))
    tree.apply((key(number), None) for number in range(50, 400))
    tree.apply((key(number), b"second") for number in range(60))
    StateTree(direct).apply((key(number), b"second") for number in range(60))
    assert (grown.tiles, grown.buckets) == (direct.tiles, direct.buckets)


def test_setting_a_key_to_its_value_changes_nothing(store: StateStore) -> None:
    root = store.update(1, {key(0): b"a"})
    assert store.update(2, {key(0): b"a", key(1): None}) == root
    assert store.update(3, {}) == root
    assert store.versions() == {1: root, 2: root, 3: root}


def test_the_last_16_versions_can_be_proved_against(store: StateStore) -> None:
    maps: dict[int, StateMap] = {}
    values: dict[bytes, bytes] = {}
    for version in range(10, 10 + 2 * VERSION_COUNT_KEPT):
        writes: dict[bytes, bytes | None] = {
            key(number): b"%d" % version for number in range(version - 5, version + 5)
        }
        writes[key(version - 5)] = None
        store.update(version, writes)
        for at, value in writes.items():
            if value is None:
                values.pop(at, None)
            else:
                values[at] = value
        maps[version] = StateMap(values)
    assert list(store.versions()) == list(maps)[-VERSION_COUNT_KEPT:]
    for version, root in store.versions().items():
        assert root == maps[version].root()
        for number in (0, version - 5, version, version + 4, version + 5):
            value, proof = store.prove(key(number), version)
            assert (value, proof) == (maps[version].get(key(number)), maps[version].prove(key(number)))
    with pytest.raises(NotFoundError, match="no longer kept"):
        store.prove(key(0), 10)


def test_a_version_must_follow_the_newest(store: StateStore) -> None:
    store.update(7, {})
    for version in (7, 6):
        with pytest.raises(UsageError, match="does not follow version 7"):
            store.update(version, {key(0): b"a"})


def test_a_write_that_cannot_stand_in_the_map_changes_nothing(store: StateStore) -> None:
    with pytest.raises(EncodingError):
        store.update(1, {key(0): b"a", key(1): b""})
    assert (store.version, store.root) == (None, EMPTY_STATE_ROOT)


def test_an_undone_transaction_leaves_nothing_in_memory(
    opened: tuple[sqlite3.Connection, StateStore],
) -> None:
    connection, store = opened
    values = {key(number): b"old" for number in range(200)}
    store.update(1, dict(values))
    connection.execute("BEGIN")
    store.update(2, {key(number): b"new" for number in range(200)})
    connection.execute("ROLLBACK")
    assert store.version == 1
    assert store.get(key(3)) == b"old"
    values[key(3)] = b"newer"
    assert store.update(2, {key(3): b"newer"}) == StateMap(values).root()


def test_a_change_by_another_process_is_seen(file: Path, store: StateStore) -> None:
    values = {key(number): b"old" for number in range(200)}
    store.update(1, dict(values))
    connection, other = open_store(file)
    other.update(2, {key(number): b"new" for number in range(100)})
    connection.close()
    assert store.get(key(3)) == b"new"
    values |= {key(number): b"new" for number in range(100)} | {key(300): b"x"}
    assert store.update(3, {key(300): b"x"}) == StateMap(values).root()


def test_a_store_that_is_opened_again_goes_on(file: Path) -> None:
    values = {key(number): b"%d" % number for number in range(150)}
    connection, store = open_store(file)
    store.update(1, dict(values))
    connection.close()
    connection, store = open_store(file)
    assert store.root == StateMap(values).root()
    value, proof = store.prove(key(7))
    assert value == b"7"
    verify_membership(store.root, key(7), b"7", proof)
    connection.close()


def damage(connection: sqlite3.Connection, table: str, position: int) -> None:
    """Flip one bit in the longest row of a table."""
    node, data = connection.execute(
        f"SELECT node, data FROM {table} ORDER BY length(data) DESC LIMIT 1"
    ).fetchone()
    flipped = bytearray(data)
    flipped[position] ^= 1
    connection.execute(f"UPDATE {table} SET data=? WHERE node=?", (bytes(flipped), node))


@pytest.mark.parametrize(
    ("table", "position"),
    [
        ("state_buckets", 40),
        ("state_buckets", -1),
        ("state_buckets", 0),
        ("state_tiles", 30),
        ("state_tiles", 3),
    ],
)
def test_flipped_bits_are_found(file: Path, table: str, position: int) -> None:
    connection, store = open_store(file)
    store.update(1, {key(number): b"%d" % number for number in range(300)})
    damage(connection, table, position)
    connection.close()
    connection, store = open_store(file)
    with pytest.raises(CorruptLedgerError):
        for number in range(300):
            store.prove(key(number))
        store.check()
        assert len(store) == sum(1 for _ in store.items())
        raise CorruptLedgerError(
            "only the count of keys was changed"
        )  # it decides when a tile becomes a bucket
    connection.close()


def test_a_replaced_value_is_checked_against_its_leaf(file: Path) -> None:
    connection, store = open_store(file)
    first, second = sorted([key(0), key(1)])
    store.update(1, {first: b"value", second: b"value"})
    damage(connection, "state_buckets", -1)
    connection.close()
    connection, store = open_store(file)
    for value in (b"other", None):
        with pytest.raises(CorruptLedgerError, match="not the one that was stored"):
            store.update(2, {second: value})
    connection.close()


@pytest.mark.parametrize("table", ["state_tiles", "state_buckets"])
def test_missing_and_short_rows_are_found(file: Path, table: str) -> None:
    for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET data=substr(data,1,20)"):
        file.unlink(missing_ok=True)
        connection, store = open_store(file)
        store.update(1, {key(number): b"%d" % number for number in range(300)})
        connection.execute(statement)
        connection.close()
        connection, store = open_store(file)
        with pytest.raises(CorruptLedgerError):
            store.prove(key(1))
        connection.close()


def test_a_proof_at_100_000_keys_stays_below_2_kib(store: StateStore) -> None:
    tree = StateTree(MemoryNodes())
    tree.apply((key(number), b"v") for number in range(100_000))
    sizes = [len(tree.prove(key(number))[1].to_bytes()) for number in range(0, 200_000, 999)]
    assert max(sizes) < 1_000
    assert store.root == EMPTY_STATE_ROOT
