"""Keys never reach a text that is kept."""

from __future__ import annotations

import pytest

from cluster.redaction import LONGEST, redact


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("GET /query?apikey=ABC123&symbol=X failed", "GET /query?apikey=***&symbol=X failed"),
        ("https://x.io/api?symbol=X&token=abc", "https://x.io/api?symbol=X&token=***"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer ***"),
        ('{"api_key": "ABC123", "n": 1}', '{"api_key": "***", "n": 1}'),
        ("X-API-Key: ABC123", "X-API-Key: ***"),
        ("postgresql://finsight:s3cret@db:5432/x is away", "postgresql://finsight:***@db:5432/x is away"),
        ("postgres//finsight:s3c@ret@db/x", "postgres//finsight:***@db/x"),  # a URL with a slip, an @ inside
        ("?access_token=abc&client_secret=def", "?access_token=***&client_secret=***"),
        ("token: Bearer abc", "token: *** ***"),
        ("We have detected your API key as ABC123 and", "We have detected your API key as *** and"),
        ('check FINNHUB_API_KEY: {"error":"no"}', 'check FINNHUB_API_KEY: {"error":"no"}'),
        ("password={abc} failed", "password=*** failed"),  # it may begin with a bracket
        ('{"token":{"secret":"abc"}}', '{"token":{"secret":"***"}}'),
        ("the token bucket is empty", "the token bucket is empty"),  # a word is not a key
    ],
)
def test_the_value_of_a_key_becomes_stars(text: str, kept: str) -> None:
    assert redact(text) == kept


def test_a_long_text_is_cut() -> None:
    assert redact("x" * 2_000) == "x" * (LONGEST - 1) + "…"


@pytest.mark.timeout(120)  # what takes quadratic time takes far longer here
@pytest.mark.parametrize("part", ["a-", "a://b", "token ", "//a:", "bearer ", "api key as "])
def test_a_page_of_almost_secrets_is_no_more_work_than_another(part: str) -> None:
    assert len(redact(part * 100_000)) == LONGEST
