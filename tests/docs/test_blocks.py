"""Every block of the README and the documents does what it shows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from document_blocks import Block, DocumentRun, commands_of, differs, read_blocks

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCKS = [block for path in DOCUMENTS for block in read_blocks(path)]


def is_executed(block: Block) -> bool:
    if "not run" in block.directives:
        return False
    return block.language == "console" or (block.language == "python" and "run" in block.directives)


def name_of(subject: Path | Block) -> str:
    if isinstance(subject, Block):
        return f"{name_of(subject.path)}:{subject.line}"
    return str(subject.relative_to(ROOT))


PYTHON_BLOCKS = [block for block in BLOCKS if block.language == "python"]
EXECUTED_DOCUMENTS = [path for path in DOCUMENTS if any(is_executed(block) for block in read_blocks(path))]


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=name_of)
def test_python_blocks_compile(block: Block) -> None:
    assert compile(block.text, block.place, "exec") is not None


@pytest.mark.executes_docs
@pytest.mark.parametrize("document", EXECUTED_DOCUMENTS, ids=name_of)
def test_blocks_do_what_the_document_shows(document: Path, tmp_path: Path) -> None:
    run = DocumentRun(tmp_path, dict(os.environ))
    wrong = [problem for block in read_blocks(document) for problem in run.run(block)]
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.parametrize("block", [each for each in BLOCKS if "not run" in each.directives], ids=name_of)
def test_a_block_that_is_not_run_says_why(block: Block) -> None:
    assert block.directives["not run"], f"{block.place}: <!-- not run: the reason -->"


def test_every_block_names_its_language() -> None:
    unnamed = [block.place for block in BLOCKS if not block.language]
    assert not unnamed, f"write ```console, ```python, ```text …: {unnamed}"


SHOWN_AND_REAL = [
    ("accuracy 0.951, 1.84 ± 0.20 kJ", "accuracy 0.949, 940 ± 87 J", False),
    ("accuracy 0.951, 940 ± 87 J", "accuracy 0.949, 1.02 ± 0.1 kJ", False),
    ("accuracy 0.951", "error 0.951", True),
    ("first\n…\nlast", "first\nsecond\nthird\nlast", False),
    ("first\n…\nlast", "first\nsecond", True),
    ("entry  7   of 9", "entry 12 of 90", False),
    (
        "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
        "bafkreiemev2isidd7gk7352wxtqh6rwbuumt4vgnkkbx5wi6giaizt2bvq",
        False,
    ),
    ("ledger lichen/3f22e0a7163dad45, now", "ledger lichen/8bbf0bc6882a1808, now", False),
    ("94 (0 to 213) µgCO2e (1.99e-07 kWh)", "1.2 ± 0.9 mgCO2e (2e-06 kWh)", False),
    ("1.2 ± 0.9 mgCO2e (2e-06 kWh)", "94 (0 to 213) µgCO2e (1.99e-07 kWh)", False),
    ("1.2 ± 0.9 mgCO2e", "nothing", True),
    ("5.2 ± 4.1 J (model, process), reusable", "5.9 ± 0.3 J (counter and model, node), reusable", False),
    ("5.2 ± 4.1 J (model, process), reusable", "5.9 ± 0.3 J, reusable", True),
    ("hit", "miss", True),
    ("a (b) [c]*", "a (b) [c]*", False),
    ("one line", "one line\nand another", True),
]


@pytest.mark.parametrize(("shown", "real", "expected"), SHOWN_AND_REAL)
def test_output_is_compared_loosely(shown: str, real: str, expected: bool) -> None:
    assert differs(tuple(shown.splitlines()), real + "\n") is expected


def write_document(folder: Path, text: str) -> Path:
    document = folder / "page.md"
    document.write_text(text, encoding="utf-8")
    return document


def test_blocks_share_folder_and_variables(tmp_path: Path) -> None:
    document = write_document(
        tmp_path,
        "# Title\n\n<!-- file: sub/greet.py -->\n```python\nprint('hello')\n```\n\n"
        "```console\n$ cd sub\n$ export NAME=lichen\n```\n\n"
        "```console\n$ python greet.py && echo $NAME\nhello\nlichen\n```\n\n"
        "<!-- run -->\n```python\nimport greet\n```\n",
    )
    run = DocumentRun(tmp_path, dict(os.environ))
    assert [problem for block in read_blocks(document) for problem in run.run(block)] == []
    assert run.current == run.start / "sub"


@pytest.mark.parametrize(
    ("block", "complaint"),
    [
        ("```console\n$ false\n```", "ended with 1, not 0"),
        ("<!-- exits: 3 -->\n```console\n$ true\n```", "ended with 0, not 3"),
        ("```console\n$ echo one\ntwo\n```", "is shown to print"),
        ("<!-- run -->\n```python\nraise SystemExit(4)\n```", "exit status 4"),
    ],
)
def test_what_a_document_shows_wrongly_is_said(block: str, complaint: str, tmp_path: Path) -> None:
    document = write_document(tmp_path, block + "\n")
    run = DocumentRun(tmp_path, dict(os.environ))
    problems = [problem for each in read_blocks(document) for problem in run.run(each)]
    assert len(problems) == 1
    assert complaint in problems[0]
    assert str(document) in problems[0]


def test_commands_go_on_over_several_lines(tmp_path: Path) -> None:
    (block,) = read_blocks(
        write_document(tmp_path, "```console\n$ cat > a <<END\n> one\n> END\n$ cat a\none\n```\n")
    )
    assert [(command.text, command.output) for command in commands_of(block)] == [
        ("cat > a <<END\none\nEND", ()),
        ("cat a", ("one",)),
    ]


def test_output_without_a_command_is_refused(tmp_path: Path) -> None:
    (block,) = read_blocks(write_document(tmp_path, "```console\nhello\n```\n"))
    with pytest.raises(ValueError, match="starts with a command"):
        commands_of(block)


def test_a_block_that_is_never_closed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="never closed"):
        read_blocks(write_document(tmp_path, "```python\nx = 1\n"))
