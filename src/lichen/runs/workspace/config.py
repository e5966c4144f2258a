"""Settings: one file of the user's, one of the project's, and where the ledger is.

``$LICHEN_HOME/config.toml`` holds what belongs to a person: identity, keys, whom to trust. ``lichen.toml`` in the project
root holds what belongs to the work: data, outputs, seeds, ignored paths. Both are read by the standard library;
written files contain only strings, whole numbers, booleans and lists of strings, for which a basic TOML string is a JSON
string.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lichen.errors import UsageError

__all__ = [
    "PROJECT_FILE",
    "USER_SETTINGS",
    "ProjectConfig",
    "UserConfig",
    "check_user_setting",
    "lichen_home",
]

PROJECT_FILE = "lichen.toml"
_PROJECT_KEYS = {
    "ledger": str, "data": list, "code": list, "out": list, "env": list, "ignore": list,
    "seed": list, "metrics": str, "zone": str, "trace": str,
}  # fmt: skip
_USER_KEYS = {
    "identity.member": str, "identity.key": str, "reuse.trust": list, "reuse.agree": int,
    "ledger.default": str, "ledger.patience": int, "energy.zone": str,
}  # fmt: skip
USER_SETTINGS = tuple(sorted(_USER_KEYS))
"""Names of the settings that belong to a person."""


def lichen_home(environ: Mapping[str, str] | None = None) -> Path:
    """Return the directory of the user's keys, settings and high-water marks.

    Args:
        environ: Environment to read; the process's own when None.

    Returns:
        ``$LICHEN_HOME``, else ``$XDG_CONFIG_HOME/lichen``, else ``~/.config/lichen``.
    """
    env = os.environ if environ is None else environ
    if env.get("LICHEN_HOME"):
        return Path(env["LICHEN_HOME"]).expanduser()
    base = env.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "lichen"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        return {}
    except RecursionError:
        raise UsageError(
            f"{path} is nested too deep to be read", remedy="Write its tables and lists flat."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} is not valid TOML: {error}", remedy="Correct or remove the line it names."
        ) from error
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}", remedy="Check the file's permissions."
        ) from error


def _check_type(path: Path, key: str, value: object, expected: type) -> None:
    strings = expected is not list or (
        isinstance(value, list) and all(isinstance(item, str) for item in value)
    )
    if not isinstance(value, expected) or isinstance(value, bool) or not strings:
        wanted = {str: "a string", list: "a list of strings", int: "a whole number"}[expected]
        raise UsageError(f"{path}: {key} must be {wanted}, not {value!r}", remedy=f"Write {key} as {wanted}.")


def check_user_setting(name: str) -> None:
    """Make sure that a name is one of the user's settings.

    Raises:
        UsageError: It is not.
    """
    if name not in _USER_KEYS:
        raise UsageError(f"there is no setting {name!r}", remedy=f"There are: {', '.join(USER_SETTINGS)}.")


def is_list_setting(name: str) -> bool:
    """Say whether one of the user's settings is a list."""
    return _USER_KEYS[name] is list


@dataclass(frozen=True)
class ProjectConfig:
    """What ``lichen.toml`` says; every field has the meaning of the `lichen run` option of that name."""

    ledger: str | None = None
    data: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    out: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    seed: tuple[str, ...] = ()
    metrics: str | None = None
    zone: str | None = None
    trace: str | None = None

    @classmethod
    def read(cls, root: Path) -> ProjectConfig:
        """Read ``lichen.toml`` below a project root; an absent file is an empty one.

        Raises:
            UsageError: Not TOML, an unknown key, or a value of the wrong type.
        """
        path = root / PROJECT_FILE
        values = _read_toml(path)
        unknown = sorted(set(values) - set(_PROJECT_KEYS))
        if unknown:
            known = ", ".join(sorted(_PROJECT_KEYS))
            raise UsageError(f"{path}: unknown key {unknown[0]!r}", remedy=f"Known keys: {known}.")
        for key, value in values.items():
            _check_type(path, key, value, _PROJECT_KEYS[key])
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**fields)


@dataclass
class UserConfig:
    """The user's own settings, under dotted names such as ``reuse.trust``."""

    path: Path
    values: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, home: Path | None = None) -> UserConfig:
        """Read ``config.toml``; an absent file is an empty one.

        Raises:
            UsageError: Not TOML, an unknown key, or a value of the wrong type.
        """
        path = (home or lichen_home()) / "config.toml"
        config = cls(path)
        for table, content in _read_toml(path).items():
            if not isinstance(content, dict):
                raise UsageError(
                    f"{path}: {table!r} stands outside a table", remedy="Put it under [identity] or [reuse]."
                )
            for key, value in content.items():
                config._check(f"{table}.{key}", value)
                config.values[f"{table}.{key}"] = value
        return config

    def _check(self, name: str, value: object) -> None:
        if name not in _USER_KEYS:
            raise UsageError(
                f"{self.path}: unknown setting {name!r}", remedy=f"Known: {', '.join(sorted(_USER_KEYS))}."
            )
        _check_type(self.path, name, value, _USER_KEYS[name])

    def get_text(self, name: str) -> str | None:
        """Return a string setting, or None."""
        value = self.values.get(name)
        return value if isinstance(value, str) else None

    def get_list(self, name: str) -> tuple[str, ...]:
        """Return a list setting; empty when it is not set."""
        return tuple(self.values.get(name, ()))

    def get_count(self, name: str, default: int) -> int:
        """Return a whole-number setting, or the default."""
        return int(self.values.get(name, default))

    def set_text(self, name: str, text: str) -> None:
        """Set one value from text: lists are comma separated, numbers are parsed.

        Raises:
            UsageError: Unknown name or a text that is not of its type.
        """
        if name not in _USER_KEYS:
            self._check(name, text)
        expected = _USER_KEYS[name]
        value: Any = text
        if expected is list:
            value = [part.strip() for part in text.split(",") if part.strip()]
        elif expected is int:
            if not text.strip().isdigit():
                _check_type(self.path, name, text, int)
            value = int(text)
        self.values[name] = value

    def write(self) -> None:
        """Write the settings back, whole or not at all."""
        tables: dict[str, list[str]] = {}
        for name, value in sorted(self.values.items()):
            table, _, key = name.partition(".")
            tables.setdefault(table, []).append(f"{key} = {json.dumps(value, ensure_ascii=False)}")
        text = "\n".join(f"[{table}]\n" + "\n".join(lines) + "\n" for table, lines in tables.items())
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = self.path.with_suffix(f".{os.getpid()}.tmp")
        partial.write_text(text, encoding="utf-8")
        partial.replace(self.path)
