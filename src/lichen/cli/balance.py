"""`lichen balance`: joules avoided by hits, minus joules that Lichen itself spent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lichen.cli.help import examples
from lichen.cli.options import Invocation, json_option, ledger_option, pass_invocation

if TYPE_CHECKING:
    from lichen.runs.queries.balance import Balance

__all__ = ["balance_command"]

_VERDICTS = {
    "pays": ("the ledger has paid for itself", "good"),
    "costs": ("the ledger has cost more than it avoided so far", "warn"),
    "open": ("within its uncertainty, the account is even", "dim"),
}


@click.command("balance", epilog=examples("lichen balance", "lichen balance --json"))
@ledger_option
@json_option
@pass_invocation
def balance_command(invocation: Invocation, /, ledger: str | None) -> None:
    """Weigh the energy avoided against the energy spent.

    Avoided: what the runs that hits answered from had cost, counted once per work and member. Spent: the processor time of every Lichen
    command on this ledger, and the storage of its bytes.
    """
    from lichen.runs.queries.balance import balance

    with invocation.workspace(ledger) as workspace:
        account = balance(workspace)
    if invocation.as_json:
        invocation.output.json(account.to_json())
    else:
        _show(invocation, account)


def _show(invocation: Invocation, account: Balance) -> None:
    from lichen.cli.output import Painted
    from lichen.cli.sentences import plural

    hits, commands, runs = (
        plural(account.hit_count, "hit"), plural(account.command_count, "command"), plural(account.run_count, "run")
    )  # fmt: skip
    invocation.output.pairs(
        [
            ("avoided", f"{_amount(account.avoided_joules, account.avoided_u95)}, by {hits}"),
            ("spent", f"{_amount(account.spent_joules, account.spent_u95)}, by {commands} and storage"),
            ("net", _amount(account.net_joules, account.net_u95, signed=True)),
        ]
    )
    costly = sorted(account.by_command.items(), key=lambda item: -item[1])[:5]
    invocation.output.line("spent on: " + ", ".join(f"{name} {_amount(joules)}" for name, joules in costly))
    failed = f", {_amount(account.failed_joules)} of it in runs that failed" if account.failed_joules else ""
    invocation.output.line(f"for comparison: {runs} on record took {_amount(account.runs_joules)}{failed}")
    text, style = _VERDICTS[account.verdict]
    invocation.output.line(Painted(text, style))
    invocation.output.line(f"counted so: {account.counterfactual}")


def _amount(joules: float, u95_joules: float | None = None, *, signed: bool = False) -> str:
    from lichen.units import format_energy

    relative = u95_joules / abs(joules) if u95_joules is not None and joules else None
    return format_energy(joules, relative, signed=signed)
