"""The pages hang together: one title each, links that lead somewhere, and an index that misses none."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
ROOT_PAGES = sorted(ROOT.glob("*.md"))
PAGES = sorted(DOCS.rglob("*.md"))
DOCUMENTS = [*ROOT_PAGES, *PAGES]
FOLDERS = ("tutorial", "how-to", "reference", "explanation", "decisions")
FENCED = re.compile(r"^(?P<ticks>`{3,}).*?^(?P=ticks)\s*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)|!\[[^\]]*\]\((?P<image>[^)\s]+)\)")


def prose_of(path: Path) -> str:
    """The text of a page without its fenced blocks."""
    return FENCED.sub("", path.read_text(encoding="utf-8"))


def headings_of(path: Path) -> list[tuple[int, str]]:
    """Level and text of every heading."""
    found = re.findall(r"^(#{1,6}) +(.+?) *$", prose_of(path), re.MULTILINE)
    return [(len(marks), text) for marks, text in found]


def anchors_of(path: Path) -> set[str]:
    """The anchors of a page's headings, as the site and code hosts derive them."""
    plain = (re.sub(r"[^\w\- ]", "", text.lower()) for _, text in headings_of(path))
    return {re.sub(r" +", "-", text.strip()) for text in plain}


def links_of(path: Path) -> list[str]:
    """Targets of the links and images of a page that stay within the project."""
    text = CODE.sub("", prose_of(path))
    targets = [found["target"] or found["image"] for found in LINK.finditer(text)]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_documents_a_newcomer_looks_for_are_there() -> None:
    wanted = {"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"}
    assert wanted <= {path.name for path in ROOT.iterdir()}
    assert all((DOCS / folder / "index.md").is_file() for folder in FOLDERS)


@pytest.mark.parametrize("page", DOCUMENTS, ids=name_of)
def test_a_page_starts_with_its_only_title(page: Path) -> None:
    titles = [text for level, text in headings_of(page) if level == 1]
    assert len(titles) == 1, f"{name_of(page)} has these titles: {titles}"
    assert page.read_text(encoding="utf-8").startswith("# "), f"{name_of(page)} does not start with its title"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_file_name_carries_the_title(page: Path) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*\.md", page.name), "lower case, words joined by hyphens"
    title = headings_of(page)[0][1].lower()
    words = set(re.findall(r"[a-z0-9]+", title))
    named = {word for word in page.stem.split("-") if not word.isdecimal() and word != "index"}
    assert named <= words, f"{name_of(page)} is titled {title!r}, which lacks {sorted(named - words)}"


@pytest.mark.parametrize("page", DOCUMENTS, ids=name_of)
def test_headings_do_not_skip_a_level(page: Path) -> None:
    levels = [level for level, _ in headings_of(page)]
    jumps = [(before, after) for before, after in pairwise(levels) if after > before + 1]
    assert not jumps, f"{name_of(page)} jumps between heading levels: {jumps}"


@pytest.mark.parametrize("page", DOCUMENTS, ids=name_of)
def test_relative_links_lead_somewhere(page: Path) -> None:
    dead = []
    for link in links_of(page):
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors_of(path)):
            dead.append(link)
    assert not dead, f"{name_of(page)} links to nothing with {dead}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_of_the_site_link_within_the_site(page: Path) -> None:
    outside = [
        link
        for link in links_of(page)
        if link.partition("#")[0]
        and not (page.parent / link.partition("#")[0]).resolve().is_relative_to(DOCS)
    ]
    assert not outside, f"{name_of(page)} links to files that the site does not have: {outside}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_an_index_names_every_page_of_its_folder(folder: str) -> None:
    index = DOCS / folder / "index.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in links_of(index)}
    forgotten = [page.name for page in (DOCS / folder).glob("*.md") if page != index and page not in linked]
    assert not forgotten, f"{name_of(index)} does not link to {forgotten}"


def test_decisions_are_numbered_without_a_gap() -> None:
    numbers = sorted(int(page.name[:4]) for page in (DOCS / "decisions").glob("[0-9]*.md"))
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("page", sorted((DOCS / "decisions").glob("[0-9]*.md")), ids=name_of)
def test_a_decision_has_its_stations(page: Path) -> None:
    sections = [text for level, text in headings_of(page) if level == 2]
    assert sections == ["Question", "Decision", "What else was weighed", "What follows"]
