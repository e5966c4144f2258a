"""In what a request differs from an earlier run, item by item, and how that is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lichen.runs.trace.distributions import ALL_INSTALLED
from lichen.runs.trace.variables import ALL_NAMES
from lichen.runs.work.declared import find_gap
from lichen.runs.work.surroundings import MISSING

if TYPE_CHECKING:
    from lichen.runs.work.manifest import Manifest
    from lichen.runs.work.surroundings import Surroundings

__all__ = ["Difference", "differences", "gap_between"]

ITEMS_TOLD_MAX: Final = 6  # a list of a whole other environment tells no more
_A = {"input": "an input", "directory": "an input", "output": "an output", "variable": "an input"}


@dataclass(frozen=True)
class Difference:
    """The first item in which a request differs from an earlier run.

    Args:
        section: Section of the manifest, such as ``data``.
        name: Name of the item in it.
        before: What the run saw; None when it did not see the item.
        now: What is there; None when it is not there.
    """

    section: str
    name: str
    before: str | None
    now: str | None

    def describe(self) -> str:
        """Say the difference in one line."""
        if self.section == "absent":
            return f"{self.name} exists now; the earlier run found nothing there"
        if self.section == "declared":
            return f"{self.name} is declared as {_A[self.now or 'input']} now, and the earlier run did not take it down"
        if self.section == "ignored":
            told = (
                "the run's ignore rules were others"
                if self.now == "rules"
                else f"{self.name} was ignored then and is not now"
            )
            return f"{told}, so what stood there may matter"
        if self.section == "outputs":
            return f"{self.name} is there, and not as the earlier run left it, which found nothing there before it made it"
        if self.section == "listings":
            return f"the listing of {self.name} changed"
        if self.section == "modules":
            return f"{self.name} could now supply other modules: {self.now or 'none'} instead of {self.before or 'none'}"
        if self.section in ("code", "data", "executables"):
            if self.now in (None, MISSING):
                return f"{self.name} is gone"
            return f"{self.name} changed" if self.before else f"{self.name} is new"
        if self.section == "distributions" and self.name.startswith("names in "):
            return f"the {self.name} changed"
        if self.section == "distributions" and self.name == ALL_INSTALLED:
            return f"what is installed changed: {_items_changed(self.before, self.now, versions=True)}"
        if self.section == "distributions" and self.name.startswith("("):
            return f"what is installed changed {self.name}"
        if self.section == "environment" and self.name == "start":
            return f"what every start of Python obeys changed: {_items_changed(self.before, self.now, versions=False)}"
        if self.section == "variables" and self.name == ALL_NAMES:
            return "other variables are set than before, and the run looked at all of them"
        noun = {
            "variables": "variable", "distributions": "installed version of", "environment": "environment:",
            "present": "", "seed": "seed", "command": "command",
        }[self.section]  # fmt: skip
        before = "unset" if self.before is None else self.before
        now = "unset" if self.now is None else self.now
        return f"{noun} {self.name} is {now}, was {before}".strip()


def _items_changed(before: str | None, now: str | None, *, versions: bool) -> str:
    """Name the items by which two lists, ``NAME VERSION, NAME VERSION``, differ; the first of them when there are many.

    Args:
        before: Of the earlier run.
        now: Today's.
        versions: What follows a name says something to people.
    """
    old, new = (Counter((text or "").split(", ")) for text in (before, now))
    gone, come = _by_name(old - new), _by_name(new - old)
    told = []
    for name in sorted(gone.keys() | come.keys()):
        was, now_is = gone.get(name), come.get(name)
        if not versions:
            told.append(f"{name} {'is new' if was is None else 'is gone' if now_is is None else 'changed'}")
        elif was is None:
            told.append(f"{name} {now_is} is new")
        else:
            told.append(f"{name} {was} is gone" if now_is is None else f"{name} is {now_is}, was {was}")
    rest = len(told) - ITEMS_TOLD_MAX
    return "; ".join(told[:ITEMS_TOLD_MAX]) + (f"; and {rest} more" if rest > 0 else "")


def _by_name(items: Counter[str]) -> dict[str, str]:
    """What follows each name; joined where a name stands more than once."""
    found: dict[str, list[str]] = {}
    for item in items.elements():
        name, _, rest = item.rpartition(" ")
        found.setdefault(name or rest, []).append(rest)
    return {name: " and ".join(sorted(rests)) for name, rests in found.items() if name not in ("", "none")}


def gap_between(surroundings: Surroundings, manifest: Manifest) -> Difference | None:
    """Return the first thing a request declares, or no longer ignores, that a manifest does not answer for."""
    gap = find_gap(surroundings, manifest)
    return None if gap is None else Difference(gap.kind, gap.name, None, gap.what)


def differences(before: Manifest, now: Manifest) -> Iterator[Difference]:
    """Give every item in which two manifests differ, what a person would look at first coming first.

    Args:
        before: Of the earlier run.
        now: The same items as they are now; see :meth:`Surroundings.redo`.
    """
    if before.command != now.command or before.cwd != now.cwd:
        yield Difference("command", "", " ".join(before.command), " ".join(now.command))
    for name in before.absent:
        if name not in now.absent:
            yield Difference("absent", name, None, "there")
    for section in _SECTIONS:
        old: Mapping[str, str | None] = getattr(before, section)
        new: Mapping[str, str | None] = getattr(now, section)
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                yield Difference(section, name, old.get(name), new.get(name))
    for name in sorted(before.seeds.keys() | now.seeds.keys()):
        if before.seeds.get(name) != now.seeds.get(name):
            yield Difference("seed", name, before.seeds.get(name), now.seeds.get(name))


_SECTIONS = (
    "code", "data", "present", "listings", "modules", "variables", "distributions", "environment", "executables",
)  # fmt: skip
