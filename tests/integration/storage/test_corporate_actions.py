"""Corporate actions in PostgreSQL, and bars that are read with them applied."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import InputError, NotEnoughHistory
from cluster.market import bars as market_bars
from cluster.market import calendars
from cluster.market.adjustments import Adjusted, CorporateAction, Kind
from cluster.market.intervals import Interval
from cluster.storage import bars, corporate_actions
from cluster.storage.bars import WriteResult
from cluster.storage.database import Database

pytestmark = pytest.mark.postgres


def action(day: str, kind: Kind, value: float, source: str = "yahoo") -> CorporateAction:
    return CorporateAction("AAPL", date.fromisoformat(day), kind, value, source)


async def store(database: Database, *actions: CorporateAction) -> WriteResult:
    async with database.transaction() as connection:
        return await corporate_actions.write(connection, actions)


async def store_days(database: Database, first: str, closes: list[float]) -> None:
    start = datetime.fromisoformat(first).replace(tzinfo=UTC)
    opens = calendars.sessions("XNYS", start, datetime(2026, 1, 1, tzinfo=UTC)).opens[: len(closes)]
    volume = np.full(len(closes), 100.0)
    table = market_bars.from_columns(
        "AAPL", Interval.D1, opens, closes, closes, closes, closes, volume, source="sample"
    )
    async with database.transaction() as connection:
        await bars.write(connection, table)


async def stored(database: Database) -> pa.Table:
    return await bars.read(database, "AAPL", Interval.D1)


async def test_the_same_action_twice_is_one_and_a_new_value_is_a_revision(database: Database) -> None:
    assert await store(database, action("2020-08-31", "split", 4)) == WriteResult(1, 0, 0)
    assert await store(database, action("2020-08-31", "split", 4)) == WriteResult(0, 0, 1)
    assert await store(database, action("2020-08-31", "split", 5)) == WriteResult(0, 1, 0)
    assert await corporate_actions.read(database, "AAPL") == [action("2020-08-31", "split", 5)]
    async with database.connection() as connection:
        row = await connection.fetchrow(
            "SELECT revision, seen_at <= updated_at AS kept FROM corporate_actions"
        )
    assert row is not None
    assert dict(row) == {"revision": 1, "kept": True}


async def test_nothing_to_write_is_nothing_done(database: Database) -> None:
    assert await store(database) == WriteResult(0, 0, 0)


async def test_what_two_sources_tell_is_applied_once(database: Database) -> None:
    told = [action("2020-08-31", "split", 4, name) for name in ("alpha_vantage", "yahoo")]
    await store(database, *told)
    assert await corporate_actions.read(database, "AAPL") == [told[0]]
    assert await corporate_actions.read(database, "AAPL", prefer=["yahoo"]) == [told[1]]


async def test_a_wrong_action_can_be_taken_out(database: Database) -> None:
    await store(database, action("2020-08-31", "split", 4))
    day = date(2020, 8, 31)
    assert await corporate_actions.delete(database, "AAPL", day, "split", "yahoo")
    assert not await corporate_actions.delete(database, "AAPL", day, "split", "yahoo")
    assert await corporate_actions.read(database, "AAPL") == []


async def test_bars_are_adjusted_on_read_and_stay_raw_in_the_table(database: Database) -> None:
    # 27, 28 and 31 August 2020; a dividend of 0.82 on 7 August lies before them.
    await store_days(database, "2020-08-27", [500.04, 499.23, 129.04])
    await store(database, action("2020-08-31", "split", 4), action("2020-08-07", "dividend", 0.82))
    raw = await stored(database)
    seen = await corporate_actions.adjusted(database, raw, "XNYS", Adjusted.ALL)
    assert seen["close"].to_pylist() == pytest.approx([125.01, 124.8075, 129.04], abs=1e-12)
    assert seen["volume"].to_pylist() == [400, 400, 100]
    assert seen["revision"].to_pylist() == [0, 0, 0]
    assert (await stored(database)).equals(raw)
    assert await corporate_actions.adjusted(database, raw, "XNYS", Adjusted.NONE) is raw


async def test_a_dividend_is_measured_by_the_stored_close_before_it_also_when_that_was_not_asked_for(
    database: Database,
) -> None:
    # 3, 4 and 5 June 2024; ex-date the 5th, the close before it is 100: 50 * (1 - 2/100) = 49
    await store_days(database, "2024-06-03", [50.0, 100.0, 99.0])
    await store(database, action("2024-06-05", "dividend", 2))
    first = (await stored(database)).slice(0, 1)
    seen = await corporate_actions.adjusted(database, first, "XNYS", Adjusted.ALL)
    assert seen["close"].to_pylist() == pytest.approx([49.0])
    before = datetime(2024, 6, 4, tzinfo=UTC)
    same = await corporate_actions.adjusted(database, first, "XNYS", Adjusted.ALL, as_of=before)
    assert same["close"].to_pylist() == [50.0]


async def test_a_close_from_long_before_the_dividend_is_none(database: Database) -> None:
    await store_days(database, "2024-06-03", [50.0])
    await store(database, action("2024-07-05", "dividend", 2))
    with pytest.raises(NotEnoughHistory, match="no bar of the ten days before it"):
        await corporate_actions.adjusted(database, await stored(database), "XNYS", Adjusted.ALL)


async def test_bars_of_two_symbols_are_not_adjusted_at_once(database: Database) -> None:
    await store_days(database, "2024-06-03", [50.0])
    raw = await stored(database)
    other = raw.set_column(0, raw.schema.field("symbol"), pa.array(["MSFT"]))
    with pytest.raises(InputError, match="one symbol at a time; given 2"):
        await corporate_actions.adjusted(database, pa.concat_tables([raw, other]), "XNYS", Adjusted.ALL)
