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
    from lichen.cli.completing import completion_class
    from lichen.cli.table import table

    kind = completion_class(shell)
    invocation.output.stdout.write(kind(table, {}, "lichen", "_LICHEN_COMPLETE").source() + "\n")
