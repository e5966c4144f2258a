"""Roots of the state at every seal, from nothing but the writes that the entries make.

The map of :mod:`lichen.ledger.state_map` is parted by the first six bits of the keys. Writes are noted part by part, and when all
are known each part is built alone, in memory, from seal to seal; then the parts' roots are joined. So memory holds a
64th of the state at a time, whatever its size, and the parts can be built on several processors.

Nothing of the stored state is read here: a state that was tampered with cannot vouch for itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import itertools
import struct
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from lichen.ledger.state_map import EMPTY_STATE_ROOT, KEY_BITS, state_leaf_hash

__all__ = ["PART_COUNT", "StateRoots", "build_part"]

PART_BITS: Final = 6
PART_COUNT: Final = 2**PART_BITS  # (= 64)
SPILL_BYTES: Final = 4 * 2**20  # (= 4 MiB) of writes are kept in memory, then they go to the parts' files

_WRITE: Final = struct.Struct(">I32s32s")
"""Number of the seal, key, leaf hash; zeros in its place remove the key."""
_ROOT: Final = struct.Struct(">I32s")
"""Number of the seal, root of the part after it; zeros for an empty part."""
_NOTHING: Final = bytes(32)

LEFT, RIGHT, HASH = 1, 2, 3
_Leaf = tuple[int, bytes]
_Node = list[Any]


class StateRoots:
    """Collects the writes of seal after seal, and tells the roots.

    Args:
        directory: Where files of writes may lie; they are taken over when they are there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._parts = [bytearray() for _ in range(PART_COUNT)]
        self._held_bytes = 0
        self._is_spilled = False
        self.seal_count = 0

    def add(self, writes: Mapping[bytes, bytes | None]) -> None:
        """Note what the entries under the next seal change.

        Args:
            writes: Values by 32-byte state key; None removes the key.
        """
        number, sha256 = self.seal_count, hashlib.sha256
        for key, value in writes.items():
            leaf = _NOTHING if value is None else state_leaf_hash(key, sha256(value).digest())
            self._parts[key[0] >> (8 - PART_BITS)] += _WRITE.pack(number, key, leaf)
        self.seal_count += 1
        self._held_bytes += len(writes) * _WRITE.size
        if self._held_bytes > SPILL_BYTES:
            self.spill()

    def spill(self) -> list[int]:
        """Write what is in memory to the files; return how long each is now."""
        sizes, self._is_spilled = [], True
        for number, held in enumerate(self._parts):
            with self._file(number).open("ab") as file:
                file.write(held)
                sizes.append(file.tell())
            held.clear()
        self._held_bytes = 0
        return sizes

    def take_over(self, sizes: Sequence[int], seal_count: int) -> None:
        """Go on from files that an earlier process left, of which no more than so many bytes count.

        Raises:
            OSError: A file is missing or shorter.
        """
        self._is_spilled = True
        for number, size in enumerate(sizes):
            with self._file(number).open("r+b") as file:
                if file.seek(0, 2) < size:
                    raise OSError(f"{file.name} is shorter than it was")
                file.truncate(size)
        self.seal_count = seal_count

    def discard(self) -> None:
        """Remove files that an earlier process left."""
        for number in range(PART_COUNT):
            self._file(number).unlink(missing_ok=True)

    def roots(self, run: Callable[[list[tuple[str, str]]], None] | None = None) -> Iterator[bytes]:
        """Tell the root at every seal, in order.

        Args:
            run: Calls `build_part` with each pair of paths, somewhere else; None to do so here.
        """
        if not self._is_spilled:
            parts = (_part_roots(bytes(held)) for held in self._parts)
            streams = [
                [(number, part, root) for number, root in _ROOT.iter_unpack(data)]
                for part, data in enumerate(parts)
            ]
            yield from _joined(heapq.merge(*streams), self.seal_count)
            return
        self.spill()
        jobs = [
            (str(self._file(number)), str(self._directory / f"roots-{number:02d}"))
            for number in range(PART_COUNT)
        ]
        if run is None:
            for job in jobs:
                build_part(*job)
        else:
            run(jobs)
        with contextlib.ExitStack() as opened:
            files = [
                opened.enter_context(contextlib.closing(_read_roots(Path(target), number)))
                for number, (_, target) in enumerate(jobs)
            ]
            yield from _joined(heapq.merge(*files), self.seal_count)
        for _, target in jobs:
            Path(target).unlink()

    def _file(self, number: int) -> Path:
        return self._directory / f"writes-{number:02d}"


