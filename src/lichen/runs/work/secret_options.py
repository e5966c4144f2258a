"""Secrets that stand behind a short option, told by the program they are for, or by the user's name beside them.

``-p`` is a port, a precision, a path, and a password. Which it is, the program says (``mysql -pX``, ``sshpass -p X``,
``docker login -p X``), or a user's name on the same line (``-u ada -p X``); where neither does, a ``-p`` is taken for no secret.
``-u ada:X`` is a name with its password, unless the program takes a user with a group, or it reads as one: both numbers, or
both the same.

Source: the manual pages of the programs named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["masked_by_option"]


@dataclass(frozen=True)
class _Program:
    """Options of a program that take a secret.

    Args:
        apart: Options before a word that is the secret.
        joined: Options that the secret follows in the same word.
        pairs: Options before a word, or in one with it, that is a user with a password.
        after: Word without which none of this holds.
        takes_groups: Whether ``-u`` takes a user with a group.
    """

    apart: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()
    after: str = ""
    takes_groups: bool = False


_MYSQL: Final = _Program(joined=("-p",))
_MONGO: Final = _Program(apart=("-p",))
_LDAP: Final = _Program(apart=("-w",))
_SAMBA: Final = _Program(pairs=("-U", "--user"))
_PACKER: Final = _Program(joined=("-p", "-hp"))
_UPPER: Final = _Program(apart=("-P",), joined=("-P",))
_CONTAINER: Final = _Program(apart=("-p",), after="login", takes_groups=True)
_LOGIN: Final = _Program(apart=("-p",), after="login")
_IDENTITY: Final = _Program(takes_groups=True)
_HTTPIE: Final = _Program(pairs=("-a", "--auth"))
_PROGRAMS: Final = {
    **dict.fromkeys(("mysql", "mysqldump", "mysqladmin", "mysqlimport", "mysqlcheck", "mysqlsh"), _MYSQL),
    **dict.fromkeys(("mariadb", "mariadb-dump", "mariadb-admin", "mariadb-import", "mycli"), _MYSQL),
    **dict.fromkeys(("mongo", "mongosh", "mongodump", "mongorestore", "mongoimport", "mongoexport"), _MONGO),
    **dict.fromkeys(("ldapsearch", "ldapadd", "ldapmodify", "ldapdelete", "ldapwhoami"), _LDAP),
    **dict.fromkeys(("smbclient", "rpcclient", "smbget"), _SAMBA),
    **dict.fromkeys(("7z", "7za", "7zr", "rar", "unrar"), _PACKER),
    **dict.fromkeys(("zip", "unzip", "sqlcmd", "bcp", "mosquitto_pub", "mosquitto_sub"), _UPPER),
    **dict.fromkeys(("docker", "podman", "nerdctl", "buildah"), _CONTAINER),
    **dict.fromkeys(("az", "oc", "helm", "cf", "skopeo"), _LOGIN),
    **dict.fromkeys(("apptainer", "singularity", "chroot", "setpriv", "gosu", "su-exec", "chown"), _IDENTITY),
    **dict.fromkeys(("http", "https", "xh"), _HTTPIE),
    "sshpass": _Program(apart=("-p",), joined=("-p",)),
    "redis-cli": _Program(apart=("-a",)),
    "beeline": _Program(apart=("-p",)),
    "curl": _Program(pairs=("-u", "-U", "--user", "--proxy-user")),
    "wandb": _Program(apart=("login",)),
    "openssl": _Program(joined=("pass:",)),
}

_USER_OPTIONS: Final = ("-u", "-U", "--user", "--username", "--proxy-user", "--login")
_PASSWORD_OPTIONS: Final = ("-p", "-pw")
_PAIR: Final = re.compile(
    r"(?P<user>[A-Za-z0-9][\w.@+\\-]*)(?P<between>[:%])(?P<password>[^\s/].*)", re.DOTALL
)
_NUMBERS: Final = re.compile(r"[-+\d.:,/eE]*(?:/tcp|/udp)?")
_NAME: Final = re.compile(r"[A-Za-z][\w.@+-]*")
_NEVER: Final = re.compile(r"[$@<\[{*-]|\.{0,2}/|~/")
_FLAGS: Final = frozenset(("true", "false", "yes", "no", "on", "off", "none", "null", "auto", "default"))
_QUOTES: Final = "\"'"


def masked_by_option(words: Sequence[str], mask: str) -> dict[int, tuple[str, str]]:
    """Mask what short options give away.

    Args:
        words: Of one command line, or of a line in a shell script; quotes around them are passed over.
        mask: What is put in the place of a secret.

    Returns:
        By position, the masked word and the option that gave it away.
    """
    bare = [word.strip(_QUOTES) for word in words]
    found: dict[int, tuple[str, str]] = {}
    program = _Program()
    names_user = any(_NAME.fullmatch(bare[at]) for at in _users(bare))
    for position, word in enumerate(bare):
        named = _PROGRAMS.get(word.rpartition("/")[2])
        if named is not None:
            program = named if not named.after or named.after in bare[position:] else _Program(
                takes_groups=named.takes_groups
            )  # fmt: skip
        option = bare[position - 1] if position else ""
        masked = _masked(word, option, program, mask, names_user=names_user)
        if masked is not None:
            quote = words[position][0] if words[position][:1] in _QUOTES else ""
            found[position] = f"{quote}{masked[0]}{quote}", masked[1]
    return found


def _users(words: Sequence[str]) -> Iterator[int]:
    """Positions of words that an option calls a user; ``python -u`` means something else."""
    for position in range(1, len(words)):
        before = words[position - 2].rpartition("/")[2] if position > 1 else ""
        if words[position - 1] in _USER_OPTIONS and not before.startswith(("python", "pypy")):
            yield position


def _masked(
    word: str, option: str, program: _Program, mask: str, *, names_user: bool
) -> tuple[str, str] | None:
    if option in program.apart and _may_be_secret(word, mask):
        return mask, option
    for joined in program.joined:
        if word.startswith(joined) and _may_be_secret(word[len(joined) :], mask):
            return joined + mask, joined
    if (
        option in _PASSWORD_OPTIONS
        and names_user
        and _may_be_secret(word, mask)
        and not _NUMBERS.fullmatch(word)
    ):
        return mask, option
    pairs = program.pairs if program.takes_groups else (*program.pairs, *_USER_OPTIONS)
    if option in pairs:
        pair = _mask_pair(word, mask)
        return None if pair is None else (pair, option)
    for each in pairs:
        start = f"{each}=" if each.startswith("--") else each if each in program.pairs else "\0"
        if word.startswith(start):
            pair = _mask_pair(word[len(start) :], mask)
            return None if pair is None else (start + pair, each)
    return None


def _may_be_secret(value: str, mask: str) -> bool:
    return bool(value) and value != mask and not _NEVER.match(value) and value.lower() not in _FLAGS


def _mask_pair(text: str, mask: str) -> str | None:
    """Mask the password of ``user:password``; None for a user with a group, a time, a host with its port."""
    pair = _PAIR.fullmatch(text)
    if pair is None or not _may_be_secret(pair["password"], mask) or _NUMBERS.fullmatch(text):
        return None
    is_host = "." in pair["user"] or pair["user"] == "localhost"
    if pair["user"] == pair["password"] or (is_host and pair["password"].isdigit()):
        return None
    return f"{pair['user']}{pair['between']}{mask}"
