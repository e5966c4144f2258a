"""The front page of `lichen`: its commands in groups, and how to begin.

Plain data and plain text, so that showing it takes hardly longer than starting Python: nothing is imported here. A test
compares what is said of a command with what the command says of itself.
"""

from __future__ import annotations

__all__ = ["EPILOG", "GROUPS", "SYNOPSIS", "front_page"]

GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Blockchain for AI": {
        "run": ("run", "Run a command, or answer it from the ledger."),
        "why": ("why", "Say why a command would be answered, or not."),
        "publish": ("publish", "Publish data, a model or an evaluation."),
        "find": ("find", "Find earlier work."),
        "show": ("show", "Show one entry, with all that is known of it."),
        "get": ("get", "Get an artefact back, verified."),
        "cid": ("cid", "Print the content ids of files and directories."),
        "lineage": ("lineage", "Draw what a result came from and went into."),
        "flag": ("flag", "Report an error of a model or of data."),
        "withdraw": ("flag", "Withdraw something you published."),
    },
    "AI for blockchain": {
        "experiment": ("experiment", "Put a claim to the test, on this machine."),
    },
    "Assess": {
        "balance": ("balance", "Weigh the energy avoided against the energy spent."),
        "report": ("report", "Report energy and CO2, ready for a paper."),
        "verify": ("verify", "Verify a receipt, evidence, or the whole ledger."),
        "monitor": ("monitor", "Compare what witnesses saw of a ledger."),
        "audit": ("audit", "Derive the whole ledger again, and say whether it holds."),
        "log": ("log", "List the entries of the ledger."),
    },
    "Keep and leave": {
        "archive": ("archive", "Write everything to files that anybody can check."),
        "restore": ("archive", "Make a ledger of an archive again."),
        "backup": ("archive", "Copy the ledger file while it is in use."),
        "import": ("import_ledger", "Take the records of another ledger over into this one."),
    },
    "Set up": {
        "init": ("init", "Start a ledger here."),
        "serve": ("serve", "Serve this ledger to a team."),
        "join": ("join", "Use a ledger that is served at URL."),
        "witness": ("witness", "Be a witness, or have a ledger witnessed."),
        "key": ("key", "Manage keys and members."),
        "config": ("config", "Read and change settings."),
        "completion": ("completion", "Print the completion script of a shell."),
        "help": ("topics", "Explain a command or a topic."),
    },
}
"""Title of a group to its commands; command to the file of this room that holds it and what it does."""

SYNOPSIS = """A ledger for machine learning that pays for itself in kilowatt-hours.

Put `lichen run --` before a training command. The first time it is metered
and recorded in a ledger that anyone can verify; the next time the same work
is asked for, the ledger answers.
"""
EPILOG = """\b
First steps:
  lichen init
  lichen run -- python train.py
  lichen run -- python train.py     (answered from the ledger)

\b
`lichen COMMAND --help` shows examples. Exit statuses: `lichen help exit-codes`."""

_OPTIONS = (
    ("-V, --version", "Show the version and exit."),
    ("-h, --help", "Show this message and exit."),
)


def front_page() -> str:
    """Return the help of the whole, in lines of at most 80 characters."""
    lines = ["Usage: lichen [OPTIONS] COMMAND [ARGS]...", ""]
    lines += _indented(SYNOPSIS)
    width = max(len(name) for commands in GROUPS.values() for name in commands)
    for title, commands in GROUPS.items():
        lines += ["", f"{title}:"]
        lines += [f"  {name:<{width}}  {what}" for name, (_, what) in commands.items()]
    lines += ["", "Options:"]
    lines += [f"  {names:<13}  {what}" for names, what in _OPTIONS]
    lines += ["", *_indented(EPILOG.replace("\b\n", ""))]
    return "\n".join(lines) + "\n"


def _indented(text: str) -> list[str]:
    return [f"  {line}" if line else "" for line in text.rstrip("\n").split("\n")]
