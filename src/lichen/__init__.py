"""Lichen: a ledger for machine learning that pays for itself in kilowatt-hours.

::

    import lichen

    with lichen.run("fit", data=["clinic.csv"], params={"depth": 4}) as run:
        if not run.restore():
            run.log(accuracy=train(run.output("model.joblib")))

    lichen.log(step=3, loss=0.1)          # in a script under `lichen run`; elsewhere it does nothing
    lichen.find(metric="accuracy>=0.9")
    with lichen.open() as ledger:
        ledger.show("@last")

Names are imported when they are first used, so that ``import lichen`` costs next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # a type checker takes it for true; importing it would cost more than all of this file
if TYPE_CHECKING:
    from lichen.runs.python_api import Run, log, run
    from lichen.runs.workspace.ledger_handle import LedgerHandle, find
    from lichen.runs.workspace.ledger_handle import open_ledger as open

__all__ = ["LedgerHandle", "Run", "__version__", "find", "log", "open", "run"]

__version__ = "0.1.0.dev0"

_HOMES = {
    "LedgerHandle": ("lichen.runs.workspace.ledger_handle", "LedgerHandle"),
    "Run": ("lichen.runs.python_api", "Run"),
    "find": ("lichen.runs.workspace.ledger_handle", "find"),
    "log": ("lichen.runs.python_api", "log"),
    "open": ("lichen.runs.workspace.ledger_handle", "open_ledger"),
    "run": ("lichen.runs.python_api", "run"),
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lichen' has no attribute {name!r}")
    from importlib import import_module

    _make_ready_for_servers()
    module, attribute = _HOMES[name]
    value: object = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def _make_ready_for_servers() -> None:
    """Say how a ledger behind a URL is opened from Python; what there is to know about it is logged."""
    from lichen.runs.workspace.remotes import use_opener

    def open_remote(url, project, user, read_only):  # type: ignore[no-untyped-def]
        import logging

        from lichen.net.remote.workspace import open_remote as opened

        return opened(url, project, user, read_only=read_only, notify=logging.getLogger("lichen").warning)

    use_opener(open_remote)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted({*globals(), *__all__})
