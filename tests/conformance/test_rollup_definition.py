"""Rollups of any bars, late, revised and deleted ones, are those of the definition."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.storage import session_hours
from cluster.storage.database import Database
from tests.conformance import rollup_reference as reference
from tests.conformance.candle_tables import NOW, add, empty, minute, rolled, rows, settle
from tests.integration.storage.bar_tables import write

pytestmark = pytest.mark.postgres

moments = st.builds(
    lambda day, at: datetime(2025, 3, 7, tzinfo=UTC) + timedelta(days=day, minutes=at),
    st.integers(0, 3),  # the clocks of New York change in between
    st.one_of(st.integers(0, 1_439), st.integers(805, 875), st.integers(1_190, 1_270)),
)


values = st.tuples(
    st.sampled_from(["AAPL", "BTC"]),
    moments,
    st.integers(1, 9).map(float),
    st.none() | st.floats(0, 1e6).map(lambda volume: round(volume, 4)),
)


CALENDARS = {"AAPL": "XNYS", "BTC": "24/7"}


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    first=st.lists(values, max_size=40),
    second=st.lists(values, max_size=10),
    gone=st.sets(moments, max_size=5),
)
async def test_rollups_are_those_of_the_definition(
    database: Database, first: list[Any], second: list[Any], gone: set[datetime]
) -> None:
    await empty(database)
    for symbol, calendar in CALENDARS.items():
        await add(database, symbol, calendar)
    await session_hours.align(database, NOW)
    expected: dict[Any, dict[str, Any]] = {}
    for batch in (first, second):
        made = [minute(ts, price, volume, symbol=symbol) for symbol, ts, price, volume in batch]
        await write(database, *made)
        await settle(database)
        given = {(row["symbol"], row["ts"]): row for row in made}  # of several the last one wins
        for key, row in given.items():
            known = expected.get(key)
            if known is None or row["volume"] is not None or row["close"] != known["close"]:
                expected[key] = row  # what only leaves the volume unknown changes nothing
    await database.pool.execute("DELETE FROM candles_intraday WHERE ts = ANY($1)", list(gone))
    await settle(database)
    left = [row for (_, ts), row in expected.items() if ts not in gone]
    assert await rolled(database, "candles_5m") == reference.rolled(left, reference.five_minutes)
    hours = {symbol: reference.hour_of(calendar) for symbol, calendar in CALENDARS.items()}
    assert await rolled(database, "candles_1h") == reference.rolled(
        left, lambda row: hours[row["symbol"]](row)
    )
    total = sum(row["volume"] for row in left if row["volume"] is not None)
    for view in ("candles_5m", "candles_1h"):
        ((summed,),) = await rows(database, f"SELECT coalesce(sum(volume), 0) FROM {view}")
        assert summed == pytest.approx(total)
