from __future__ import annotations

import pytest

from cluster.backfill.missing import OPEN, Cause
from cluster.cli.gaps import in_words


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (OPEN, "open"),
        (Cause("queued", "sample"), "in the queue"),
        (Cause("given_up", None, "InvalidSymbol: no"), "given up: InvalidSymbol: no"),
        (Cause("given_up"), "given up: no reason"),
        (Cause("no_data", "sample"), "sample has none"),
        (Cause("provider_hole", "sample"), "sample has none"),
        (Cause("rejected", "sample"), "bars of sample not valid"),
    ],
)
def test_people_read_the_cause_in_words(cause: Cause, words: str) -> None:
    assert in_words(cause) == words
