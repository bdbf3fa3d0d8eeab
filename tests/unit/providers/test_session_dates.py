"""Three providers label a day in three ways, and mean the same session."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cluster.market.intervals import Interval
from cluster.providers import alpha_vantage_wire, finnhub_wire
from cluster.providers.yahoo_bars import raw_bars
from cluster.providers.yahoo_wire import parse_chart
from tests.services.yahoo import document, flat

NOW = datetime(2025, 6, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("day", "midnight", "session_open"),
    [
        ("2024-07-02", "2024-07-02T04:00", "2024-07-02T13:30"),  # summer
        ("2024-01-16", "2024-01-16T05:00", "2024-01-16T14:30"),  # winter
        ("2023-07-03", "2023-07-03T04:00", "2023-07-03T13:30"),  # a half day
    ],
)
def test_a_day_is_the_same_session_whoever_tells_it(day: str, midnight: str, session_open: str) -> None:
    opened = datetime.fromisoformat(session_open).replace(tzinfo=UTC)
    chart = parse_chart(document("AAPL", "1d", [flat(session_open, 10.0)]), "AAPL", Interval.D1)
    assert chart is not None
    row = {"1. open": "10", "2. high": "10", "3. low": "10", "4. close": "10", "5. volume": "100"}
    series = {"Meta Data": {"2. Symbol": "AAPL"}, "Time Series (Daily)": {day: row}}
    at = int(datetime.fromisoformat(midnight).replace(tzinfo=UTC).timestamp())
    candles = {"s": "ok", "t": [at], **{name: [10.0] for name in "ohlcv"}}
    tables = [
        raw_bars(chart, Interval.D1, [], NOW),
        alpha_vantage_wire.parse_daily(series, "AAPL", NOW),
        finnhub_wire.parse_candles(candles, "AAPL", Interval.D1, NOW),
    ]
    assert [table["ts"].to_pylist() for table in tables] == [[opened]] * 3
