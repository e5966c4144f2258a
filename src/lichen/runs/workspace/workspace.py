"""Everything a command works with, opened together: project, ledger, store, keys, caches.

One place knows where things lie below the ledger directory; the parts are opened when first asked for, because
`lichen find` needs no store and `lichen verify` no key.
"""

from __future__ import annotations

import contextlib
import getpass
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from lichen.errors import EncodingError, KeyFileError, LichenError, NotALedgerError, StorageError
from lichen.runs.reuse.local_index import LocalIndex
from lichen.runs.work.manifest import Manifest
from lichen.runs.workspace.config import UserConfig, lichen_home
from lichen.runs.workspace.project import Project, locate_ledger
from lichen.runs.workspace.remotes import open_remote_ledger, remote_address

if TYPE_CHECKING:
    from lichen.content.digest_cache import DigestCache
    from lichen.content.directory_store import DirectoryStore
    from lichen.crypto.keys import SigningKey
    from lichen.ledger.ledger import Ledger

__all__ = ["Identity", "Workspace", "default_member", "member_key_path", "read_identity"]

GROUP_KEY_FILE = "group.key"
LOG_KEY_FILE = "log.key"
_OWN_LEDGER = "Keep a ledger of your own: lichen init."
_MANIFESTS_HELD_MAX = 2  # the one that answers is asked for again when it is verified
_ARTEFACT_BYTES_MAX = 256 * 1024 * 1024


@dataclass(frozen=True)
class Identity:
    """Who signs.

    Args:
        member: Member id.
        key: Private key.
        path: Where the key lies.
    """

    member: str
    key: SigningKey
    path: Path


def _user_name(uid: int) -> str:
    """Return the name of a Unix user, or the number where there is none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def default_member(user: UserConfig) -> str:
    """Return the member id to act as: ``LICHEN_MEMBER``, the user's setting, else the login name."""
    return os.environ.get("LICHEN_MEMBER") or user.get_text("identity.member") or getpass.getuser()


def member_key_path(user: UserConfig, member: str) -> Path:
    """Return where a member's private key lies."""
    named = user.get_text("identity.key")
    if named and member == user.get_text("identity.member"):
        return Path(named).expanduser()
    return lichen_home() / "keys" / f"{member.replace('/', '%2F')}.key"


def read_identity(user: UserConfig, member: str | None = None) -> Identity:
    """Read the private key of the member to act as.

    Raises:
        KeyFileError: The key is missing, malformed, or readable by others.
    """
    from lichen.crypto.key_file import read_key

    name = member or default_member(user)
    path = member_key_path(user, name)
    return Identity(name, read_key(path), path)


