"""A workspace whose ledger is behind a URL. Everything else lies on this machine, below ``<LICHEN_HOME>/remotes``."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lichen.content.cid import Cid
from lichen.contracts import default_contracts
from lichen.encoding.entry import Entry
from lichen.encoding.foreign_json import read_json
from lichen.errors import (
    EncodingError,
    KeyFileError,
    LichenError,
    NetworkError,
    NotALedgerError,
    RemoteProtocolError,
    StorageError,
    VerificationError,
)
from lichen.ledger.checkpoint import origin_of, parse_checkpoint
from lichen.ledger.genesis import Genesis
from lichen.net.paced import PATIENCE_SECONDS
from lichen.net.remote.connection import Connection, check_url
from lichen.net.remote.memory import Remembered, directory_of, forget, read_remembered, remember
from lichen.net.remote.remote_ledger import RemoteLedger, deliveries, signature_in
from lichen.net.remote.remote_log import RemoteLog
from lichen.net.remote.remote_store import RemoteStore
from lichen.runs.reuse.trust import other_keys
from lichen.runs.work.manifest import Manifest
from lichen.runs.workspace.config import UserConfig, lichen_home
from lichen.runs.workspace.project import Project
from lichen.runs.workspace.workspace import GROUP_KEY_FILE, Workspace

if TYPE_CHECKING:
    from lichen.crypto.keys import PublicKey
    from lichen.encoding.statement import Statement

__all__ = ["RemoteWorkspace", "join", "open_remote"]

FIRST_BLOCK_MAX = 1_000_000  # before the genesis is read, the longest block that any ledger may have

Notify = Callable[[str], object]

_Read = TypeVar("_Read")


@dataclass
class RemoteWorkspace(Workspace):
    """A served ledger in use from a project.

    Args:
        url: Address of the server.
        notify: Told what the user should know.
    """

    url: str = ""
    notify: Notify = print

    @cached_property
    def remote(self) -> RemoteLog:
        """The server."""
        patience_seconds = max(1, self.user.get_count("ledger.patience", int(PATIENCE_SECONDS)))
        log = RemoteLog(
            Connection(self.url, patience_seconds=patience_seconds),
            lambda: self.identity.key,
            others=lambda: (key for _, key in other_keys(self.identity.path)),
        )
        self._open.callback(log.close)
        return log

    @cached_property
    def ledger(self) -> RemoteLedger:
        """The verified copy, brought up to date when the server can be reached."""
        remembered = read_remembered(self.directory)
        if remembered is None:
            try:
                remembered = _introduce(self.remote, None)
            except NetworkError as error:
                error.remedy = "It was never used from this machine, so nothing can be kept for it: try again when it can be reached."
                raise
            _write_introduced(self.directory, remembered)
            self.notify(
                f"first use of {self.url}: its ledger is {remembered.ledger[:16]}…, its log's key {remembered.log_key}"
            )
        self.remote.ledger_id, self.remote.is_private = remembered.ledger, remembered.access != "public"
        if (self.directory / "ledger.sqlite").exists():
            from lichen.runs.queries.views import default_views

            ledger = RemoteLedger.open_copy(self.directory, default_contracts(), default_views())
        else:
            ledger = _first_copy(self.directory, self.remote, remembered)
        self._open.callback(ledger.close)
        ledger.attach(self.remote, remembered, self.store, self._artefacts_of, self.notify)
        try:
            ledger.catch_up()
        except NetworkError as error:
            self.notify(f"{error.message}; asking the copy of {ledger.size} entries{_age(remembered)}")
        return ledger

    @cached_property
    def store(self) -> RemoteStore:
        """The artefacts here, with those of the server behind them."""
        return RemoteStore(self.directory / "store", self.remote)

    def _artefacts_of(self, statement: Statement) -> Iterator[Cid]:
        """Artefacts that a record names, and that this machine has."""
        said = statement.predicate
        named = [said.get(field) for field in ("manifest", "cid", "detail")]
        if isinstance(said.get("manifest"), str):
            named += self._named_by_manifest(said["manifest"])
        if isinstance(said.get("detail"), str) and "manifest" not in said:
            named += self._named_by_table(said["detail"])
        for text in dict.fromkeys(name for name in named if isinstance(name, str)):
            try:
                cid = Cid.parse(text)
            except EncodingError:
                continue
            if self.store.keeps(cid):
                yield cid

    def _named_by_manifest(self, cid: str) -> list[str | None]:
        manifest = self._local(cid, Manifest.from_bytes)
        return [] if manifest is None else [manifest.detail, *(output.cid for output in manifest.outputs)]

    def _named_by_table(self, cid: str) -> list[str | None]:
        table = self._local(cid, read_json)
        files = table.get("files", []) if isinstance(table, dict) else []
        return [file.get("cid") for file in files if isinstance(file, dict)]

    def _local(self, cid: str, read: Callable[[bytes], _Read]) -> _Read | None:
        """Read a private artefact that lies here; None when it does not, or is something else."""
        try:
            return read(self.get_private(cid)) if self.store.keeps(Cid.parse(cid)) else None
        except (LichenError, ValueError):
            return None


def open_remote(
    url: str, project: Project, user: UserConfig, *, read_only: bool, notify: Notify
) -> RemoteWorkspace:
    """Make a workspace for the ledger at a URL; nothing is sent before it is needed.

    Raises:
        UsageError: Not an address.
    """
    address = check_url(url)
    directory = directory_of(lichen_home(), address)
    return RemoteWorkspace(project, directory, user, read_only, url=address, notify=notify)


def join(
    url: str,
    *,
    log_key: PublicKey | None,
    group_key: Path | None,
    project: Project,
    user: UserConfig,
    notify: Notify,
) -> RemoteWorkspace:
    """Get to know a served ledger: fix its id and log key, take a copy, and keep the group key beside it.

    Args:
        url: Its address.
        log_key: A key of the log as a colleague told it, its first or one that took its place; None to take the server's word for it, once.
        group_key: File with the group key of a private ledger.
        project: Project of the command.
        user: The user's settings.
        notify: Told what the user should know.

    Returns:
        The ledger in use.

    Raises:
        VerificationError: The log's key is another one than was told, or than before.
        KeyFileError: The group key is no such file.
        NetworkError: The server cannot be reached.
    """
    workspace = open_remote(url, project, user, read_only=False, notify=notify)
    known = read_remembered(workspace.directory)
    if known is None:
        _write_introduced(workspace.directory, _introduce(workspace.remote, log_key))
    if group_key is not None:
        _keep_group_key(workspace.directory, group_key)
    keys = workspace.ledger.log_keys
    if log_key is not None and log_key not in keys:
        workspace.close()
        if known is None:
            forget(workspace.directory)
        raise VerificationError(
            f"the ledger at {workspace.url} has another log key than was given",
            expected=log_key.did_key,
            calculated=keys[-1].did_key,
            remedy=f"Find out which is right. To begin anew, remove {workspace.directory}.",
        )
    return workspace


def _introduce(remote: RemoteLog, log_key: PublicKey | None) -> Remembered:
    """Ask a server which ledger it serves.

    Raises:
        VerificationError: Its log has another key than was told.
        RemoteProtocolError: It is no Lichen server.
    """
    from lichen.crypto.keys import PublicKey

    told = remote.about()
    try:
        found = Remembered(remote.url, str(told["ledger"]), str(told["log_key"]), str(told["access"]))
        origin_of(found.ledger)
        keys = [PublicKey.from_did_key(str(text)) for text in (found.log_key, *told.get("log_keys", ()))]
    except (KeyError, TypeError, LichenError) as error:
        raise RemoteProtocolError(
            f"{remote.url} does not say which ledger it serves", remedy="Check the address."
        ) from error
    if log_key is not None and log_key not in keys:
        raise VerificationError(
            f"{remote.url} serves a ledger with another log key than was given",
            expected=log_key.did_key,
            calculated=found.log_key,
            remedy="Ask a colleague which is right; do not use this server until then.",
        )
    return found


def _write_introduced(directory: Path, remembered: Remembered) -> None:
    """Write down what is pinned; nothing is known of a checkpoint yet."""
    remember(directory, replace(remembered, checkpoint="", seen_unix_ms=0))


def _first_copy(directory: Path, remote: RemoteLog, remembered: Remembered) -> RemoteLedger:
    """Begin a copy with the first blocks of the ledger.

    Raises:
        VerificationError: They do not hold, or are of another ledger than was pinned.
    """
    from lichen.runs.queries.views import default_views

    origin, note = origin_of(remembered.ledger), remote.checkpoint()
    checkpoint = parse_checkpoint(note)[0]  # its signature is checked when the copy has come that far
    signature = signature_in(note, origin, remembered.key)
    for _, entries, signatures in deliveries(remote, 0, checkpoint, signature, FIRST_BLOCK_MAX):
        genesis = Genesis.from_entry(Entry.from_bytes(entries[0]), remembered.ledger)
        if genesis.log_key != remembered.key:
            raise VerificationError(
                f"{remote.url}: the ledger's first entry names another log key",
                expected=remembered.log_key,
                calculated=genesis.log_key.did_key,
            )
        return RemoteLedger.found(directory, entries, signatures, default_contracts(), default_views())
    raise NotALedgerError(f"{remote.url} serves an empty ledger")


def _keep_group_key(directory: Path, source: Path) -> None:
    try:
        text = source.read_text(encoding="ascii").strip()
        if len(bytes.fromhex(text)) != 32:
            raise ValueError  # noqa: TRY301 - one way out for everything that is no key
    except (OSError, ValueError) as error:
        raise KeyFileError(
            f"{source} is not a group key", remedy="It must hold 64 hexadecimal digits."
        ) from error
    target = directory / GROUP_KEY_FILE
    try:
        if source.resolve() != target.resolve():
            target.unlink(missing_ok=True)
            target.touch(mode=0o600)
            shutil.copyfile(source, target)
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror}") from error


def _age(remembered: Remembered) -> str:
    """Say how old a copy is."""
    seconds = max(0, time.time() - remembered.seen_unix_ms / 1_000)
    if not remembered.seen_unix_ms:
        return ""
    for name, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f" seen {int(seconds // size)} {name} ago"
    return f" seen {int(seconds)} s ago"
