"""A small stale-hit campaign: what once gave a wrong hit gives none any more, and random changes give none either.

The campaign itself is ``benchmarks/stale_hits.py``; each test runs it on some of its scripts.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parents[3] / "benchmarks" / "stale_hits.py"
needs_compiler = pytest.mark.skipif(
    shutil.which("cc") is None, reason="without a C compiler native programs are not watched"
)


def campaign(*words: str) -> dict[str, Any]:
    """Run the campaign; return its figures."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, PROGRAM, "--no-result", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout)
    assert figures["failures"] == {}
    assert figures["wrong"] == []
    assert done.returncode == 0, done.stderr
    return figures


@needs_compiler
@pytest.mark.parametrize(
    ("mutation", "scripts"),
    [
        ("patch_distribution", ("dist_module", "dist_plugins")),
        ("edit_installed_keeping_times", ("dist_module",)),
        ("change_version", ("dist_appended_path", "user_site_installed")),
        ("remove_distribution", ("dist_editable",)),
        ("shadow_distribution", ("dist_plugins",)),
        (
            "make_absent",
            (
                "dist_listed",
                "site_start",
                "namespace_package",
                "tool_on_path",
                "optional_part",
                "git_branches",
            ),
        ),
        ("add_path_file", ("site_path_file",)),
        ("retarget_link", ("link_name", "link_native")),
        ("touch_something", ("times", "scanned_times", "newer_in_bash")),
        ("change_mode", ("permissions",)),
        ("change_bytecode", ("bytecode_only",)),
        ("earlier_library", ("library_on_path",)),
        ("move_branch", ("git_head",)),
        ("set_locale", ("flags",)),
        ("set_variable", ("prefixed_variables",)),
        ("change_stdin", ("standard_input",)),
    ],
)
def test_a_change_that_is_easily_overlooked(mutation: str, scripts: tuple[str, ...]) -> None:
    figures = campaign("--each", "--edits", "0", "--classes", mutation, "--cases", *scripts)
    assert figures["scripts"] == len(scripts)
    assert figures["counts"].get("wrong hit", 0) == 0
    assert figures["counts"]["trials"] >= 1


@needs_compiler
def test_random_changes_and_edits_during_runs() -> None:
    scripts = (
        "plain_open",
        "module",
        "listing",
        "optional_config",
        "variables",
        "dist_module",
        "link_opened",
    )
    figures = campaign("--trials", "30", "--edits", "2", "--seed", "5", "--cases", *scripts)
    counts = figures["counts"]
    assert counts["trials"] == 30
    assert counts["edits during runs"] == 2
    assert counts["right hit"] + counts["right miss"] > 15
    assert figures["scripts_that_may_not_answer"] == {}


@needs_compiler
@pytest.mark.parametrize(
    "script", ["edited_names", "edited_size", "edited_link_resolved", "edited_link_read", "edited_mapping"]
)
def test_an_edit_during_a_run_at_any_moment_makes_no_wrong_hit(script: str) -> None:
    figures = campaign("--trials", "0", "--edits", "8", "--seed", "11", "--cases", script)
    assert figures["counts"]["edits during runs"] == 8
    moments = {label: counter["edits"] for label, counter in figures["classes"].items()}
    assert moments == {
        "edited before the first open": 2,
        "edited between open and end": 2,
        "edited after the last read": 2,
        "edited after the exit": 2,
    }