@dataclass
class Workspace:
    """A ledger directory in use from a project.

    Args:
        project: The project the command runs in.
        directory: The ledger directory.
        user: The user's settings.
        read_only: Open nothing for writing.
    """

    project: Project
    directory: Path
    user: UserConfig
    read_only: bool = False
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _manifests: dict[str, Manifest] = field(default_factory=dict)

    @classmethod
    def find(
        cls, option: str | None = None, *, project: Project | None = None, read_only: bool = False
    ) -> Workspace:
        """Find the ledger a command means.

        Args:
            option: What ``--ledger`` says: a directory, or the URL of a served ledger.
            project: Project of the command; found from the working directory when None.
            read_only: Open nothing for writing.

        Raises:
            NotALedgerError: There is none.
        """
        project = project or Project.find(Path.cwd())
        user = UserConfig.read()
        try:
            url = remote_address(option, project, user)
            if url is not None:
                return open_remote_ledger(url, project, user, read_only=read_only)
            directory = locate_ledger(option, project, user)
            is_there = (directory / "ledger.sqlite").exists()
        except PermissionError as error:
            place = Path(error.filename or "the ledger").parent
            place = place.parent if place.name == place.parent.name else place
            raise StorageError(
                f"{place} is closed to you, the user {_user_name(os.getuid())}", remedy=_OWN_LEDGER
            ) from error
        if not is_there:
            raise NotALedgerError(
                f"{directory} holds no ledger",
                remedy="Run `lichen init` there, or name another with --ledger DIR.",
            )
        log_key_path = directory / LOG_KEY_FILE
        read_only |= log_key_path.exists() and not os.access(log_key_path, os.R_OK)
        read_only |= not all(os.access(path, os.W_OK) for path in (directory, directory / "ledger.sqlite"))
        return cls(project, directory.resolve(), user, read_only)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close everything that was opened; pending entries are sealed."""
        self._open.close()

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger, with every contract and view of this version."""
        from lichen.contracts import default_contracts
        from lichen.crypto.key_file import read_key
        from lichen.ledger.ledger import Ledger
        from lichen.runs.keeping.log_succession import finish_succession, take_up_waiting_key
        from lichen.runs.queries.views import default_views

        log_key_path = self.directory / LOG_KEY_FILE
        log_key = None if self.read_only or not log_key_path.exists() else read_key(log_key_path)

        def opened(key: SigningKey | None) -> Ledger:
            return Ledger.open(
                self.directory,
                contracts=default_contracts(),
                views=default_views(),
                log_key=key,
                read_only=self.read_only,
                home=lichen_home(),
            )

        try:
            ledger = opened(log_key)
        except KeyFileError:
            waiting = take_up_waiting_key(self.directory)
            if waiting is None:
                raise
            ledger = opened(
                waiting
            )  # the log has a new key, and was interrupted before it took the old one's place
            finish_succession(self.directory)
        self._open.callback(ledger.close)
        return ledger

    def check_own(self) -> None:
        """Make sure that this user may write: who holds the log key does.

        Raises:
            StorageError: The log key belongs to another Unix user, or is closed.
        """
        path = self.directory / LOG_KEY_FILE
        if not path.exists() or os.access(path, os.R_OK):
            return
        owner, own = path.stat().st_uid, os.getuid()
        if owner == own:
            raise StorageError(f"{path} cannot be read", remedy=f"Run `chmod 600 {path}`.")
        name = _user_name(owner)
        raise StorageError(
            f"the ledger in {self.directory} is written by the user {name} alone, who holds its log key; you are "
            f"{_user_name(own)}",
            remedy=f"{_OWN_LEDGER} Or work in it as that user, such as: sudo -u {name} lichen …",
        )

    @cached_property
    def identity(self) -> Identity:
        """Who signs here.

        Raises:
            StorageError: Another Unix user alone may write to the ledger.
            KeyFileError: The key is missing, malformed, or readable by others.
        """
        self.check_own()
        return read_identity(self.user)

    @cached_property
    def member(self) -> str:
        """Whose settings and results count as one's own."""
        return default_member(self.user)

    @cached_property
    def own_key_ids(self) -> frozenset[bytes]:
        """Ids of the acting member's keys on this machine, rotated ones among them."""
        from lichen.runs.reuse.trust import own_key_ids

        return own_key_ids(member_key_path(self.user, self.member))

    def is_own(self, index: int) -> bool:
        """Say whether an entry was signed with a key of one's own; that its author has one's name proves nothing."""
        return self.ledger.entry(index).key_id in self.own_key_ids

    @cached_property
    def group_key(self) -> bytes | None:
        """Key of a private ledger, 32 bytes; None in a public one.

        Raises:
            KeyFileError: The ledger is private and its group key is not here.
        """
        if self.ledger.genesis.access == "public":
            return None
        beside, copy = self.directory / GROUP_KEY_FILE, lichen_home() / "group-keys" / f"{self.ledger.id}.key"
        path = copy if copy.exists() and not os.access(beside, os.R_OK) else beside
        try:
            if path.stat().st_mode & 0o077:
                raise KeyFileError(f"{path} is readable by others", remedy=f"chmod 600 {path}")
            key = bytes.fromhex(path.read_text(encoding="ascii").strip())
        except FileNotFoundError:
            raise KeyFileError(
                f"{path} is missing, and this ledger is private",
                remedy="Ask a member of the ledger for the group key file and put it there with mode 600; "
                "of a served ledger: lichen join URL --group-key FILE.",
            ) from None
        except PermissionError:
            raise KeyFileError(
                f"{path} belongs to another user, and this ledger is private",
                remedy=f"Ask them for the key, put it into {copy} and run `chmod 600` on it.",
            ) from None
        except (ValueError, UnicodeDecodeError):
            raise KeyFileError(
                f"{path} is not a group key", remedy="It must hold 64 hexadecimal digits."
            ) from None
        if len(key) != 32:
            raise KeyFileError(f"{path} is not a group key", remedy="It must hold 64 hexadecimal digits.")
        return key

    @cached_property
    def store(self) -> DirectoryStore:
        """The artefacts beside the ledger."""
        from lichen.content.directory_store import DirectoryStore

        return DirectoryStore(self.directory / "store")

    @property
    def fallback_spool(self) -> Path:
        """Where records wait when the ledger directory itself cannot be written."""
        return lichen_home() / "spool" / self.ledger.id[:16]

    @property
    def own_cache_directory(self) -> Path:
        """Where files lie that only this user may write, because answers are believed on their word."""
        return lichen_home() / "cache"

    @property
    def cache_directory(self) -> Path:
        """Where rebuildable files lie."""
        return self.directory / "cache"

    @cached_property
    def digests(self) -> DigestCache:
        """Digests of files already hashed."""
        from lichen.content.digest_cache import DigestCache

        cache = DigestCache(self.own_cache_directory / "digests.sqlite")
        self._open.callback(cache.close)
        return cache

    def digest_states(
        self, paths: Sequence[str], states: Sequence[tuple[int, ...] | None] | None = None
    ) -> list[bytes | None]:
        """Return the SHA-256 of many files; see ``DigestCache.digest_states``."""
        return self.digests.digest_states(paths, states)

    def digest_columns(
        self, paths: bytes, count: int, states: bytes | None = None
    ) -> tuple[bytes, bytes] | None:
        """Say the same of very many; see ``DigestCache.digest_columns``."""
        return self.digests.digest_columns(paths, count, states)

    @cached_property
    def index(self) -> LocalIndex:
        """The local index over the runs on record."""
        from lichen.runs.queries.run_rows import RunRows

        index = LocalIndex(self.cache_directory / "index.sqlite", self.ledger.id)
        self._open.callback(index.close)
        index.attach(RunRows(self.ledger.connection), self.manifest, self.bring_manifests)
        return index

    def bring_manifests(self, cids: Sequence[str]) -> None:
        """Have manifests here that will be read next, together where a server holds them.

        Raises:
            LichenError: The server cannot be reached, or sends something else; reading one tells which.
        """
        from lichen.content.cid import Cid

        named = []
        for text in cids:
            with contextlib.suppress(EncodingError):
                named.append(Cid.parse(text))
        self.store.bring_all(named, _ARTEFACT_BYTES_MAX)

    def put_private(self, data: bytes) -> tuple[str, bytes]:
        """Store bytes that belong to a record, sealed when the ledger is private.

        Returns:
            CID text and SHA-256 of what lies in the store.
        """
        stored = self.store.put_bytes(self.seal_private(data))
        return str(stored.cid), stored.sha256

    def seal_private(self, data: bytes) -> bytes:
        """Seal bytes with the group key; in a public ledger they stay as they are."""
        from lichen.crypto.sealed import seal_bytes

        return data if self.group_key is None else seal_bytes(data, self.group_key, os.urandom(32))

    def get_private(self, cid: str) -> bytes:
        """Read what :meth:`put_private` stored.

        Raises:
            NotFoundError: The store does not hold it.
            EncodingError: Not a CID.
            VerificationError: The bytes do not match, or were sealed with another key.
        """
        from lichen.content.cid import Cid
        from lichen.crypto.sealed import open_bytes

        data = self.store.read_bytes(Cid.parse(cid), _ARTEFACT_BYTES_MAX)
        return open_bytes(data, self.group_key) if self.group_key is not None else data

    def manifest(self, cid: str) -> Manifest:
        """Read a run's manifest.

        Raises:
            LichenError: It is not in the store, damaged, or of another version.
        """
        manifest = self._manifests.pop(cid, None) or Manifest.from_bytes(self.get_private(cid))
        self._manifests[cid] = manifest
        if len(self._manifests) > _MANIFESTS_HELD_MAX:
            del self._manifests[next(iter(self._manifests))]
        return manifest

    def detail(self, manifest: Manifest) -> dict[str, object]:
        """Read the deletable detail of a run: command line as typed, output, host.

        Returns:
            The detail, or an empty table when it was deleted, damaged or never written.
        """
        from lichen.encoding.foreign_json import read_json

        if manifest.detail is None:
            return {}
        try:
            value = read_json(self.get_private(manifest.detail))
        except (LichenError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}
