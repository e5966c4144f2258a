"""What was asked: a command line in canonical form, its script, its parameters and its seeds.

Two command lines are the same request when they differ only in where the project lies. The value of an argument
that the user marks as a seed is cut out, so that work differing only in its seed can be recognised. An option that was
named as a seed or a parameter takes a value, so ``--seed 2`` and ``--seed=2`` are the same, and of a seed with one letter
``-s 2`` and ``-s2`` too; of any other option only its program knows whether the next word belongs to it, and the spellings
stay requests of their own. What follows such a letter must be a number: ``-save`` may well be an option called so. Relative
arguments stay as typed, because whether a file exists must not change what a command is called; the working
directory is part of the request instead.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lichen.errors import UsageError
from lichen.runs.workspace.project import Project

__all__ = ["DECLARED_MARK", "SEED_MARK", "Command", "spelt_out"]

SEED_MARK = "{seed}"
DECLARED_MARK = "{param}"
_PYTHON_NAME = re.compile(r"(python|pypy)(\d+(\.\d+)*)?t?(\.exe)?")
_PYTHON_OPTIONS_WITH_VALUE = {"-W", "-X", "--check-hash-based-pycs"}


@dataclass(frozen=True)
class Command:
    """A command line, understood.

    Args:
        argv: The words as typed.
        cwd: Absolute working directory.
        executable: Absolute path that the first word resolves to, or None when nothing does.
        is_python: Whether that is a Python interpreter.
        script: Absolute path of the script, ``-m NAME`` or ``-c``; None when there is none.
        canonical: Words with the project root generalised and seed values cut out.
        seeds: Values of the arguments and variables marked as seeds.
        parameters: Arguments after the script by name; positional ones are ``arg0``, ``arg1`` …
    """

    argv: tuple[str, ...]
    cwd: str
    executable: str | None
    is_python: bool
    script: str | None
    canonical: tuple[str, ...]
    seeds: Mapping[str, str]
    parameters: Mapping[str, str]

    @classmethod
    def parse(
        cls,
        argv: Sequence[str],
        project: Project,
        *,
        cwd: Path,
        seed_names: Iterable[str] = (),
        project_seed_names: Iterable[str] = (),
        environ: Mapping[str, str] | None = None,
        shown: Sequence[str] | None = None,
        declared: Mapping[str, str] | None = None,
    ) -> Command:
        """Understand a command line.

        Args:
            argv: Words after ``--``.
            project: Project the command runs in.
            cwd: Working directory of the command.
            seed_names: Names of options (without dashes) or variables that are only seeds.
            project_seed_names: The same for every command of the project; one that this command lacks is passed over.
            environ: Environment the command will see.
            shown: The same words with secrets concealed, for everything that is kept; ``argv`` itself when None.
            declared: Parameters by name that are declared beside the command line; where one also stands on it with the
                same value, it is known to take one.

        Raises:
            UsageError: No words, or a seed name that nothing answers to.
        """
        if not argv:
            raise UsageError(
                "no command given", remedy="Write it after --, as in: lichen run -- python train.py"
            )
        env = os.environ if environ is None else environ
        executable = _resolve(argv[0], cwd, env)
        is_python = _is_python(argv[0], executable)
        script_index, script = _find_script(argv, cwd) if is_python else (0, executable)
        first_argument = script_index + 1
        words = list(argv if shown is None else shown)
        words[0] = "python" if is_python else project.generalise(Path(argv[0]).name)
        if script_index and script and not script.startswith("-"):
            words[script_index] = project.name_of(script)
        project_seed_names = tuple(project_seed_names)
        wanted = {_normal(name) for name in (*seed_names, *project_seed_names)}
        told = {_normal(name): value for name, value in (declared or {}).items()}
        parameters, seeds = _read_arguments(words, first_argument, wanted, told, project)
        for name in seed_names:
            if _normal(name) not in seeds:
                if name not in env:
                    raise UsageError(
                        f"--seed {name}: the command has no such option and the environment no such variable",
                        remedy="Name an option of the command without its dashes, or a set variable.",
                    )
                seeds[f"${name}"] = env[name]
        for name in project_seed_names:
            if _normal(name) not in seeds and name in env:
                seeds[f"${name}"] = env[name]
        canonical = tuple(project.generalise(word) for word in words)
        return cls(tuple(argv), str(cwd), executable, is_python, script, canonical, seeds, parameters)

    def with_declared(self, parameters: Mapping[str, str], seed_names: Iterable[str] = ()) -> Command:
        """Return the request with parameters that do not stand on the command line.

        Args:
            parameters: Values by name, such as of a file that a launcher writes; they are part of the request.
            seed_names: Which of them are only seeds.
        """
        wanted = {_normal(name) for name in seed_names}
        seeds = {name: value for name, value in parameters.items() if _normal(name) in wanted}
        told = {name: value for name, value in parameters.items() if name not in seeds}
        words = [f"{DECLARED_MARK}{name}={value}" for name, value in sorted(told.items())]
        words += [f"{DECLARED_MARK}{name}={SEED_MARK}" for name in sorted(seeds)]
        return replace(
            self,
            canonical=(*self.canonical, *words),
            parameters={**self.parameters, **told},
            seeds={**self.seeds, **seeds},
        )

    @property
    def family(self) -> tuple[str, ...]:
        """Script and kind of interpreter: what stays when every argument changes. A program after ``-c`` is its own script."""
        if not self.is_python:
            return self.canonical[:1]
        if self.script == "-c":
            return ("python", *self.canonical[1 : _find_script(self.argv, Path(self.cwd))[0] + 1])
        end = next(
            (i for i, word in enumerate(self.argv) if i and not word.startswith("-")), len(self.argv) - 1
        )
        return ("python", *self.canonical[1 : end + 1])


def spelt_out(canonical: Iterable[str], seeds: Mapping[str, str]) -> tuple[str, ...]:
    """Return the words of a canonical command with the values of its seeds back in their places, for people.

    Args:
        canonical: As `Command.canonical` and manifests have it.
        seeds: As `Command.seeds`: the values of an option given several times stand on a line each.
    """
    left = {key: value.split("\n") for key, value in seeds.items()}
    words, position = list[str](), 0
    for word in canonical:
        name, found, rest = word.rpartition(SEED_MARK)
        if not found or rest or not (name.endswith("=") or not name):
            words.append(word)
            continue
        key = _normal(name.removeprefix(DECLARED_MARK).removesuffix("="))
        if not name:  # a positional argument; those are numbered
            positional = [key for key in left if re.fullmatch(r"arg\d+", key)]
            key = positional[min(position, len(positional) - 1)] if positional else ""
            position += 1
        values = left.get(key, [])
        words.append(name + values.pop(0) if values else word)
    return tuple(words)


def _resolve(word: str, cwd: Path, env: Mapping[str, str]) -> str | None:
    if os.sep in word:
        path = os.path.normpath(cwd / word)
        return path if os.access(path, os.X_OK) else None
    found = shutil.which(word, path=env.get("PATH"))
    return os.path.abspath(found) if found else None  # noqa: PTH100 - a link in a venv must not be resolved


def _is_python(word: str, executable: str | None) -> bool:
    if _PYTHON_NAME.fullmatch(Path(word).name):
        return True
    return executable is not None and _PYTHON_NAME.fullmatch(Path(executable).name) is not None


def _find_script(argv: Sequence[str], cwd: Path) -> tuple[int, str | None]:
    """Return the position and path of the script in a Python command line."""
    index = 1
    while index < len(argv):
        word = argv[index]
        if word in ("-m", "-c"):
            if word == "-m" and index + 1 < len(argv):
                return index + 1, f"-m {argv[index + 1]}"
            return min(index + 1, len(argv) - 1), "-c"
        if word in _PYTHON_OPTIONS_WITH_VALUE:
            index += 2
            continue
        if word == "-" or not word.startswith("-"):
            return index, "-" if word == "-" else os.path.normpath(cwd / word)
        index += 1
    return len(argv) - 1, None


def _normal(name: str) -> str:
    return name.lstrip("-").replace("-", "_").lstrip("$")


def _read_arguments(
    words: list[str], start: int, seed_names: set[str], declared: Mapping[str, str], project: Project
) -> tuple[dict[str, str], dict[str, str]]:
    """Collect parameters and seeds; in ``words`` seed values become the mark, and options known to take a value one word."""
    parameters: dict[str, str] = {}
    seeds: dict[str, str] = {}
    read: list[str] = []
    position = 0
    index = start
    while index < len(words):
        word = words[index]
        name, equals, value = _apart(word, seed_names)
        is_option = name.startswith("-") and len(name.lstrip("-")) > 0 and not _is_number(word)
        spelt = [word]
        if is_option:
            key = _normal(name)
            if not equals and index + 1 < len(words) and _is_value(words[index + 1]):
                index += 1
                value = words[index]
                spelt.append(value)
            elif not equals:
                value = "true"
        elif equals and re.fullmatch(r"[+~]{0,2}[A-Za-z_][\w.@/]*", name):
            key = name
        else:
            key, value, name = f"arg{position}", word, ""
            position += 1
        if key in seed_names:
            seeds[key] = (
                f"{seeds[key]}\n{value}" if key in seeds else value
            )  # an option given twice has two values
            read.append(f"{name}={SEED_MARK}" if name else SEED_MARK)
        else:
            parameters[key] = project.generalise(value)
            takes_value = is_option and len(spelt) == 2 and declared.get(key) == value
            read += [f"{name}={value}"] if takes_value else spelt
        index += 1
    words[start:] = read
    return parameters, seeds


def _apart(word: str, seed_names: set[str]) -> tuple[str, str, str]:
    """Return name, equals sign and value of a word; ``-s2`` has all three where ``s`` is a seed and ``s2`` is none."""
    name, equals, value = word.partition("=")
    is_letter = re.fullmatch(r"-[A-Za-z][^=]+", word) is not None and word[1] in seed_names
    if is_letter and _normal(word) not in seed_names and _is_number(word[2:]):
        return word[:2], "=", word[2:]
    return name, equals, value


def _is_number(word: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d*)?([eE][-+]?\d+)?", word) is not None


def _is_value(word: str) -> bool:
    return not word.startswith("-") or _is_number(word) or word == "-"
