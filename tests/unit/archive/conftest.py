"""One small archive with everything in it, and both programs that check archives."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sample_ledger

from lichen.archive.assemble import verifier_source
from lichen.archive.restore import restore
from lichen.archive.writer import ArchiveReport, write_archive
from lichen.content.directory_store import DirectoryStore
from lichen.contracts import default_contracts
from lichen.crypto.sealed import seal_bytes
from lichen.encoding.statement import Statement
from lichen.errors import LichenError
from lichen.ledger.ledger import Ledger

RUN_COUNT = 12


@dataclass
class Place:
    """A ledger, its store, and the archive of both.

    Attributes:
        ledger: Directory of the ledger.
        store: Its artefacts: manifests of every other run, data, one artefact of several chunks, one that is sealed.
        out: The archive.
        within: CIDs that models name through other artefacts.
    """

    ledger: Path
    store: DirectoryStore
    out: Path
    within: tuple[str, ...]

    def open(self, *, read_only: bool = False) -> Ledger:
        return Ledger.open(
            self.ledger,
            default_contracts(),
            log_key=None if read_only else sample_ledger.LOG,
            now_ms=lambda: sample_ledger.START_MS + 3_600_000,
        )

    def named_within(self, statement: Statement) -> tuple[str, ...]:
        return self.within if statement.kind == "model" else ()

    def write(self, out: Path | None = None, *, artefacts: bool = True, **options: Any) -> ArchiveReport:
        with self.open(read_only=options.pop("read_only", False)) as ledger:
            return write_archive(
                ledger,
                out or self.out,
                store=self.store if artefacts else None,
                named_within=self.named_within,
                **options,
            )


def make_place(directory: Path, run_count: int = RUN_COUNT) -> Place:
    sample_ledger.make_sample(directory / "ledger", run_count=run_count)
    store = DirectoryStore(directory / "store")
    for number in range(0, run_count, 2):
        store.put_bytes(sample_ledger.manifest_of(number))
    store.put_bytes(b"content of train.csv\n")
    large = store.put_bytes(bytes(range(256)) * 2_100)
    sealed = store.put_bytes(seal_bytes(b"detail", bytes(32), bytes(range(32))))
    return Place(directory / "ledger", store, directory / "out", (str(large.cid), str(sealed.cid)))


@pytest.fixture(name="make_place")
def make_place_fixture() -> Callable[..., Place]:
    """Make a ledger with a store in a directory."""
    return make_place


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """An archive that tests only read."""
    place = make_place(tmp_path_factory.mktemp("written"))
    place.write()
    return place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A ledger that a test may archive itself."""
    return make_place(tmp_path)


@pytest.fixture
def copy(written: Place, tmp_path: Path) -> Path:
    """A copy of the archive that a test may spoil."""
    return Path(shutil.copytree(written.out, tmp_path / "copy"))


@pytest.fixture(scope="session")
def verifier() -> types.ModuleType:
    """The one-file program, loaded as a module of its own."""
    module = types.ModuleType("verify_ledger")
    sys.modules["verify_ledger"] = module
    exec(compile(verifier_source(), "verify_ledger.py", "exec"), module.__dict__)
    return module


Verify = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture(scope="session")
def verify(verifier: types.ModuleType) -> Verify:
    """Check an archive with the one-file program; exit status and answer."""

    def check(archive: Path, *options: str) -> tuple[int, dict[str, Any]]:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
            status = verifier.main([str(archive), "--jobs", "1", "--json", "--quiet", *options])
        return status, json.loads(said.getvalue() or "{}")

    return check


@pytest.fixture
def restore_error(tmp_path: Path) -> Callable[[Path], LichenError | None]:
    """Restore an archive; what Lichen says against it, or None. Nothing may be left when it is refused."""

    def attempt(archive: Path) -> LichenError | None:
        target = tmp_path / "restored"
        try:
            restore(archive, target, default_contracts())
        except LichenError as error:
            assert not target.exists()
            assert not (tmp_path / ".restored.partial").exists()
            return error
        shutil.rmtree(target)
        return None

    return attempt


def resum(archive: Path) -> None:
    """Make the list of files right again after some were changed, as a forger would."""
    import hashlib

    lines = []
    for folder, _, names in os.walk(archive):
        for name in names:
            path = Path(folder) / name
            relative = path.relative_to(archive).as_posix()
            if relative != "SHA256SUMS":
                lines.append((relative, hashlib.sha256(path.read_bytes()).hexdigest()))
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(lines))
    (archive / "SHA256SUMS").write_text(text)


@contextlib.contextmanager
def changed(path: Path, data: bytes) -> Iterator[None]:
    """A file with other content, as long as the block lasts."""
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)


@pytest.fixture(name="resum")
def resum_fixture() -> Callable[[Path], None]:
    """Make the list of files right again after some were changed, as a forger would."""
    return resum
