"""Many changes of the state at once, by the C library beside this file: it hashes what Python would only hand to it.

What it does is what :func:`lichen.ledger.state_bucket.change_bucket` and :meth:`lichen.ledger.state_nodes.Tile.rehash` say, to
the same bytes; where the library cannot be had, or refuses a bucket because something is unusual about it, they do it. SHA-256 is
that of the OpenSSL which Python's own :mod:`hashlib` has loaded. Loading it all takes some milliseconds, and a second once for
each version where it is compiled, so it is asked for when there are ``MANY`` changes and not before.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from lichen.ledger.state_bucket import Bucket, Change, ChangedBucket
from lichen.ledger.state_nodes import HEAD_BYTES, NOTHING, STRIDE_BITS, TILE_BYTES, Tile

__all__ = ["MANY", "Library", "StateChanges", "changes_for", "state_library"]

MANY = 256  # changes for which the library is worth loading
OPENSSL_VERSION_MIN = 0x30000000  # older ones may end the process when their SHA-256 is called in a FIPS mode
ROOM_BYTES = 65_536  # for a new bucket and what undoes its changes; larger ones are left to Python
_HASH_BYTES = 32
_HEAD = struct.Struct(">32sH")
_REMOVED = bytes(2)  # the length of no value
_SOURCE = Path(__file__).parent / "state_changes.c"
_FLAGS = ("-shared", "-fPIC", "-O2", "-std=gnu11", "-fvisibility=hidden", "-w")


class Library:
    """The library, loaded.

    Args:
        path: Of the compiled library.

    Raises:
        OSError: It cannot be loaded.
        AttributeError: It, or Python's OpenSSL, lacks a function.
        ImportError: This Python has no :mod:`ctypes`, no OpenSSL, or an older one.

    Attributes:
        change: ``state_change_bucket``.
        rehash: ``state_rehash_tile``.
        hasher: The three functions of SHA-256 that both are handed.
    """

    def __init__(self, path: Path) -> None:
        import _hashlib
        import ctypes

        openssl = ctypes.CDLL(_hashlib.__file__)
        openssl.OpenSSL_version_num.restype = ctypes.c_ulong
        if openssl.OpenSSL_version_num() < OPENSSL_VERSION_MIN:
            raise ImportError("this Python has an older OpenSSL")
        self._openssl = openssl  # it must outlive the pointers
        functions = [openssl.SHA256_Init, openssl.SHA256_Update, openssl.SHA256_Final]
        self.hasher = (ctypes.c_void_p * 3)(*[ctypes.cast(each, ctypes.c_void_p).value for each in functions])
        library: Any = ctypes.PyDLL(
            str(path)
        )  # calls are too short to hand the interpreter to another thread
        number, pointer, text = ctypes.c_uint64, ctypes.c_void_p, ctypes.c_char_p
        self.change = library.state_change_bucket
        self.change.restype = ctypes.c_int64
        self.change.argtypes = [pointer, text, number, text, number, pointer, number, pointer, pointer]
        self.rehash = library.state_rehash_tile
        self.rehash.restype = None
        self.rehash.argtypes = [pointer, pointer, ctypes.c_int, ctypes.c_int, ctypes.c_uint32, pointer]


class StateChanges:
    """What changes single pieces by the library, with memory of its own: for one thread at a time.

    Args:
        library: The library.
    """

    def __init__(self, library: Library) -> None:
        import ctypes

        self._library = library
        self._out = ctypes.create_string_buffer(ROOM_BYTES)
        self._room = memoryview(self._out)
        self._undo_at, self._undo_size = ctypes.c_uint64(), ctypes.c_uint64()
        self._undo = (ctypes.addressof(self._undo_at), ctypes.addressof(self._undo_size))
        self._places: Any = ctypes.c_char * (TILE_BYTES - HEAD_BYTES)

    def change_bucket(self, data: bytes, changes: Sequence[Change]) -> ChangedBucket | None:
        """Set and remove keys of a stored bucket, as :func:`lichen.ledger.state_bucket.change_bucket` does.

        Args:
            data: The bucket; nothing for one that is not there.
            changes: Keys, in order, and values, None to remove one.

        Returns:
            The new bucket; None when nothing did change, or when it has to be asked for in Python.
        """
        if len(changes) == 1:
            ((key, value),) = changes
            packed = _HEAD.pack(key, len(value)) + value if value else key + _REMOVED
        else:
            pack = _HEAD.pack
            packed = b"".join([pack(key, len(value or b"")) + (value or b"") for key, value in changes])
        library = self._library
        size = library.change(
            library.hasher, data, len(data), packed, len(packed), self._out, ROOM_BYTES, *self._undo
        )
        if size < 0:
            return None
        end = self._undo_at.value
        made = self._room[: end + self._undo_size.value].tobytes()
        digest = made[:_HASH_BYTES] if size else NOTHING
        return ChangedBucket(made[_HASH_BYTES:end], digest, _unpacked(made, end))

    def rehash_tile(self, tile: Tile, slots: set[int]) -> bytes:
        """Recompute every place above some slots, as :meth:`lichen.ledger.state_nodes.Tile.rehash` does.

        Returns:
            The tile's own hash.
        """
        places = self._places.from_buffer(tile.data, HEAD_BYTES)
        chosen = 0
        for slot in slots:
            chosen |= 1 << slot
        self._library.rehash(self._library.hasher, places, STRIDE_BITS, tile.first_bit, chosen, self._out)
        return bytes(self._room[:_HASH_BYTES])


def _unpacked(data: bytes, at: int) -> list[Change]:
    undo: list[Change] = []
    while at < len(data):
        key, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size + length
        undo.append((key, data[at - length : at] if length else None))
    return undo


def changes_for(count: int) -> StateChanges | None:
    """Return what is quicker, where it can be had and so many changes are worth loading it, or where it is loaded already."""
    if count < MANY and not state_library.cache_info().currsize:
        return None
    library = state_library()
    return None if library is None else StateChanges(library)


@cache
def state_library() -> Library | None:
    """Return the library, compiled and loaded at the first call; None where it cannot be had."""
    from lichen.content.compiled import compiled_library

    path = compiled_library([_SOURCE], _FLAGS, is_usable=_is_right)
    if path is None:
        return None
    try:
        return Library(path)
    except (OSError, AttributeError, ImportError):
        return None


def _is_right(path: str) -> bool:
    """Whether a library loads, and makes of a few keys what Python makes of them."""
    items = [(bytes([number]) * _HASH_BYTES, b"value") for number in range(1, 9)]
    clear = Bucket.from_items(items)
    try:
        made = StateChanges(Library(Path(path))).change_bucket(b"", items)
    except (OSError, AttributeError, ImportError):
        return False
    return made is not None and (made.data, made.hash) == (clear.to_bytes(), clear.hash())
