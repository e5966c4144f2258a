"""A secret key on disk.

One line of text::

    LICHEN-ED25519-SECRET-KEY-1 <43 characters of base64url: the seed>

Rules upheld: a key file is made once and never overwritten, is on the disk before the call returns, and is readable by
its owner only; a file that others can read or write is refused, because whoever could copy it could sign.
"""

from __future__ import annotations

import base64
import os
import shlex
import stat
from contextlib import suppress
from pathlib import Path

from lichen.crypto.keys import SigningKey
from lichen.errors import KeyFileError, StorageError

__all__ = ["key_at", "put_in_place", "read_key", "write_key"]

_MAGIC = "LICHEN-ED25519-SECRET-KEY-1"
_SIZE_BYTES = len(_MAGIC) + 1 + 43 + 1


def write_key(path: Path, key: SigningKey) -> None:
    """Write a key to a new file with mode 600, and force it to the disk.

    Args:
        path: Where; its directory must exist, the file must not.
        key: The key.

    Raises:
        KeyFileError: Something is there already.
        StorageError: The disk or the directory refused.
    """
    path = Path(path)
    seed = base64.urlsafe_b64encode(key.seed).rstrip(b"=").decode("ascii")
    data = f"{_MAGIC} {seed}\n".encode("ascii")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise KeyFileError(
            f"key file {path} exists already", remedy="A key is never overwritten: name another file."
        ) from error
    except OSError as error:
        raise StorageError(f"cannot create key file {path}: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        _sync_directory(path.parent)
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        raise StorageError(f"cannot write key file {path}: {error.strerror}") from error


def key_at(path: Path) -> SigningKey:
    """Return the key in a file, or a new one that is written there: what was interrupted goes on with the same key.

    Raises:
        KeyFileError: There is a file, and no key that may be used.
        StorageError: The new one cannot be written.
    """
    if Path(path).exists():
        return read_key(path)
    key = SigningKey.generate()
    write_key(path, key)
    return key


def put_in_place(waiting: Path, path: Path, old: SigningKey, *, remedy: str) -> Path:
    """Let a key that waits take the place of another; at every moment one of them lies there.

    What was interrupted in between may be done again.

    Args:
        waiting: The file it waits in.
        path: Its place.
        old: The key there.
        remedy: What finishes it when it cannot be done now.

    Returns:
        Where the old key lies from now on: beside it, named after its id.

    Raises:
        StorageError: It cannot take the place.
    """
    retired = path.with_name(f"{path.name}.{old.public.key_id.hex()[:8]}.retired")
    try:
        if not retired.exists():
            os.link(path, retired)
        waiting.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise StorageError(
            f"the ledger knows the new key, but {waiting} could not take the place of {path}: {error.strerror}",
            remedy=remedy,
        ) from error
    return retired


def read_key(path: Path) -> SigningKey:
    """Read a key.

    Args:
        path: A file as :func:`write_key` makes it.

    Returns:
        The key.

    Raises:
        KeyFileError: Missing, unreadable, not a regular file, open to others, or not a key.
    """
    path = Path(path)
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for a writer before it could be refused.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise KeyFileError(
            f"no key file at {path}", remedy="Make one with `lichen key make`; `lichen init` makes one, too."
        ) from error
    except OSError as error:
        raise KeyFileError(
            f"cannot open key file {path}: {error.strerror}",
            remedy="Check its permissions and those of its directory; it must be yours, with mode 600.",
        ) from error
    try:
        _check_private(descriptor, path)
        data = os.read(descriptor, _SIZE_BYTES + 1)
    except OSError as error:
        raise KeyFileError(f"cannot read key file {path}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    return _parse(data, path)


def _check_private(descriptor: int, path: Path) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise KeyFileError(
            f"key file {path} is not a regular file",
            remedy="Move away what is there, and put the key back from a copy, or make a new one.",
        )
    if status.st_mode & 0o077:
        raise KeyFileError(
            f"key file {path} is open to others (mode {stat.S_IMODE(status.st_mode):04o})",
            remedy=f"Run `chmod 600 {shlex.quote(str(path))}`; if others may have copied it, make a new key.",
        )


def _parse(data: bytes, path: Path) -> SigningKey:
    head = _MAGIC.encode("ascii") + b" "
    text = data[len(head) : -1]
    if len(data) == _SIZE_BYTES and data.startswith(head) and data.endswith(b"\n"):
        with suppress(ValueError):
            seed = base64.b64decode(text + b"=", altchars=b"-_", validate=True)
            if base64.urlsafe_b64encode(seed).rstrip(b"=") == text:
                return SigningKey.from_seed(seed)
    raise KeyFileError(
        f"{path} is not a Lichen key file", remedy="Restore it from a copy, or make a new key."
    )


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
