"""Habits of the source that a machine can see: small files, small functions, finished words, no swallowed errors."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 90
FILE_BYTES_MAX = 1_000_000
TEXT_SUFFIXES = frozenset({".py", ".md", ".toml", ".sh", ".c", ".h", ".csv", ".json", ".txt", ".cfg", ""})

# Spelt in two halves, so that this file does not hold what it forbids. A loop over a variable `now` is no promise.
UNFINISHED = re.compile(
    "|".join(
        (
            r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b",
            r"\bfor n" r"ow\b(?!(, \w+)* in\b)",
            r"\bsimplified (ver" r"sion|impl" r"ementation)\b",
            r"\bin a real (sys" r"tem|impl" r"ementation)\b",
        )
    )
)
MACHINE_PATH = re.compile(r"(?<![\w.])/(work|root)/")
GENERIC_ROOMS = frozenset({"utils", "util", "common", "core", "helpers", "misc"})


def tracked_files() -> list[Path]:
    """Every file that is or would be committed; without git (an unpacked archive), every file but what tools made."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        return sorted(path for name in set(listed.stdout.splitlines()) if (path := ROOT / name).is_file())
    kept = ("src", "tests", "tools", "docs", "examples", "benchmarks")
    return sorted(path for folder in kept for path in (ROOT / folder).rglob("*") if path.is_file())


FILES = tracked_files()
PROGRAMS = [path for path in FILES if path.suffix == ".py"]
SOURCES = [path for path in PROGRAMS if path.is_relative_to(ROOT / "src")]


def place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def swallowing_handlers(text: str) -> Iterator[int]:
    """Lines of handlers that do nothing and do not say why in a comment inside them."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler) and all(isinstance(each, ast.Pass) for each in node.body):
            handler = lines[node.lineno - 1 : node.end_lineno]
            if not any("#" in line for line in handler):
                yield node.lineno


def test_files_are_short() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in PROGRAMS
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > FILE_LINES_MAX
    }
    assert not long, f"split these; {FILE_LINES_MAX} lines is the bound: {long}"


def test_functions_are_short() -> None:
    long = [
        f"{place(path, node.lineno)} {node.name} ({length} lines)"
        for path in SOURCES
        for node in functions(path)
        if (length := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert not long, f"split these; {FUNCTION_LINES_MAX} lines is the bound: {long}"


def test_no_function_is_only_a_promise() -> None:
    stubs = []
    for path in SOURCES:
        for node in functions(path):
            body = [each for each in node.body if not isinstance(each, ast.Expr)]
            abstract = any("abstract" in ast.dump(each) for each in node.decorator_list)
            raises = (
                len(body) == 1 and isinstance(body[0], ast.Raise) and "NotImplemented" in ast.dump(body[0])
            )
            if raises and not abstract:
                stubs.append(f"{place(path, node.lineno)} {node.name}")
    assert not stubs, f"write these or leave them out: {stubs}"


@pytest.mark.parametrize(
    ("pattern", "remedy"),
    [
        (UNFINISHED, "finish it, or say plainly what is missing"),
        (MACHINE_PATH, "no path of one machine belongs in the project"),
    ],
    ids=["unfinished", "machine-path"],
)
def test_no_word_that_does_not_belong(pattern: re.Pattern[str], remedy: str) -> None:
    found = []
    for path in FILES:
        if path.suffix not in TEXT_SUFFIXES or path == Path(__file__).resolve():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [place(path, i) for i, line in enumerate(text.splitlines(), 1) if pattern.search(line)]
    assert not found, f"{remedy}: {found}"


def test_no_exception_is_swallowed_in_silence() -> None:
    silent = [
        place(path, line)
        for path in PROGRAMS
        for line in swallowing_handlers(path.read_text(encoding="utf-8"))
    ]
    assert not silent, f"handle the exception, or say in a comment why nothing is to be done: {silent}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("try:\n    f()\nexcept OSError:\n    pass\n", [3]),
        ("try:\n    f()\nexcept OSError:\n    pass  # gone already\n", []),
        ("try:\n    f()\nexcept OSError:\n    # gone already\n    pass\n", []),
        ("try:\n    f()\nexcept OSError:\n    g()\n", []),
    ],
)
def test_the_search_for_swallowed_exceptions_finds_them(text: str, found: list[int]) -> None:
    assert list(swallowing_handlers(text)) == found


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if path.read_text(encoding="utf-8").strip()
        and ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) is None
    ]
    assert not silent, f"these modules have no docstring: {silent}"


def test_rooms_are_named_for_their_subject() -> None:
    generic = [
        str(path.relative_to(ROOT)) for path in SOURCES if {path.stem, path.parent.name} & GENERIC_ROOMS
    ]
    assert not generic, f"name these for what they hold: {generic}"


def test_no_large_file_is_committed() -> None:
    large = {
        str(path.relative_to(ROOT)): size for path in FILES if (size := path.stat().st_size) > FILE_BYTES_MAX
    }
    assert not large, f"fetch or generate these instead: {large}"


def called_names(node: ast.AST) -> set[str]:
    """Names of everything called in a piece of code: `f` of `f()`, `g` of `x.g()`."""
    functions_called = (each.func for each in ast.walk(node) if isinstance(each, ast.Call))
    return {getattr(each, "id", getattr(each, "attr", "")) for each in functions_called}


def unchecked_tests(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Tests that check nothing: not themselves, not through a function of their file, not by a name that says so."""
    defined = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    words = ("Assert(", "raises", "warns", "assert_", "check", "verify", "fail")
    checking = {node.name for node in defined if any(word in ast.dump(node) for word in words)}
    while found := {node.name for node in defined if called_names(node) & checking} - checking:
        checking |= found
    tests = (node for node in defined if node.name.startswith("test_"))
    yield from ((node.lineno, node.name) for node in tests if node.name not in checking)


def test_no_test_is_without_a_check() -> None:
    empty = [
        f"{place(path, line)} {name}"
        for path in PROGRAMS
        if path.name.startswith("test_")
        for line, name in unchecked_tests(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not empty, f"these tests assert nothing: {empty}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def test_a(): f()", [(1, "test_a")]),
        ("def test_a(): assert f()", []),
        ("def refused():\n  assert f()\ndef test_a(): refused()", []),
        ("def holds():\n  assert f()\ndef both():\n  holds()\ndef test_a(): both()", []),
        ("def holds():\n  f()\ndef test_a(): holds()", [(3, "test_a")]),
    ],
)
def test_the_search_for_tests_without_a_check_finds_them(text: str, found: list[tuple[int, str]]) -> None:
    assert list(unchecked_tests(ast.parse(text))) == found
