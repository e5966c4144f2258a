"""What `lichen find --prove` and `lichen why --prove` share: write the receipts, and say what the answer is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lichen.cli.options import Invocation
    from lichen.contracts.claims import Claim
    from lichen.runs.queries.prove import Proved
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["asked_claims", "check_options", "tell_proved"]

_QUESTIONS = ("fingerprint", "file", "withdrawn", "flagged")
_SEARCH_ONLY = ("data", "metric", "member", "kind", "failed")


def check_options(words: tuple[str, ...], options: dict[str, Any]) -> None:
    """Check that the options of `lichen find` name one question when a proof is wanted, and a search otherwise.

    Raises:
        UsageError: They do not.
    """
    from lichen.errors import UsageError

    asked = [name for name in _QUESTIONS if options[name] is not None]
    if options["prove"] is None:
        for name in ("withdrawn", "flagged", "level"):
            if options[name] is not None:
                raise UsageError(
                    f"--{name} is a question to prove", remedy=f"Add a file: --prove FILE --{name} …"
                )
        return
    others = [f"--{name}" for name in _SEARCH_ONLY if options[name]] + (["WORDS"] if words else [])
    if others:
        raise UsageError(
            f"{', '.join(others)} cannot be proved: no key of the state stands for such a search",
            remedy="Prove --fingerprint, --file, --withdrawn or --flagged.",
        )
    if len(asked) != 1:
        raise UsageError(
            "a proof answers one question",
            remedy="Give one of --fingerprint HEX, --file FILE, --withdrawn ENTRY, --flagged ENTRY.",
        )
    if options["level"] is not None and options["fingerprint"] is None:
        raise UsageError("--level says of which class a fingerprint is", remedy="Add --fingerprint HEX.")


def asked_claims(workspace: Workspace, options: dict[str, Any]) -> list[Claim]:
    """Turn the options of `lichen find --prove` into claims.

    Raises:
        UsageError: A fingerprint or entry is not one.
        NotFoundError: No such entry or file.
    """
    from lichen.contracts.claims import artefact_claim, flagged_claim, withdrawn_claim
    from lichen.runs.queries.find import file_digest
    from lichen.runs.queries.prove import work_claims
    from lichen.runs.queries.reference import resolve

    if options["fingerprint"] is not None:
        return work_claims(workspace, _digest(options["fingerprint"]), options["level"])
    if options["file"] is not None:
        return [artefact_claim(file_digest(workspace, options["file"]))]
    if options["withdrawn"] is not None:
        return [withdrawn_claim(resolve(workspace, options["withdrawn"]))]
    return [flagged_claim(resolve(workspace, options["flagged"]))]


def tell_proved(
    invocation: Invocation, proved: Sequence[Proved], path: Path, notes: Sequence[str] = ()
) -> None:
    """Write the receipts to their file, and the answers to the terminal with what they mean for the question."""
    from lichen.cli.sentences import plural
    from lichen.runs.queries.prove import write_receipts

    write_receipts(path, proved)
    if invocation.as_json:
        answers = [one.to_json() for one in proved]
        invocation.output.json({"file": str(path), "answers": answers, "notes": list(notes)})
        return
    for one in proved:
        invocation.output.line(f"{'yes' if one.is_on_record else 'no'}: {one.answer}")
    if proved and proved[0].open_count:
        invocation.output.note(
            f"{plural(proved[0].open_count, 'entry')} after that seal are not covered: no seal covers them yet"
        )
    for note in notes:
        invocation.output.note(note)
    invocation.output.note(f"the proof is in {path}; anyone can check it offline: lichen verify {path}")


def _digest(text: str) -> bytes:
    import re

    from lichen.errors import UsageError

    if re.fullmatch(r"[0-9a-fA-F]{64}", text) is None:
        raise UsageError(
            f"{text!r} is no whole fingerprint",
            remedy="Give all 64 hexadecimal digits: a proof is about one key of the state.",
        )
    return bytes.fromhex(text)
