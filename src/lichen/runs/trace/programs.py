"""What is known about programs by name: which read nothing, which leave the machine, which are Python or shells."""

# Paths are the run's own strings, undecodable bytes and all, and there can be 100,000 of them.
# ruff: noqa: PTH113, PTH118, PTH119, PTH123, SIM905

from __future__ import annotations

import functools
import mmap
import os
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Literal

__all__ = [
    "HARMLESS",
    "REMOTE",
    "ProgramKind",
    "elf_interpreter",
    "find_library",
    "find_program",
    "is_isolated",
    "is_written_script",
    "kind_of_program",
    "takes_environment",
]

ProgramKind = Literal["python", "shell", "native", "static", "unknown"]

HARMLESS = frozenset(
    "uname lscpu nproc ldconfig nvidia-smi arch hostname getconf sysctl fc-list id whoami tput stty true false sleep date echo "
    "printf basename dirname pwd seq yes kill ps tty free uptime rocm-smi lspci".split()
)
"""Programs that read nothing a result could depend on beyond the machine itself."""

_CONTAINERS = "docker podman nerdctl singularity apptainer enroot bwrap flatpak snap lxc-start runc crun systemd-nspawn chroot"
_REMOTES = (
    "ssh rsh pdsh mosh scp sftp rsync srun sbatch salloc qsub bsub kubectl systemd-run at batch crontab sudo su doas "
    "pkexec machinectl tmux screen"
)
REMOTE = dict.fromkeys(_CONTAINERS.split(), "container") | dict.fromkeys(_REMOTES.split(), "remote")
"""Programs whose work happens where no means here can look, and the reason code that says so."""

READERS = frozenset(
    "cat head tail wc md5sum sha1sum sha256sum sha512sum cksum cmp file zcat bzcat xzcat".split()
)
"""Programs that read exactly the files named on their command line, and standard input."""

SHELLS = frozenset("sh bash dash zsh ksh mksh ash busybox fish csh tcsh".split())
WHOLE_ENVIRONMENT = frozenset(
    "printenv perl ruby node nodejs php java make gmake ninja snakemake jq lua Rscript R julia octave".split()
)
"""Programs that take the whole environment without asking for variables by name."""
LOCALE_SENSITIVE = frozenset("sort ls join comm uniq tr grep egrep sed awk gawk mawk cut fold".split())

_TIME_SENSITIVE = frozenset("make gmake ninja snakemake rsync stat tar bsdtar zip cpio".split())
_TIME_OPTIONS = {
    "ls": re.compile(r"-[A-Za-z0-9]*[lt]|--(full-)?time|--sort=time"),
    "find": re.compile(r"-([acm](time|min|newer)|newer.*|printf|ls|fprintf|fls)"),
    "cp": re.compile(r"-[A-Za-z]*u|--update"),
    "date": re.compile(r"-r|--reference"),
}
_TIME_TEST = re.compile(r"\s-(nt|ot|N)\s")
_SCRIPT_BYTES_MAX = 1 << 18  # (= 262144)

_WRAPPER_BYTES_MAX = 1000
_WRAPPER = re.compile(
    rb"#![^\n]*python[^\n]*\n(#[^\n]*\n)*(import (re|sys)\n)+(from [\w.]+ import \w+\n\s*|import [\w.]+\n\s*)"
    rb"if __name__ == ['\"]__main__['\"]:\n( +(if sys\.argv\[0\]|elif sys\.argv\[0\]|sys\.argv\[0\] =)[^\n]*\n)*"
    rb" +sys\.exit\([\w.]+\(\)\)\s*"
)
"""What pip and uv write for an entry point."""
_PYTHON = re.compile(r"(python|pypy)[\d.]*t?d?$")
_INFORMING = frozenset(
    ("-V", "-VV", "--version", "-h", "--help", "-?", "--help-env", "--help-xoptions", "--help-all")
)


