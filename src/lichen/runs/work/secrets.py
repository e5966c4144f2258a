"""Find what looks like a secret on a command line or among variables, and mask it before anything is kept.

Three signs: a name that says so (``--password x``, ``API_KEY=x``, ``"client_secret": "x"``), a value with the known
form of a credential (``ghp_…``, a PEM block, a JSON web token), and a password in an address, a header, or behind a short
option of a program that takes one there. A name that only may mean a secret (``--key``, ``--auth``) needs a value that looks random as well.

What must not be taken for one: digests, commits, seeds, numbers, paths, and the words of language models
(``--pad-token``, ``--max-tokens``, ``--tokenizer``). A secret without any of the signs is not found; so this is a
safety net, and command lines stay private content all the same.

Source: the prefixes are those their issuers document for secret scanning.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lichen.runs.work.secret_options import masked_by_option

__all__ = ["MASK", "SecretFound", "mask_secrets", "mask_variables"]

MASK: Final = "***"


@dataclass(frozen=True)
class SecretFound:
    """Where something secret was, never what it was.

    Args:
        where: ``argument 3`` (the command itself is argument 0) or ``variable NAME``.
        name: Name that gave it away, as written; empty when its form did.
        kind: What it seems to be.
    """

    where: str
    name: str
    kind: str

    def __str__(self) -> str:
        return f"the value of {self.name} ({self.where})" if self.name else f"{self.where} ({self.kind})"


# --- values that give themselves away ------------------------------------------------------------------------------

_KNOWN_FORMS: Final = (
    (
        "private key",
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)",
    ),
    ("Lichen key", r"LICHEN-ED25519-SECRET-KEY-1[ \t]+[A-Za-z0-9_-]+"),
    ("age key", r"AGE-SECRET-KEY-1[A-Z0-9]{40,}"),
    ("JSON web token", r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),
    ("AWS access key", r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b"),
    ("GitHub token", r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,})"),
    ("GitLab token", r"\bgl(?:pat|dt|rt|cbt|ptt|ft|soat|agent|oas)-[A-Za-z0-9_-]{20,}"),
    ("Hugging Face token", r"\b(?:hf|api_org)_[A-Za-z0-9]{30,}"),
    ("Slack token", r"\b(?:xox[abeoprs]|xapp)-[A-Za-z0-9-]{10,}"),
    ("Google API key", r"\bAIza[A-Za-z0-9_-]{35}"),
    ("Google access token", r"\bya29\.[A-Za-z0-9_-]{20,}"),
    ("Stripe key", r"\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,}"),
    ("npm token", r"\bnpm_[A-Za-z0-9]{36}"),
    ("PyPI token", r"\bpypi-[A-Za-z0-9_-]{50,}"),
    ("SendGrid key", r"\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
    ("DigitalOcean token", r"\bdo[opr]_v1_[a-f0-9]{64}"),
    ("Databricks token", r"\bdapi[a-f0-9]{32}"),
    ("Replicate token", r"\br8_[A-Za-z0-9]{37,}"),
    ("Azure account key", r"(?<=AccountKey=)[A-Za-z0-9+/]{40,}={0,2}"),
)
_FORMS: Final = tuple((kind, re.compile(pattern)) for kind, pattern in _KNOWN_FORMS)
_API_KEY: Final = re.compile(r"(?<![\w-])sk-[A-Za-z0-9_-]{20,}")
_ADDRESS: Final = re.compile(
    r"(?P<before>\b[a-z][a-z0-9+.-]*://)(?P<user>[^\s/:@?#]*)(?P<password>:[^\s/@]+)?@"
)
_QUERY: Final = re.compile(r"(?P<before>[?&](?P<name>[A-Za-z0-9_.-]+)=)(?P<value>[^&#\s'\"]+)")
_AUTHORIZATION: Final = re.compile(
    r"(?P<before>\b(?:bearer|basic|token|apikey|negotiate)\s+)(?P<value>[A-Za-z0-9._~+/=-]{8,})",
    re.IGNORECASE,
)
_HEADER: Final = re.compile(
    r"(?P<before>\b(?:proxy-)?authorization[\"']?\s*:\s*[\"']?)(?P<scheme>[A-Za-z][\w-]*\s+)?(?P<value>[^\s\"',;}]+)",
    re.IGNORECASE,
)

# --- names -------------------------------------------------------------------------------------------------------

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_CERTAIN: Final = (
    ("password",), ("passwd",), ("passphrase",), ("passwort",), ("secret",), ("credential",), ("credentials",),
    ("api", "key"), ("apikey",), ("access", "key"), ("secret", "key"), ("private", "key"), ("account", "key"),
    ("signing", "key"), ("encryption", "key"), ("license", "key"), ("app", "key"), ("master", "key"),
    ("connection", "string"), ("bearer",), ("cookie",),
)  # fmt: skip
_TOKEN_WORDS: Final = ("token", "pat", "jwt")
_PASS_WORDS: Final = ("pass", "pwd", "pw")
_JOINED: Final = ("passphrase", "password", "passwd", "secret", "apikey", "token", *_PASS_WORDS)
_ACCOUNTS: Final = frozenset(
    re.findall(
        r"\w+",
        "account admin app client database db ftp git http imap ldap login mail mongo my mysql pg postgres proxy redis "
        "root server service smtp sql ssh sudo user vpn wifi",
    )
)
_POSSIBLE: Final = (
    "key",
    "auth",
    "authorization",
    "session",
    "sig",
    "signature",
    "sas",
    "pin",
)
# Names that end like a secret and mean something else.
_HARMLESS: Final = frozenset(
    re.findall(
        r"\w+",
        "pad eos bos unk mask sep cls special stop start end begin first last image audio video prompt trigger placeholder "
        "init class added new per next prefix suffix text input output target source context separator newline "
        "public primary foreign partition sort cache group index join dict map row column data state metric score "
        "no use with without allow require show hide",
    )
)
# What may stand before ``pass`` or ``token``, in one word with it, and makes another word of it.
_OTHER_WORDS: Final = frozenset(
    re.findall(
        r"\w+",
        "by com sur tres over under low high band all one two multi single double forward backward back second third de sub pre",
    )
)
_FLAG_WORDS: Final = frozenset(re.findall(r"\w+", "true false yes no on off none null auto default 0 1"))

_VALUE: Final = r"(?P<value>\"[^\"]*\"|'[^']*'|[^\s\"';&|,)}\]]+)"
_NAMED: Final = (  # within a text: an assignment, and an option with its value
    re.compile(r"(?P<quote>[\"']?)(?P<name>(?<![\w.])-{0,2}[A-Za-z_][\w.-]*)(?P=quote)\s*[:=]\s*" + _VALUE),
    re.compile(r"(?P<name>(?<!\S)--?[A-Za-z][\w.-]*)[ \t]+" + _VALUE),
)
_WHOLE: Final = re.compile(r"(?P<name>[-+~]*[A-Za-z_][\w.@/-]*)=(?P<value>.*)", re.DOTALL)
_LINE: Final = re.compile(r"([\n;&|()]+)")
_SPACE: Final = re.compile(r"(\s+)")
_SCHEMES: Final = ("bearer", "basic", "token", "digest", "negotiate", "apikey")
_OPTION: Final = re.compile(r"--?[A-Za-z][\w.-]*")
_RANDOM: Final = re.compile(r"[A-Za-z0-9+/_=.~-]{16,}")
_RANDOM_BITS_MIN: Final = (
    3.2  # Shannon entropy per character; English words and paths lie below, base64 above
)


def mask_secrets(argv: Sequence[str]) -> tuple[tuple[str, ...], tuple[SecretFound, ...]]:
    """Mask what looks like a secret on a command line.

    Args:
        argv: The words of the command.

    Returns:
        The words with ``***`` in place of secrets, and what was found, one for each word that held any.
    """
    masked: list[str] = []
    found: list[SecretFound] = []
    by_option = masked_by_option(argv, MASK)
    for position, word in enumerate(argv):
        where = f"argument {position}"
        option = argv[position - 1] if position else ""
        if _OPTION.fullmatch(option) and not word.startswith("--") and _is_secret(option, word):
            masked.append(MASK)
            found.append(SecretFound(where, option, "named"))
            continue
        if position in by_option:
            text, option = by_option[position]
            masked.append(text)
            found.append(SecretFound(where, option, "named"))
            continue
        text, finding = _mask_word(word, where)
        masked.append(text)
        found += [finding] if finding else []
    return tuple(masked), tuple(found)


def mask_variables(variables: Mapping[str, str]) -> tuple[dict[str, str], tuple[SecretFound, ...]]:
    """Mask what looks like a secret among environment variables.

    Args:
        variables: Value by name.

    Returns:
        The same names with ``***`` in place of secrets, and what was found.
    """
    masked: dict[str, str] = {}
    found: list[SecretFound] = []
    for name, value in variables.items():
        where = f"variable {name}"
        if _is_secret(name, value):
            masked[name] = MASK
            found.append(SecretFound(where, name, "named"))
            continue
        masked[name], finding = _mask_text(value, where)
        found += [finding] if finding else []
    return masked, tuple(found)


def _mask_word(word: str, where: str) -> tuple[str, SecretFound | None]:
    """Mask one word; ``--name=value`` counts as a whole, since the value may hold spaces."""
    whole = _WHOLE.fullmatch(word)
    if whole is not None and _is_secret(whole["name"], whole["value"]):
        return f"{whole['name']}={MASK}", SecretFound(where, whole["name"], "named")
    return _mask_text(word, where)


def _mask_text(text: str, where: str) -> tuple[str, SecretFound | None]:
    """Mask secrets anywhere in a text: a word, a piece of shell or Python, JSON, an address."""
    findings: list[SecretFound] = []

    def replace(kind: str, mask: Callable[[re.Match[str]], str]) -> Callable[[re.Match[str]], str]:
        def masked(match: re.Match[str]) -> str:
            new = mask(match)
            if new != match.group():
                name = match["name"] if kind == "named" else ""
                findings.append(SecretFound(where, name, kind))
            return new

        return masked

    for kind, pattern in _FORMS:
        text = pattern.sub(replace(kind, lambda _: MASK), text)
    text = _API_KEY.sub(
        replace("API key", lambda match: MASK if _is_api_key(match.group()) else match.group()), text
    )
    text = _ADDRESS.sub(replace("password in an address", _mask_address), text)
    text = _AUTHORIZATION.sub(replace("authorization", _mask_authorization), text)
    text = _HEADER.sub(replace("authorization", _mask_header), text)
    text = _QUERY.sub(replace("named", _mask_query), text)
    if any(character.isspace() or character in "{(;" for character in text):
        for pattern in _NAMED:
            text = pattern.sub(replace("named", _mask_named), text)
        text = _mask_options(text, where, findings)
    return text, findings[0] if findings else None


def _mask_options(text: str, where: str, findings: list[SecretFound]) -> str:
    """Mask behind short options in the lines of a shell script."""
    parts: list[str] = []
    for line in _LINE.split(text):
        pieces = _SPACE.split(line)  # words at even positions, what is between them at odd ones
        for position, (word, option) in masked_by_option(pieces[::2], MASK).items():
            pieces[2 * position] = word
            findings.append(SecretFound(where, option, "named"))
        parts.append("".join(pieces))
    return "".join(parts)


def _mask_header(match: re.Match[str]) -> str:
    value = match["value"]
    if value == MASK or value[0] in "$<{[" or value.lower() in _FLAG_WORDS or value.lower() in _SCHEMES:
        return match.group()
    if not match["scheme"] and (value.isalpha() or len(value) < 8):
        return match.group()
    return f"{match['before']}{match['scheme'] or ''}{MASK}"


def _mask_address(match: re.Match[str]) -> str:
    if match["password"] and match["password"] != f":{MASK}":
        return f"{match['before']}{match['user']}:{MASK}@"
    return f"{match['before']}{MASK}@" if _is_random(match["user"]) else match.group()


def _mask_authorization(match: re.Match[str]) -> str:
    return f"{match['before']}{MASK}" if _is_random(match["value"]) else match.group()


def _mask_query(match: re.Match[str]) -> str:
    return f"{match['before']}{MASK}" if _is_secret(match["name"], match["value"]) else match.group()


def _mask_named(match: re.Match[str]) -> str:
    value = match["value"]
    quote = value[0] if value[0] in "\"'" else ""
    if not _is_secret(match["name"], value.strip(quote) if quote else value):
        return match.group()
    return match.group()[: match.start("value") - match.start()] + f"{quote}{MASK}{quote}"


def _is_secret(name: str, value: str) -> bool:
    """Whether a name says that its value is secret, and the value does not say otherwise."""
    words = [word.lower() for word in _WORD.findall(name)]
    if not words or not value or value == MASK or value.lower() in _FLAG_WORDS:
        return False
    if value[0] in "$@<[{-" or _is_path(value):  # a variable's name, a file's name, ``<pad>``, ``[MASK]``
        return False
    if any(tuple(words[-len(ending) :]) == ending for ending in _CERTAIN):
        return not set(words) & {"public", "no", "use"}
    if set(words) & _HARMLESS:
        return False
    before, last = _parted(words)
    if last in _TOKEN_WORDS:
        return len(value) >= 6 and not _is_number(value)
    if last in _PASS_WORDS:
        return before in _ACCOUNTS or _is_random(value) or _is_chosen(value)
    if last != words[-1]:  # such as ``dbpassword``
        return True
    return words[-1] in _POSSIBLE and _is_random(value)


def _parted(words: Sequence[str]) -> tuple[str, str]:
    """Part the end of a name from what is before it, in one word or not: ``MYTOKEN`` as ``my``, ``token``."""
    before, last = words[-2] if len(words) > 1 else "", words[-1]
    for ending in _JOINED:
        start = last.removesuffix(ending)
        if start != last and start:
            return (start, ending) if start not in _HARMLESS | _OTHER_WORDS else ("", last)
    return before, last


def _is_chosen(value: str) -> bool:
    """Whether a value looks like a password that a person chose: letters with digits or signs among them, and no number."""
    has_other = any(character.isdigit() or character in "!@#$%^&*?+=~" for character in value)
    return len(value) >= 6 and has_other and any(map(str.isalpha, value)) and not _is_number(value)


def _is_path(value: str) -> bool:
    """Whether a value reads as a path; a password may hold a slash, but seldom begins so or ends in a suffix."""
    return value.startswith(("/", "./", "../", "~/")) or re.search(r"/.*\.[A-Za-z]{1,8}$", value) is not None


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _is_random(value: str) -> bool:
    """Whether a value looks drawn at random: long, of mixed characters, and no word, number or path."""
    if _RANDOM.fullmatch(value) is None or _is_number(value) or _is_path(value):
        return False
    kinds = sum(any(test(c) for c in value) for test in (str.isdigit, str.islower, str.isupper))
    counts = Counter(value)
    bits = -sum(n / len(value) * math.log2(n / len(value)) for n in counts.values())
    return kinds >= 2 and bits >= _RANDOM_BITS_MIN


def _is_api_key(value: str) -> bool:
    """Whether ``sk-…`` is a key and not a name such as ``sk-learn-first-experiment``."""
    return max(len(part) for part in re.split("[-_]", value)) >= 16 and any(c.isdigit() for c in value)
