"""Keys never reach a text that is kept."""

from __future__ import annotations

import pytest

from cluster.storage.redaction import LONGEST, redact


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("GET /query?apikey=ABC123&symbol=X failed", "GET /query?apikey=***&symbol=X failed"),
        ("https://x.io/api?symbol=X&token=abc", "https://x.io/api?symbol=X&token=***"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer ***"),
        ('{"api_key": "ABC123", "n": 1}', '{"api_key": "***", "n": 1}'),
        ("X-API-Key: ABC123", "X-API-Key: ***"),
        ("postgresql://finsight:s3cret@db:5432/x is away", "postgresql://finsight:***@db:5432/x is away"),
        ("the token bucket is empty", "the token bucket is empty"),  # a word is not a key
    ],
)
def test_the_value_of_a_key_becomes_stars(text: str, kept: str) -> None:
    assert redact(text) == kept


def test_a_long_text_is_cut() -> None:
    assert redact("x" * 2_000) == "x" * (LONGEST - 1) + "…"
