"""The pages written from the code are up to date and leave nothing out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import reference_pages

from lichen import errors
from lichen.cli.table import table as lichen_command

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"


def commands(group: click.Group, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    """Every command below a group that users see, with its full name."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, f"{context.command_path} lists {name} but does not have it"
        if command.hidden:
            continue
        child = click.Context(command, info_name=name, parent=context)
        yield child.command_path, command
        if isinstance(command, click.Group):
            yield from commands(command, child)


COMMANDS = list(commands(lichen_command, click.Context(lichen_command, info_name="lichen")))
NAMES = [name for name, _ in COMMANDS]


def section_of(page: str, title: str) -> str:
    """The text from a heading to the next one."""
    lines = page.splitlines()
    start = next(i for i, line in enumerate(lines) if line.lstrip("#") == f" {title}")
    end = next((i for i in range(start + 1, len(lines)) if lines[i].startswith("#")), len(lines))
    return "\n".join(lines[start:end])


@pytest.mark.parametrize("name", reference_pages.PAGES)
def test_the_page_says_what_the_code_says(name: str) -> None:
    written = (REFERENCE / name).read_text(encoding="utf-8")
    assert written == reference_pages.PAGES[name](), "`make docs` writes it again"


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=NAMES)
def test_a_command_is_documented_with_all_it_takes(name: str, command: click.Command) -> None:
    section = section_of((REFERENCE / "cli.md").read_text(encoding="utf-8"), name)
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert all(f"`{spelling}`" in section for spelling in parameter.opts)
            assert parameter.help, f"{name} {parameter.opts[0]} has no help text"


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=NAMES)
def test_a_command_says_what_it_does(name: str, command: click.Command) -> None:
    assert command.help, f"{name} has no help text"
    assert "\\b" not in command.help, f"{name} shows the two characters where click wants a control character"


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=NAMES)
def test_a_command_shows_an_example_in_its_help(name: str, command: click.Command) -> None:
    told = f"{command.help or ''}\n{command.epilog or ''}"
    assert isinstance(command, click.Group) or name in told, f"`{name} --help` shows no example of itself"


@pytest.mark.parametrize("name", errors.__all__)
def test_an_error_is_documented(name: str) -> None:
    each = getattr(errors, name)
    section = section_of((REFERENCE / "errors.md").read_text(encoding="utf-8"), name)
    assert f"`{each.code}`" in section
    assert f"exit status {each.exit_status}" in section


def test_every_error_is_public() -> None:
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)} - {"ClassVar"}
    assert classes == set(errors.__all__)


def test_an_error_code_stands_for_one_error() -> None:
    codes = [getattr(errors, name).code for name in errors.__all__]
    assert len(set(codes)) == len(codes)


@click.group()
def sample() -> None:
    """Lead the group."""


@sample.command(epilog="See also: nothing.")
@click.argument("source")
@click.option(
    "--kind", type=click.Choice(["exact", "near"]), default="exact", show_default=True, help="What | how."
)
@click.option("--secret", hidden=True, help="Not for users.")
@click.option("-v", "--verbose", is_flag=True, help="Say more.")
@click.option("--tag", multiple=True, help="A tag.", envvar="TAGS")
def ask(source: str, kind: str, secret: str, verbose: bool, tag: tuple[str, ...]) -> None:
    """Ask a question
    over two lines.

    \b
    Example:
      sample ask this
    """


def test_a_command_is_written_as_markdown() -> None:
    lines = list(reference_pages.command_lines(sample, click.Context(sample, info_name="sample"), 2))
    assert lines == [
        *("## sample", "", "```text", "sample [OPTIONS] COMMAND [ARGS]...", "```", "", "Lead the group.", ""),
        *("### sample ask", "", "```text", "sample ask [OPTIONS] SOURCE", "```", ""),
        *("Ask a question", "over two lines.", ""),
        *("```text", "Example:", "  sample ask this", "```", ""),
        *("| Argument | Meaning |", "|---|---|", "| `SOURCE` | required |", ""),
        *("| Option | Meaning |", "|---|---|"),
        "| `--kind` `KIND` | What \\| how. (one of `exact`, `near`; default: `exact`) |",
        "| `-v`, `--verbose` | Say more. |",
        "| `--tag` `TEXT` | A tag. (may be given several times; variable: `TAGS`) |",
        *("", "See also: nothing.", ""),
    ]


def test_a_page_that_fell_behind_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_pages, "REFERENCE", tmp_path)
    for name, compose in reference_pages.PAGES.items():
        (tmp_path / name).write_text(compose(), encoding="utf-8")
    assert list(reference_pages.stale_pages()) == []
    (tmp_path / "errors.md").write_text("# Errors\n", encoding="utf-8")
    (shown,) = reference_pages.stale_pages()
    assert "errors.md as it stands" in shown