def build_part(source: str, target: str) -> None:
    """Build one part of the state from its writes, and write down its root after each seal that changed it.

    Args:
        source: File of writes.
        target: File of roots, made or replaced.
    """
    Path(target).write_bytes(_part_roots(Path(source).read_bytes()))


def _part_roots(writes: bytes) -> bytes:
    """Roots of one part from its writes, both packed."""
    part, roots = _Part(), bytearray()
    for number, group in itertools.groupby(_WRITE.iter_unpack(writes), key=lambda write: write[0]):
        for _, key, leaf in group:
            part.put(int.from_bytes(key, "big"), None if leaf == _NOTHING else leaf)
        roots += _ROOT.pack(number, part.root())
    return bytes(roots)


class _Part:
    """The map in memory, for keys that share their first bits; hashes are computed when the root is asked for.

    A node is ``[bit, left, right, hash or None]``, a leaf ``(key, leaf hash)``. The topmost node is none: its left child is
    the root, or None.
    """

    def __init__(self) -> None:
        self._top: _Node = [-1, None, None, None]

    def put(self, key: int, leaf: bytes | None) -> None:
        """Set a key's leaf hash, or remove the key."""
        above, side = self._top, LEFT
        path = [(above, side)]
        node = above[side]
        while type(node) is list:
            node[HASH] = None
            above, side = node, RIGHT if key >> (KEY_BITS - 1 - node[0]) & 1 else LEFT
            path.append((above, side))
            node = above[side]
        if node is None or node[0] == key:
            if leaf is not None:
                above[side] = (key, leaf)
            elif above is self._top:
                above[side] = None
            elif node is not None:  # the node above goes with the leaf
                upper, upper_side = path[-2]
                upper[upper_side] = above[LEFT + RIGHT - side]
        elif leaf is not None:
            bit = KEY_BITS - (key ^ node[0]).bit_length()
            while path[-1][0][0] > bit:
                path.pop()
            upper, upper_side = path[-1]
            below, new = upper[upper_side], (key, leaf)
            pair = (below, new) if key >> (KEY_BITS - 1 - bit) & 1 else (new, below)
            upper[upper_side] = [bit, *pair, None]

    def root(self) -> bytes:
        """Root of the part, 32 bytes; zeros when it is empty."""
        return _NOTHING if self._top[LEFT] is None else _hash(self._top[LEFT])


def _hash(node: Any) -> bytes:
    """Hash of a node or leaf, computed once."""
    if type(node) is tuple:
        return node[1]  # type: ignore[no-any-return]
    found: bytes | None = node[HASH]
    if found is None:
        bit, left, right, _ = node
        found = node[HASH] = hashlib.sha256(b"\x03%c%s%s" % (bit, _hash(left), _hash(right))).digest()
    return found


def _read_roots(path: Path, part: int) -> Generator[tuple[int, int, bytes], None, None]:
    """Seal, part and root, from a file that `build_part` wrote."""
    with path.open("rb") as file:
        while data := file.read(_ROOT.size * 1_024):
            for number, root in _ROOT.iter_unpack(data):
                yield number, part, root


def _joined(changes: Iterable[tuple[int, int, bytes]], seal_count: int) -> Iterator[bytes]:
    """Join the roots of parts into the root of the map, after each seal.

    Places are numbered as in a heap: 1 is the whole map, 64 to 127 are the parts. A place one of whose halves is empty
    stands for the other half.
    """
    places = [_NOTHING] * (2 * PART_COUNT)
    waiting = iter(changes)
    change = next(waiting, None)
    for number in range(seal_count):
        dirty: set[int] = set()
        while change is not None and change[0] == number:
            place = PART_COUNT + change[1]
            places[place] = change[2]
            dirty.add(place >> 1)
            change = next(waiting, None)
        while dirty:
            for place in dirty:
                left, right = places[2 * place], places[2 * place + 1]
                if _NOTHING in (left, right):
                    places[place] = right if left == _NOTHING else left
                else:
                    bit = place.bit_length() - 1
                    places[place] = hashlib.sha256(b"\x03%c%s%s" % (bit, left, right)).digest()
            dirty = {place >> 1 for place in dirty if place > 1}
        yield EMPTY_STATE_ROOT if places[1] == _NOTHING else places[1]
