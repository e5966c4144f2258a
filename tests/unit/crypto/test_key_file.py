"""Key files: made once, private, and refused in any other shape."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lichen.crypto.key_file import key_at, put_in_place, read_key, write_key
from lichen.crypto.keys import SigningKey
from lichen.errors import KeyFileError, StorageError

KEY = SigningKey.from_seed(bytes(range(32)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.key"


def test_a_key_reads_back_and_is_private(path: Path) -> None:
    previous = os.umask(0)
    try:
        write_key(path, KEY)
    finally:
        os.umask(previous)
    assert read_key(path).seed == KEY.seed
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().startswith("LICHEN-ED25519-SECRET-KEY-1 ")


def test_a_key_is_never_overwritten(path: Path) -> None:
    path.write_text("something")
    with pytest.raises(KeyFileError, match="exists already"):
        write_key(path, KEY)
    assert path.read_text() == "something"


def test_a_directory_that_is_missing_is_the_disks_fault(path: Path) -> None:
    with pytest.raises(StorageError, match="cannot create"):
        write_key(path / "deeper", KEY)


def test_a_file_that_cannot_be_opened_is_named(path: Path) -> None:
    path.symlink_to(path)
    with pytest.raises(KeyFileError, match="cannot open"):
        read_key(path)


def test_a_key_that_could_not_be_written_whole_leaves_no_file(path: Path) -> None:
    """A limit on the size of files stands for a full disk."""
    program = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from lichen.crypto.key_file import write_key; from lichen.crypto.keys import SigningKey\n"
        "from lichen.errors import StorageError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "try: write_key(Path(sys.argv[1]), SigningKey.from_seed(bytes(32)))\n"
        "except StorageError: sys.exit(7)"
    )
    assert subprocess.run([sys.executable, "-B", "-c", program, path], check=False).returncode == 7
    assert not path.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o777])
def test_a_key_open_to_others_is_refused_with_the_remedy(path: Path, mode: int) -> None:
    write_key(path, KEY)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match="open to others") as caught:
        read_key(path)
    assert f"chmod 600 {path}" in caught.value.remedy


def test_a_missing_key_names_the_command_that_makes_one(path: Path) -> None:
    with pytest.raises(KeyFileError, match="no key file") as caught:
        read_key(path)
    assert "lichen init" in caught.value.remedy


def test_directories_and_pipes_are_not_keys(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(KeyFileError, match="not a regular file"):
        read_key(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(KeyFileError, match="not a regular file"):
        read_key(tmp_path / "pipe")


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"\n",
        lambda data: data.replace(b"-1 ", b"-2 "),
        lambda data: data.replace(b" ", b"\t"),
        lambda data: data[:40] + b"!" + data[41:],
        lambda data: data[:-2] + b"9\n",  # trailing bits that no encoder writes
        lambda data: data[:-1] + b"\r",
        lambda data: b"\xff" * len(data),
    ],
)
def test_other_contents_are_refused_without_showing_them(path: Path, change: object) -> None:
    write_key(path, KEY)
    data = path.read_bytes()
    path.write_bytes(change(data))  # type: ignore[operator]
    with pytest.raises(KeyFileError, match="not a Lichen key file") as caught:
        read_key(path)
    assert data.split()[1].decode() not in str(caught.value)


def test_a_key_that_waits_takes_its_place_and_the_old_one_stays_beside(tmp_path: Path) -> None:
    path, waiting = tmp_path / "log.key", tmp_path / "log.key.next"
    old, new = key_at(path), key_at(waiting)
    retired = put_in_place(waiting, path, old, remedy="")
    assert (read_key(path).seed, read_key(retired).seed) == (new.seed, old.seed)
    assert not waiting.exists()
    assert retired.name == f"log.key.{old.public.key_id.hex()[:8]}.retired"


def test_what_was_interrupted_between_the_two_steps_is_done_again(tmp_path: Path) -> None:
    path, waiting = tmp_path / "log.key", tmp_path / "log.key.next"
    old, new = key_at(path), key_at(waiting)
    (tmp_path / "log.key.next").rename(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="could not take the place") as caught:
        put_in_place(waiting, path, old, remedy="Type it again.")
    assert caught.value.remedy == "Type it again."
    assert read_key(path).seed == old.seed
    (tmp_path / "elsewhere").rename(waiting)
    assert read_key(put_in_place(waiting, path, old, remedy="")).seed == old.seed
    assert read_key(path).seed == new.seed
