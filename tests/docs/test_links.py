"""What the documentation points to is there."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, prose

LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
CODE = re.compile(r"`([^`]+)`")
REPOSITORY_PATH = re.compile(r"(pydotcompute|server|client|proto|docs|tests|examples|benchmarks|docker|\.ci)/[\w./-]*")

FRAGMENTS = sorted((ROOT / "changelog.d").glob("*.*.md"))
"""They become a part of CHANGELOG.md, and so their links begin at the root."""

each_page = pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for _, line in prose(page):
        if line.startswith("#"):
            text = re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower()).replace(" ", "-")
            count = sum(1 for other in found if re.fullmatch(rf"{re.escape(text)}(-\d+)?", other))
            found.add(f"{text}-{count}" if count else text)
    return found


@each_page
def test_every_link_leads_to_a_file_and_a_heading_that_exist(page: Path) -> None:
    broken = []
    for number, line in prose(page):
        for link in LINK.finditer(CODE.sub("", line)):
            target, _, anchor = link["target"].partition("#")
            if target.startswith(("http://", "https://")):
                continue
            file = (page.parent / target).resolve() if target else page
            if not file.exists() or not file.is_relative_to(ROOT) or (anchor and anchor not in anchors(file)):
                broken.append(f"{number}: {link['target']}")
    assert not broken


@each_page
def test_every_path_of_the_repository_that_is_named_exists(page: Path) -> None:
    named = {path for _, line in prose(page) for path in CODE.findall(line) if REPOSITORY_PATH.fullmatch(path)}
    assert not {path for path in named if not (ROOT / path).exists()}


@pytest.mark.parametrize("fragment", [pytest.param(path, id=path.name) for path in FRAGMENTS])
def test_every_link_of_a_fragment_of_the_changelog_leads_to_a_file(fragment: Path) -> None:
    targets = [link["target"].partition("#")[0] for link in LINK.finditer(CODE.sub("", fragment.read_text()))]
    assert [target for target in targets if "://" not in target and not (ROOT / target).exists()] == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        for _, line in prose(page):
            targets = [link["target"].partition("#")[0] for link in LINK.finditer(CODE.sub("", line))]
            waiting += [
                (page.parent / target).resolve() for target in targets if target.endswith(".md") and ":" not in target
            ]
    assert set(PAGES) == reached