def find_program(name: str, directory: str, environ: Mapping[str, str]) -> str:
    """Resolve a program as exec does; empty when it is not there."""
    if "/" in name:
        path = os.path.join(directory, name)
        return os.path.normpath(path) if os.path.isfile(path) else ""
    for entry in environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(directory, entry, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return os.path.normpath(path)
    return ""


def find_library(name: str, directory: str, environ: Mapping[str, str]) -> str:
    """Find a shared library on ``LD_LIBRARY_PATH``, the dynamic loader's first place to look; empty when it is not there."""
    for entry in re.split("[:;]", environ.get("LD_LIBRARY_PATH", "")):
        path = os.path.join(directory, entry, name)
        if entry and os.path.isfile(path):
            return os.path.normpath(path)
    return ""


@functools.cache
def kind_of_program(path: str) -> ProgramKind:
    """Say what a program file is; a script is what its first line names."""
    real = os.path.realpath(path)
    name = os.path.basename(real)
    if _PYTHON.match(name) or _PYTHON.match(os.path.basename(path)):
        return "python"
    try:
        with open(real, "rb") as file:
            head = file.read(256)
    except OSError:
        return "unknown"
    if head.startswith(b"#!"):
        words = os.fsdecode(head[2:].split(b"\n")[0]).split()
        if words and os.path.basename(words[0]) == "env":
            words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
        if not words:
            return "unknown"
        interpreter = os.path.basename(words[0])
        if _PYTHON.match(interpreter):
            return "python"
        return "shell" if interpreter in SHELLS else "native"
    if name in SHELLS or os.path.basename(path) in SHELLS:
        return "shell"
    if head.startswith(b"\x7fELF"):
        return "native" if elf_interpreter(real) else "static"
    return "unknown"


def is_written_script(path: str) -> bool:
    """Say whether a program is a script that somebody wrote, and not the few lines that an installer lays down to call a package.

    Such a wrapper tells no more than its package, and its first line names a place that differs from machine to machine.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(_WRAPPER_BYTES_MAX + 1)
    except OSError:
        return False
    if not text.startswith(b"#!"):
        return False
    return len(text) > _WRAPPER_BYTES_MAX or _WRAPPER.fullmatch(text) is None


@functools.cache
def takes_environment(path: str) -> bool:
    """Say whether a native program or library takes hold of the environment as a whole: it asks for the symbol by name."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
            if content[:4] != b"\x7fELF":
                return False
            return any(
                content.find(name) >= 0 for name in (b"\0environ\0", b"\0__environ\0", b"\0_environ\0")
            )
    except (OSError, ValueError):
        return False


def is_isolated(argv: Sequence[str]) -> str:
    """Return the option by which a Python command line keeps the agent out, empty when there is none."""
    words = iter(argv[1:])
    for word in words:
        if not word.startswith("-") or word == "-":
            break
        if word.startswith("--"):
            if word == "--check-hash-based-pycs":
                next(words, "")
            continue
        letters = word[1:]
        for position, letter in enumerate(letters):
            if letter in "IES":
                return word
            if letter in "cm":
                return ""
            if letter in "WX":  # takes the rest of the word, or the next one
                if position == len(letters) - 1:
                    next(words, "")
                break
    return ""


def looks_at_times(argv: Sequence[str], path: str) -> bool:
    """Say whether a program's result may depend on modification times of files it looks at.

    Args:
        argv: Its command line.
        path: The program.
    """
    names = {os.path.basename(path), os.path.basename(argv[0]) if argv else ""}
    if names & _TIME_SENSITIVE:
        return True
    for name in names & _TIME_OPTIONS.keys():
        if any(_TIME_OPTIONS[name].fullmatch(word) for word in argv[1:]):
            return True
    if not names & SHELLS:
        return False
    for word in argv[1:]:
        text = word
        if os.path.isfile(word):
            try:
                with open(word, "rb") as file:
                    text = file.read(_SCRIPT_BYTES_MAX).decode("utf-8", "replace")
            except OSError:
                continue
        if _TIME_TEST.search(text):
            return True
    return False


def only_informs(argv: Sequence[str]) -> bool:
    """Say whether a Python command line only prints a version or help, which happens before the agent could start."""
    return len(argv) > 1 and argv[1] in _INFORMING


def elf_interpreter(path: str) -> str:
    """Return the dynamic loader an ELF file asks for; empty for a static program or another format.

    Source: System V gABI, "Program Header"; PT_INTERP = 3.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            if len(head) < 52 or head[:4] != b"\x7fELF":
                return ""
            wide = head[4] == 2
            order = "<" if head[5] == 1 else ">"
            if wide:
                table_offset, entry_size, entry_count = (
                    struct.unpack_from(order + "Q", head, 32)[0], *struct.unpack_from(order + "HH", head, 54)
                )  # fmt: skip
            else:
                table_offset, entry_size, entry_count = (
                    struct.unpack_from(order + "I", head, 28)[0], *struct.unpack_from(order + "HH", head, 42)
                )  # fmt: skip
            file.seek(table_offset)
            table = file.read(entry_size * min(entry_count, 128))
            for position in range(0, len(table) - entry_size + 1, entry_size):
                if struct.unpack_from(order + "I", table, position)[0] != 3:
                    continue
                if wide:
                    offset, size = (
                        struct.unpack_from(order + "Q", table, position + at)[0] for at in (8, 32)
                    )
                else:
                    offset, size = (
                        struct.unpack_from(order + "I", table, position + at)[0] for at in (4, 16)
                    )
                file.seek(offset)
                return os.fsdecode(file.read(min(size, 4096)).rstrip(b"\0"))
    except (OSError, struct.error):
        return ""  # unreadable or cut short: no program that could be started
    return ""


@functools.cache
def is_go_program(path: str) -> bool:
    """Say whether an ELF file was made by the Go compiler, whose programs make system calls themselves."""
    try:
        with open(path, "rb") as file:
            return b"Go\0\0" in file.read(4096)
    except OSError:
        return False
