"""`lichen completion`: the script that teaches a shell to complete our commands."""

from __future__ import annotations

import click

from lichen.cli.help import EXIT_STATUS_LINE
from lichen.cli.options import Invocation, pass_invocation

__all__ = ["completion_command"]


@click.command(
    "completion",
    epilog="\b\nExamples:\n"
    '  eval "$(lichen completion bash)"                                    in ~/.bashrc\n'
    '  eval "$(lichen completion zsh)"                                     in ~/.zshrc\n'
    "  lichen completion fish > ~/.config/fish/completions/lichen.fish\n\n\b\n" + EXIT_STATUS_LINE,
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@pass_invocation
def completion_command(invocation: Invocation, /, shell: str) -> None:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    from lichen.cli.table import table

    kind = get_completion_class(shell)
    assert kind is not None
    invocation.output.stdout.write(kind(table, {}, "lichen", "_LICHEN_COMPLETE").source() + "\n")
