"""Every link of the documentation leads somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import pages


@pytest.mark.parametrize("page", pages.all_pages(), ids=lambda page: str(page.relative_to(pages.ROOT)))
def test_links_of_the_page_resolve(page: Path) -> None:
    broken = [link for link in pages.links(page) if "://" not in link and not _leads_somewhere(page, link)]
    assert broken == []


def _leads_somewhere(page: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    if not target.exists():
        return False
    return not anchor or (target.suffix == ".md" and anchor in pages.anchors(target))


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, ahead = set[Path](), [pages.ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page not in reached:
            reached.add(page)
            names = [link.partition("#")[0] for link in pages.links(page) if "://" not in link]
            ahead += [path for name in names if (path := (page.parent / name).resolve()).suffix == ".md"]
    assert sorted(set(pages.all_pages()) - reached) == []


def test_a_broken_link_and_a_broken_anchor_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A title, in `code`\n\n[ok](#a-title-in-code) [gone](other.md) [lost](#nowhere)\n")
    assert [_leads_somewhere(page, link) for link in pages.links(page)] == [True, False, False]
