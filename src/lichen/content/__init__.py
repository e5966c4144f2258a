"""What an artefact is called, and where it lies.

An artefact is named by the SHA-256 of its bytes and by its CID, the name IPFS gives it, so that any tool of that
world finds the same thing under the same name. The ledger holds names only; the bytes lie in a store.

- ``cid``, ``dag_pb``, ``unixfs``: names, computed in one pass over a file of any size; ``pipeline`` makes it fast
- ``directory``, ``hamt``: the name of a whole directory, sharded when it is large
- ``car``: artefacts in transit, one file of verified raw blocks
- ``weights``: the identity of the tensors in a file, whatever its format
- ``store``: the port every store implements; ``directory_store``, ``memory_store`` and ``fsspec_store`` (any
  URL that fsspec opens) implement it
- ``placement``, ``verified_reader``: how a store gives an artefact back, as a file and as a stream
- ``digest_cache``, ``digest_table``: names of files that have not changed since they were last hashed
- ``files``: opening what others wrote without being fooled by links, pipes and edits
"""

from __future__ import annotations

from lichen.content.cid import Cid
from lichen.content.files import StatKey
from lichen.content.store import ArtefactStore, Fetched
from lichen.content.unixfs import ArtefactHash, hash_bytes, hash_file

__all__ = [
    "ArtefactHash",
    "ArtefactStore",
    "Cid",
    "Fetched",
    "FileChangedError",
    "StatKey",
    "hash_bytes",
    "hash_file",
]
