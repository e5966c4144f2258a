"""`lichen config`: the user's own settings. Those of a project stand in its `lichen.toml`."""

from __future__ import annotations

import click

from lichen.cli.help import examples
from lichen.cli.options import Invocation, json_option, ledger_option, pass_invocation

__all__ = ["config_command"]


@click.group("config", no_args_is_help=True)
def config_command() -> None:
    """Read and change settings.

    \b
    identity.member  your name in ledgers
    identity.key     file of your private key
    reuse.trust      authors whose results are taken as your own are, each with their ledger
    reuse.agree      how many of them must have found the same (1 when not set)
    ledger.default   ledger to use where none is near
    energy.zone      grid zone of this machine, such as DE

    Settings of a project (data, code, out, env, ignore, seed, metrics, zone, trace, ledger) stand in its lichen.toml.
    """  # noqa: D301 - click wants the control character itself


@config_command.command("get", epilog=examples("lichen config get reuse.trust"))
@click.argument("name")
@json_option
@pass_invocation
def get_command(invocation: Invocation, /, name: str) -> None:
    """Print one setting.

    Ends with status 4 when it is not set.
    """
    from lichen.errors import NotFoundError
    from lichen.runs.workspace.config import UserConfig, check_user_setting

    check_user_setting(name)
    config = UserConfig.read()
    if name not in config.values:
        raise NotFoundError(f"{name} is not set", remedy=f"Set it with: lichen config set {name} VALUE")
    if invocation.as_json:
        invocation.output.json(config.values[name])
    else:
        invocation.output.line(_text(config.values[name]))


@config_command.command(
    "set",
    epilog=examples(
        "lichen config set reuse.trust hospital-a,hospital-b", "lichen config set energy.zone DE"
    ),
)
@click.argument("name")
@click.argument("value")
@ledger_option
@json_option
@pass_invocation
def set_command(invocation: Invocation, /, name: str, value: str, ledger: str | None) -> None:
    """Change one setting.

    VALUE of a list is comma-separated, and replaces the list. A name in reuse.trust means that member of the ledger near by, or of
    --ledger, and of no other.
    """
    _change(invocation, name, value, ledger)


@config_command.command("add", epilog=examples("lichen config add reuse.trust hospital-b"))
@click.argument("name")
@click.argument("value")
@ledger_option
@json_option
@pass_invocation
def add_command(invocation: Invocation, /, name: str, value: str, ledger: str | None) -> None:
    """Add to a setting that is a list.

    VALUE is comma-separated. What is in the list already stays.
    """
    from lichen.errors import UsageError
    from lichen.runs.workspace.config import check_user_setting, is_list_setting

    check_user_setting(name)
    if not is_list_setting(name):
        raise UsageError(f"{name} is no list", remedy=f"lichen config set {name} VALUE replaces it.")
    _change(invocation, name, value, ledger, keep=True)


def _change(invocation: Invocation, name: str, value: str, ledger: str | None, *, keep: bool = False) -> None:
    from lichen.runs.workspace.config import UserConfig, check_user_setting

    check_user_setting(name)
    if name == "energy.zone":
        from lichen.energy.grid import lookup

        lookup(value)
    config = UserConfig.read()
    before = config.get_list(name) if keep else ()
    config.set_text(name, value)
    if name == "reuse.trust":
        config.values[name] = _with_ledger(invocation, config.get_list(name), ledger)
    if keep:
        config.values[name] = list(dict.fromkeys((*before, *config.get_list(name))))
    config.write()
    if invocation.as_json:
        invocation.output.json({name: config.values[name]})
    else:
        invocation.output.line(f"{name} = {_text(config.values[name])}")


def _with_ledger(invocation: Invocation, authors: tuple[str, ...], ledger: str | None) -> list[str]:
    """Write the ledger beside each name: the one that is named, or else the one near by, if there is one."""
    from lichen.errors import NotALedgerError
    from lichen.runs.reuse.trust import bound, needs_ledger

    if not needs_ledger(authors):
        return bound(authors, None)
    try:
        with invocation.workspace(ledger, read_only=True) as workspace:
            return bound(authors, workspace.ledger.id)
    except NotALedgerError:
        if ledger is not None:
            raise
        return bound(authors, None)


@config_command.command("unset", epilog=examples("lichen config unset reuse.trust"))
@click.argument("name")
@json_option
@pass_invocation
def unset_command(invocation: Invocation, /, name: str) -> None:
    """Take a setting away, so that its default holds."""
    from lichen.runs.workspace.config import UserConfig, check_user_setting

    check_user_setting(name)
    config = UserConfig.read()
    was_set = config.values.pop(name, None) is not None
    config.write()
    if invocation.as_json:
        invocation.output.json({name: None})
    else:
        invocation.output.line(f"{name} is no longer set" if was_set else f"{name} was not set")


@config_command.command("list", epilog=examples("lichen config list"))
@json_option
@pass_invocation
def list_command(invocation: Invocation, /) -> None:
    """Print every setting that is set."""
    from lichen.runs.workspace.config import UserConfig

    config = UserConfig.read()
    if invocation.as_json:
        invocation.output.json(dict(sorted(config.values.items())))
    elif config.values:
        invocation.output.pairs([(name, _text(value)) for name, value in sorted(config.values.items())])
    else:
        invocation.output.note("nothing is set; `lichen config --help` lists what can be")


@config_command.command("path", epilog=examples("lichen config path"))
@json_option
@pass_invocation
def path_command(invocation: Invocation, /) -> None:
    """Print where settings, keys and the project's settings lie."""
    from pathlib import Path

    from lichen.runs.workspace.config import PROJECT_FILE, UserConfig, lichen_home
    from lichen.runs.workspace.project import Project

    home = lichen_home()
    paths = {
        "settings": str(UserConfig(home / "config.toml").path),
        "keys": str(home / "keys"),
        "project": str(Project.find(Path.cwd()).root / PROJECT_FILE),
    }
    if invocation.as_json:
        invocation.output.json(paths)
    else:
        invocation.output.pairs(list(paths.items()))


def _text(value: object) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)
