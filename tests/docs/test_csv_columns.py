"""The page on importing symbols names the columns that are read."""

from __future__ import annotations

from cluster.market.universe_csv import OPTIONAL, REQUIRED, parse
from tests.docs import pages

PAGE = pages.DOCS / "how-to" / "import-symbols.md"


def test_the_documented_columns_are_those_that_are_read() -> None:
    rows = pages.rows_of(pages.section(PAGE, "The file"))
    names = [name.strip("` ") for row in rows for name in row[0].split(",")]
    assert tuple(names) == REQUIRED + OPTIONAL


def test_the_documented_file_can_be_read() -> None:
    (text,) = [text for language, text in pages.code_blocks(PAGE) if language == "csv"]
    apple, bitcoin = parse(text.splitlines(keepends=True)).instruments
    assert (apple.tier, apple.adv_21d, bitcoin.calendar) == ("T0", 5e7, "24/7")
