"""Every setting, variable and key is on the page of settings."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from lichen.runs.workspace import config

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
DOCUMENTED = set(re.findall(r"`([^`]+)`", PAGE))


@pytest.mark.parametrize("key", [field.name for field in fields(config.ProjectConfig)])
def test_a_key_of_the_project_is_documented(key: str) -> None:
    assert key in DOCUMENTED


@pytest.mark.parametrize("setting", sorted(config._USER_KEYS))
def test_a_setting_of_the_user_is_documented(setting: str) -> None:
    assert setting in DOCUMENTED


def test_every_variable_is_documented() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    read = set(re.findall(r"\bLICHEN_[A-Z]+(?:_[A-Z]+)*\b", sources))
    assert read
    assert read <= DOCUMENTED
