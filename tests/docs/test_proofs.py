"""Every test that a page names as its proof is there."""

from __future__ import annotations

import re

import pytest

from tests.docs import pages

NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def _proofs() -> list[tuple[str, str]]:
    return sorted({found for page in pages.all_pages() for found in NAMED.findall(page.read_text())})


def test_pages_name_proofs() -> None:
    assert len(_proofs()) > 40


@pytest.mark.parametrize(("path", "name"), _proofs())
def test_a_test_that_a_page_names_is_there(path: str, name: str) -> None:
    assert re.search(rf"^ *(async )?def {name}\(", (pages.ROOT / path).read_text(), re.MULTILINE)
