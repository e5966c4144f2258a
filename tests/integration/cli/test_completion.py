"""Completion: what each shell is offered, and, where the shell is installed, what it makes of that."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.cli.conftest import Terminal

SHELLS = ("bash", "zsh", "fish")
ZSH_ASKED = """\
functions compdef > /dev/null || compdef() {{ :; }}
eval "$({lichen} completion zsh)"
compadd() {{ print -l -- ${{(P)@[-1]}}; }}
_describe() {{ print -l -- ${{(P)@[3]}}; }}
_path_files() {{ print -- files; }}
words=({words} {last})
CURRENT=$#words
_lichen_completion
"""
BASH_ASKED = """\
compopt() {{ printf '%s\n' files; }}
eval "$({lichen} completion bash)"
COMP_WORDS=({words} {last})
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_lichen_completion lichen
printf '%s\n' "${{COMPREPLY[@]}}"
"""
FISH_ASKED = """\
{lichen} completion fish | source
complete -C {typed}
"""


@pytest.fixture
def typist(terminal: Terminal, tmp_path: Path) -> Terminal:
    """Somebody whose shell finds `lichen`."""
    folder = tmp_path / "programs"
    folder.mkdir()
    program = folder / "lichen"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lichen "$@"\n')
    program.chmod(0o755)
    terminal.variables["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return terminal


def asked(terminal: Terminal, shell: str, typed: str) -> list[str]:
    """Let a shell complete what was typed; each offer as the shell shows it, ``files`` where it offers files."""
    words, _, last = typed.rpartition(" ")
    script = {"bash": BASH_ASKED, "zsh": ZSH_ASKED, "fish": FISH_ASKED}[shell].format(
        lichen="lichen", words=words, last=f"'{last}'", typed=f"'{typed}'"
    )
    flags = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run(
        [shell, *flags, "-c", script], cwd=terminal.directory, env=terminal.environment, capture_output=True,
        text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines()


def protocol(terminal: Terminal, shell: str, typed: str) -> list[str]:
    """Ask as the script of a shell asks; the lines of the answer."""
    last = typed.rpartition(" ")[2]
    done = subprocess.run(
        [*terminal.LICHEN],
        env={
            **terminal.environment, "_LICHEN_COMPLETE": f"{shell}_complete", "COMP_WORDS": typed,
            "COMP_CWORD": last if shell == "fish" else str(len(typed.split(" ")) - 1),
        },
        cwd=terminal.directory, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.splitlines()


OFFERS = [
    ("lichen ru", {"run"}),
    ("lichen key r", {"rotate", "revoke"}),
    ("lichen find --kind mo", {"model"}),
    ("lichen find --ord", {"--order"}),
    ("lichen config set reuse.", {"reuse.agree", "reuse.trust"}),
    ("lichen show @l", {"@last", "files"}),
    ("lichen find --file me", {"files"}),
    ("lichen run --data me", {"files"}),
    ("lichen run -- python tr", {"files"}),
    ("lichen run -- ./tr", {"files"}),
    ("lichen verify re", {"files"}),
    ("lichen publish model mo", {"files"}),
]


def offers_in(shell: str, lines: list[str]) -> set[str]:
    """Words offered in an answer of the protocol."""
    if shell == "zsh":
        found = set(zip(lines[::3], lines[1::3], strict=True))
    else:
        found = {(line.split(",", 1)[0], line.split(",", 1)[1].partition("\t")[0]) for line in lines}
    return {"files" if kind == "file" else value for kind, value in found}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("typed", "offered"), OFFERS)
def test_what_is_half_typed_is_completed(
    shell: str, typed: str, offered: set[str], terminal: Terminal
) -> None:
    assert offers_in(shell, protocol(terminal, shell, typed)) == offered


@pytest.mark.parametrize("shell", SHELLS)
def test_a_program_to_run_is_found_on_the_path(shell: str, typist: Terminal) -> None:
    assert {"files", "lichen"} <= offers_in(shell, protocol(typist, shell, "lichen run -- liche"))


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("typed", ["lichen rnu --", "lichen nothing like this"])
def test_where_nothing_can_follow_nothing_is_offered_and_nobody_is_told_off(
    typed: str, shell: str, terminal: Terminal
) -> None:
    lines = [line for line in protocol(terminal, shell, typed) if line]
    assert offers_in(shell, lines) <= {"--help", "--version"}


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_one_the_shell_can_read(shell: str, terminal: Terminal, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(terminal.type("completion", shell).stdout)
    assert "_LICHEN_COMPLETE" in script.read_text()
    assert "\\t" not in script.read_text(), "an escape that some shells would print as it stands"
    if shutil.which(shell):
        subprocess.run([shell, "-n", str(script)], check=True, capture_output=True)


@pytest.mark.parametrize(
    "shell",
    [
        pytest.param(
            name, marks=pytest.mark.skipif(not shutil.which(name), reason=f"{name} is not installed")
        )
        for name in SHELLS
    ],
)
def test_the_shell_itself_completes(shell: str, typist: Terminal) -> None:
    (explained,) = asked(typist, shell, "lichen ru")
    shown = {"bash": "run", "zsh": "run:", "fish": "run\t"}[shell]
    assert explained.startswith(shown)
    if shell != "bash":
        assert explained.endswith("Run a command, or answer it from the ledger."), (
            "commas are part of the help"
        )
    assert asked(typist, shell, "lichen find --kind mo") == ["model"]
    files = asked(typist, shell, "lichen run -- python tr")
    assert "train.py" in files if shell == "fish" else "files" in files
