"""`make help` names every target, and every target can be planned."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE)

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("target", ["setup", "demo", "test", "check", "bench", "docs", "help", "clean"])
def test_the_promised_targets_exist(target: str) -> None:
    assert target in TARGETS


def test_help_names_every_target() -> None:
    named = re.findall(r"^  make ([a-z-]+)", make("help").stdout, re.MULTILINE)
    assert named == TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_can_be_planned(target: str) -> None:
    assert make("--dry-run", target).returncode == 0


def test_no_target_is_mistaken_for_a_file() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony
    assert phony[1].split() == TARGETS


@pytest.mark.parametrize("program", re.findall(r"\$\(RUN\) (\S+\.py)", MAKEFILE))
def test_the_programs_that_make_starts_exist(program: str) -> None:
    assert (ROOT / program).is_file()
