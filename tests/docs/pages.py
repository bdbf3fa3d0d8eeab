"""The Markdown pages: where they are, their generated blocks, tables, headings, links and code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"

_FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


def all_pages() -> list[Path]:
    """Every page of the documentation, and those in the root folder."""
    return sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])


def block(page: Path, name: str) -> str:
    """The text between the marks of the generated block `name`."""
    begin, end = _marks(name)
    found = re.search(f"{re.escape(begin)}\n(.*?)\n{re.escape(end)}", page.read_text(), re.DOTALL)
    assert found is not None, f"{page.relative_to(ROOT)} has no block {begin} ... {end}"
    return found[1]


def replace_block(page: Path, name: str, text: str) -> None:
    """Put `text` between the marks of the generated block `name`."""
    old = block(page, name)
    begin, end = _marks(name)
    page.write_text(page.read_text().replace(f"{begin}\n{old}\n{end}", f"{begin}\n{text}\n{end}"))


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- generated: {name} -->", f"<!-- end of {name} -->"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def rows_of(text: str) -> list[list[str]]:
    """Cells of all table rows in `text`, without headers; backticks are taken off."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    tables = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    rulers = [number for number, row in enumerate(tables) if set(row[0]) == {"-"}]
    headers = {number - 1 for number in rulers}
    return [row for number, row in enumerate(tables) if number not in headers and number not in rulers]


def section(page: Path, heading: str) -> str:
    """The text below the heading `## heading`, up to the next one of its level."""
    text = page.read_text()
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page.relative_to(ROOT)} has no section {heading!r}"
    return found[1]


def code_blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of every fenced block."""
    return [(match[2], match[3]) for match in _FENCED.finditer(page.read_text())]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCED.sub("", page.read_text())


def links(page: Path) -> list[str]:
    """Targets of all links."""
    return _LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """What can stand behind `#` in a link to the page, by the rule that forges use."""
    return {_anchor(heading) for heading in _HEADING.findall(prose(page))}


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
