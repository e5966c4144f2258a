"""Raw blocks out of whole artefacts: what the peers of IPFS ask for one by one.

A store keeps whole artefacts. Their raw blocks are found by hashing an artefact once, when the first block of it is asked for by
the artefact's own name, and remembering where each lies. A block of an artefact that nobody has asked for by name is not known.
Every block is verified when it is read.

Memory is bounded: only so many leaves are remembered, and the artefacts asked for longest ago are forgotten first.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import BinaryIO, Final

from lichen.content.cid import DAG_PB, Cid
from lichen.content.dag_pb import decode_file_node
from lichen.content.store import ArtefactStore, absent
from lichen.content.unixfs import CHUNK_SIZE, BlockLayout, fill_from_reader, layout_of_stream

__all__ = ["LEAF_COUNT_MAX", "BlockIndex"]

LEAF_COUNT_MAX: Final = 2**20  # (= 1048576) leaves remembered: 256 GiB of artefacts, some 250 MB of memory
OPEN_COUNT_MAX: Final = 32


class _Opened:
    """One artefact whose blocks are known.

    Args:
        stream: Verified, seekable.
        layout: Of the artefact.
    """

    def __init__(self, stream: BinaryIO, layout: BlockLayout) -> None:
        self.stream = stream
        self.layout = layout
        self.lock = threading.Lock()
        self.nodes: dict[Cid, bytes] = {}
        self.leaves: dict[bytes, int] = {}
        for cid, node, offset, _ in layout.order():
            if node is None:
                self.leaves.setdefault(cid.digest, offset)
            else:
                self.nodes[cid] = node

    def block(self, cid: Cid) -> bytes | None:
        """Return a block of this artefact; None when it is none of it."""
        if cid.codec == DAG_PB:
            return self.nodes.get(cid)
        offset = self.leaves.get(cid.digest)
        if offset is None:
            return None
        with self.lock:
            self.stream.seek(offset)
            return self.stream.read(min(self.layout.chunk_size, self.layout.size_bytes - offset))


class BlockIndex:
    """Finds raw blocks of the artefacts of a store; may be asked by several threads.

    Args:
        store: Holds the artefacts.
        leaf_count_max: Leaves to remember at most; one artefact may exceed it.
    """

    def __init__(self, store: ArtefactStore, leaf_count_max: int = LEAF_COUNT_MAX) -> None:
        self._store = store
        self._leaf_count_max = leaf_count_max
        self._lock = threading.Lock()
        self._opened: OrderedDict[Cid, _Opened] = OrderedDict()  # the one asked for last at the end
        self._leaf_count = 0

    def block(self, cid: Cid) -> bytes:
        """Return a raw block, verified.

        Args:
            cid: Name of an artefact, or of a block of one that was asked for before.

        Raises:
            NotFoundError: No such artefact, and no block that is known.
            VerificationError: What lies there is not what the CID names.
        """
        found = self._known(cid)
        if found is not None:
            return found
        if not self._store.has(cid):
            raise absent(cid)
        if cid.codec != DAG_PB:
            return self._store.read_bytes(cid, CHUNK_SIZE)
        with contextlib.ExitStack() as stack:
            stream = stack.enter_context(self._store.open(cid))
            opened = _Opened(stream, layout_of_stream(fill_from_reader(stream)))
            found = opened.block(cid)
            if found is None:
                raise absent(cid)  # its bytes changed while they were looked at
            self._remember(cid, opened)
            stack.pop_all()
        return found

    def blocks(self, root: Cid) -> Iterator[tuple[Cid, bytes]]:
        """Give all blocks below one, itself first, children left to right, each once.

        Raises:
            NotFoundError: The root is not known; from the first step on.
            VerificationError: What lies there is not what its CID names.
        """
        given: set[Cid] = set()
        ahead = [root]
        while ahead:
            cid = ahead.pop()
            if cid in given:
                continue
            given.add(cid)
            block = self.block(cid)
            yield cid, block
            if cid.codec == DAG_PB:
                ahead += reversed(decode_file_node(block).children)

    def close(self) -> None:
        """Close what is open, and forget it."""
        with self._lock:
            for opened in self._opened.values():
                opened.stream.close()
            self._opened.clear()
            self._leaf_count = 0

    def _known(self, cid: Cid) -> bytes | None:
        with self._lock:
            candidates = list(reversed(self._opened.items()))
        for root, opened in candidates:
            with contextlib.suppress(ValueError):  # closed since, to make room
                found = opened.block(cid)
                if found is not None:
                    with self._lock, contextlib.suppress(KeyError):
                        self._opened.move_to_end(root)
                    return found
        return None

    def _remember(self, root: Cid, opened: _Opened) -> None:
        with self._lock:
            if root in self._opened:  # another thread was faster
                opened.stream.close()
                return
            self._opened[root] = opened
            self._leaf_count += opened.layout.leaf_count
            while len(self._opened) > 1 and (
                self._leaf_count > self._leaf_count_max or len(self._opened) > OPEN_COUNT_MAX
            ):
                _, oldest = self._opened.popitem(last=False)
                self._leaf_count -= oldest.layout.leaf_count
                with oldest.lock:
                    oldest.stream.close()
