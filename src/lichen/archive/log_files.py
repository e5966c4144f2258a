"""The files that a log is in an archive: entry bundles, hash tiles, checkpoints; and what its records name on the way.

Writing an archive and checking one make the same bytes here: the one stores them, the other compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from lichen.archive.names import TILE_WIDTH, Piece, pieces
from lichen.encoding.base import b64
from lichen.encoding.statement import Statement
from lichen.errors import CorruptLedgerError
from lichen.ledger.checkpoint import parse_checkpoint
from lichen.ledger.seal import SEAL_KIND
from lichen.ledger.tree import Frontier, leaf_hash, perfect_root

if TYPE_CHECKING:
    from lichen.archive.artefacts import ArtefactList
    from lichen.ledger.ledger import Ledger
    from lichen.ledger.views import Progress

__all__ = ["LOG_KEY_KIND", "MEMBER_KIND", "LogFiles", "NamedWithin"]

HASH_BYTES: Final = 32
MEMBER_KIND: Final = "member"
LOG_KEY_KIND: Final = "log-key"
_NAMING_FIELDS: Final = ("cid", "detail", "manifest")

NamedWithin = Callable[[Statement], Iterable[str]]
"""Gives the artefacts that a record names through another artefact, such as the outputs that a manifest lists."""


class LogFiles:
    """Makes the files of a sealed log.

    Args:
        ledger: The ledger.
        size: Entries to make files of; a seal is the last of them.
        put: Takes each file, by name and content.
        artefacts: Takes the names of artefacts.
        take_over: Gives the leaf hashes of a piece whose files need not be made again, joined, or None.
        named_within: Artefacts that records name through others.
        progress: Told how many entries are done.

    Attributes:
        members: Ids of all members that the genesis and the records of new pieces name.
        log_keys: Keys (base64url) that took the place of the log's first one in new pieces, with the first index each speaks for.
    """

    def __init__(
        self,
        ledger: Ledger,
        size: int,
        put: Callable[[str, bytes], None],
        artefacts: ArtefactList,
        *,
        take_over: Callable[[Piece], bytes | None] = lambda _: None,
        named_within: NamedWithin = lambda _: (),
        progress: Progress | None = None,
    ) -> None:
        self._ledger = ledger
        self._size = size
        self._put = put
        self._artefacts = artefacts
        self._take_over = take_over
        self._named_within = named_within
        self._progress = progress
        self.members = {admin.member for admin in ledger.genesis.admins}
        self.log_keys: list[tuple[int, str]] = []

    def make(self) -> bytes:
        """Make every file.

        Returns:
            Root over the entries as the tiles have it, 32 bytes.

        Raises:
            CorruptLedgerError: An entry is missing or damaged.
        """
        tiles = []
        for piece in pieces(self._size):
            tiles.append(self._take_over(piece) or self._make_piece(piece))
            if self._progress is not None:
                self._progress(piece.stop, self._size)
        self._make_tiles(tiles)
        return _root_over(tiles)

    def _make_piece(self, piece: Piece) -> bytes:
        """Make bundle, hash tile and checkpoints of one piece; its leaf hashes, joined."""
        bundle, hashes, heads = [], [], []
        for index, entry in self._ledger.entries(piece.start, piece.stop):
            data = entry.to_bytes()
            bundle.append(len(data).to_bytes(2, "big") + data)
            hashes.append(leaf_hash(data))
            statement = Statement.from_bytes(entry.payload)
            if statement.kind == SEAL_KIND:
                heads.append(self._head_line(index))
            self._note(index, statement)
        if len(hashes) != piece.width:
            raise CorruptLedgerError(
                f"entry {piece.start + len(hashes)} is missing from {self._ledger.path}",
                remedy="Run `lichen verify`.",
            )
        self._put(piece.name("tile/entries"), b"".join(bundle))
        if heads:
            self._put(piece.name("checkpoints"), b"".join(heads))
        joined = b"".join(hashes)
        self._put(piece.name("tile/0"), joined)
        return joined

    def _head_line(self, index: int) -> bytes:
        """Size, root and signature of the checkpoint behind a seal."""
        head, note = parse_checkpoint(self._ledger.checkpoint_behind(index))
        return f"{head.tree_size} {b64(head.root)} {b64(note.signatures[0].signature)}\n".encode("ascii")

    def _note(self, index: int, statement: Statement) -> None:
        """Note the members and artefacts that a record names."""
        said = statement.predicate
        if statement.kind == MEMBER_KIND:
            self.members.add(said["subject_member"])
        elif statement.kind == LOG_KEY_KIND:
            self.log_keys.append((index + 1, said["key"]))
        elif statement.kind != SEAL_KIND and index > 0:
            is_directory = statement.kind in ("data", "model") and "detail" in said
            for name in _NAMING_FIELDS:
                if name in said:
                    self._artefacts.name(said[name], index, directory=is_directory and name == "cid")
            for cid in self._named_within(statement):
                self._artefacts.name(cid, None)

    def _make_tiles(self, tiles: Sequence[bytes]) -> None:
        """Make the hash tiles above level 0."""
        level, below, count = 0, list(tiles), self._size // TILE_WIDTH
        while count:
            level += 1
            joined = b"".join(perfect_root(tile) for tile in below[:count])
            width = TILE_WIDTH * HASH_BYTES
            below = [joined[at : at + width] for at in range(0, len(joined), width)]
            for piece, hashes in zip(pieces(count), below, strict=True):
                self._put(piece.name(f"tile/{level}"), hashes)
            count //= TILE_WIDTH


def _root_over(tiles: Sequence[bytes]) -> bytes:
    """Root over leaf hashes that stand joined in tiles."""
    frontier = Frontier()
    for tile in tiles:
        for at in range(0, len(tile), HASH_BYTES):
            frontier.append(tile[at : at + HASH_BYTES])
    return frontier.root()
