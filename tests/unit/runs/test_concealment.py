"""Secrets stay out of what is kept, and different secrets stay different work."""

from __future__ import annotations

from pathlib import Path

import pytest

from lichen.runs.work.concealment import Concealer
from lichen.runs.work.surroundings import Surroundings
from lichen.runs.workspace.project import Project

KEY = b"k" * 32
ARGV = ("python", "fetch.py", "--password", "correct-horse", "--depth", "4")


def test_a_private_ledger_tells_secrets_apart_without_keeping_them() -> None:
    concealer = Concealer(KEY)
    words = concealer.words(ARGV)
    other = concealer.words((*ARGV[:3], "battery-staple", *ARGV[4:]))
    assert words[:3] + words[4:] == ARGV[:3] + ARGV[4:]
    assert words[3].startswith("***#")
    assert "correct-horse" not in " ".join(words)
    assert words[3] != other[3]
    assert words == Concealer(KEY).words(ARGV)
    assert words[3] != Concealer(b"other" * 8).words(ARGV)[3]
    assert not concealer.hidden


def test_a_public_ledger_keeps_nothing_of_a_secret_and_says_so() -> None:
    concealer = Concealer()
    assert concealer.words(ARGV)[3] == "***"
    assert concealer.hidden == {"the value of --password (argument 3)"}


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("mysql -p{}", "fish"), ("curl -u bob:{} h", "fish"), ("t.py --user=bob:{}", "fish"), ("sshpass -p {} ssh h", "fish"),
        ("t.py -u ada -p {}", "fish"), ("env MYTOKEN={}", "swordfish"), ("env DB_PASS={}", "1234"), ("wandb login {}", "0" * 40),
    ],
)  # fmt: skip
def test_lines_that_differ_in_a_secret_alone_are_never_equal_work(line: str, secret: str) -> None:
    one, other = (tuple(line.format(value).split()) for value in (secret, secret + "8"))
    private = Concealer(KEY)
    assert private.words(one) != private.words(other)
    assert secret not in " ".join(private.words(one)).replace("***#", "")
    for words in (one, other):  # in a public ledger both look the same, so neither may answer
        public = Concealer()
        assert secret not in " ".join(public.words(words))
        assert len(public.hidden) == 1


def test_plain_words_and_values_stay_as_they_are() -> None:
    concealer = Concealer()
    assert concealer.words(("python", "train.py", "--seed", "7")) == ("python", "train.py", "--seed", "7")
    assert concealer.values({"OMP_NUM_THREADS": "4"}) == {"OMP_NUM_THREADS": "4"}
    assert not concealer.hidden


def test_variables_are_concealed_wherever_they_are_described(tmp_path: Path) -> None:
    def surroundings(value: str, key: bytes | None = KEY) -> Surroundings:
        environ = {"API_KEY": value, "HOME": "/home/ada"}
        return Surroundings(Project(tmp_path), lambda path: b"", None, environ, concealer=Concealer(key))

    told = surroundings("s3cr3t-v4lue-0123456789").variable("API_KEY")
    assert told is not None
    assert told.startswith("***#")
    assert told != surroundings("an0ther-v4lue-0123456789").variable("API_KEY")
    assert surroundings("x").variable("HOME") == "/home/ada"
    public = surroundings("s3cr3t-v4lue-0123456789", None)
    assert public.variable("API_KEY") == "***"
    assert public.concealer.hidden == {"API_KEY"}


def test_what_was_looked_at_is_forgotten_and_what_was_given_is_not(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x")
    hashed: list[str] = []

    def hash_file(path: str) -> bytes:
        hashed.append(path)
        return b"\0" * 32

    first = Surroundings(Project(tmp_path), hash_file, None, {}, concealer=Concealer(KEY))
    for look in (first, first, first.afresh()):
        look.digest_of("{project}/data")
    assert len(hashed) == 2
    assert first.afresh().concealer is first.concealer
