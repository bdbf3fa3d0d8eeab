from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.errors import BadBars, StorageError
from cluster.market.intervals import Interval
from cluster.storage import bars
from cluster.storage.bars import WriteResult
from cluster.storage.database import Database
from tests.integration.storage.bar_tables import NOON, bar, stored, table, write
from tests.integration.storage.conftest import EMPTY

pytestmark = pytest.mark.postgres

MINUTE = timedelta(minutes=1)
ON_A_DATABASE = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


async def test_new_bars_are_inserted_with_revision_zero(database: Database) -> None:
    assert await write(database, bar("MSFT"), bar("AAPL"), bar("AAPL", NOON + MINUTE)) == WriteResult(3, 0, 0)
    assert await stored(database) == [
        ("AAPL", NOON, 10.5, 0),
        ("AAPL", NOON + MINUTE, 10.5, 0),
        ("MSFT", NOON, 10.5, 0),
    ]


async def test_writing_the_same_bars_again_touches_no_row(database: Database) -> None:
    await write(database, bar(), bar("MSFT"))
    before = await stored(database, "symbol, ctid, xmin, ingested_at, revision")
    assert await write(database, bar(), bar("MSFT")) == WriteResult(0, 0, 2)
    assert await stored(database, "symbol, ctid, xmin, ingested_at, revision") == before


async def test_only_a_changed_bar_is_revised(database: Database) -> None:
    await write(database, bar(), bar("MSFT"))
    assert await write(database, bar(close=11.0), bar("MSFT"), bar("TSLA")) == WriteResult(1, 1, 1)
    assert await stored(database) == [
        ("AAPL", NOON, 11.0, 1),
        ("MSFT", NOON, 10.5, 0),
        ("TSLA", NOON, 10.5, 0),
    ]


@pytest.mark.parametrize(
    "change",
    [{"open": 9.5}, {"high": 13.0}, {"low": 8.0}, {"close": 11.0}, {"volume": 101.0}, {"trade_count": 8}],
    ids=lambda change: next(iter(change)),
)
async def test_every_value_counts_as_a_revision(database: Database, change: dict[str, Any]) -> None:
    await write(database, bar())
    assert await write(database, bar(**change)) == WriteResult(0, 1, 0)
    name, value = next(iter(change.items()))
    assert await stored(database, f"{name}, revision") == [(value, 1)]


async def test_each_revision_is_counted(database: Database) -> None:
    for close in (10.5, 11.0, 10.5, 10.5, 11.5):
        await write(database, bar(close=close))
    assert await stored(database) == [("AAPL", NOON, 11.5, 3)]


async def test_two_writes_of_one_transaction_see_each_other(database: Database) -> None:
    async with database.transaction() as connection:
        first = await bars.write(connection, table(bar()))
        second = await bars.write(connection, table(bar(close=11.0)))
        third = await bars.write(connection, table(bar(close=12.0)))
    assert (first, second, third) == (WriteResult(1, 0, 0), WriteResult(0, 1, 0), WriteResult(0, 1, 0))


async def test_a_final_bar_replaces_one_that_is_not(database: Database) -> None:
    await write(database, bar(is_final=False))
    assert await write(database, bar()) == WriteResult(0, 1, 0)
    assert await stored(database, "is_final, revision") == [(True, 1)]


async def test_a_bar_that_is_not_final_never_replaces_a_final_one(database: Database) -> None:
    await write(database, bar())
    assert await write(database, bar(close=11.0, is_final=False)) == WriteResult(0, 0, 1)
    assert await stored(database) == [("AAPL", NOON, 10.5, 0)]


async def test_a_slow_answer_does_not_undo_what_was_stored_since_it_was_asked_for(database: Database) -> None:
    await write(database, bar(), bar("MSFT"))
    asked_at = await database.pool.fetchval("SELECT clock_timestamp()")
    await write(database, bar(close=11.0))  # a correction that came while the other provider thought
    slow = [bar(), bar("MSFT", close=11.5), bar("TSLA")]

    assert await write(database, *slow, asked_at=asked_at) == WriteResult(1, 1, 1)
    assert await stored(database, "symbol, close") == [("AAPL", 11.0), ("MSFT", 11.5), ("TSLA", 10.5)]

    now = await database.pool.fetchval("SELECT clock_timestamp()")
    assert await write(database, *slow, asked_at=now) == WriteResult(0, 1, 2)


async def test_a_slow_answer_makes_a_bar_final_all_the_same(database: Database) -> None:
    asked_at = await database.pool.fetchval("SELECT clock_timestamp()")
    await write(database, bar(is_final=False, close=11.0))
    assert await write(database, bar(), asked_at=asked_at) == WriteResult(0, 1, 0)
    assert await stored(database, "close, is_final") == [(10.5, True)]


async def test_an_unknown_volume_does_not_erase_a_known_one(database: Database) -> None:
    await write(database, bar())
    assert await write(database, bar(volume=None, trade_count=None)) == WriteResult(0, 0, 1)
    assert await stored(database, "volume, trade_count") == [(100.0, 7)]


async def test_new_prices_with_an_unknown_volume_leave_a_known_one_as_it_is(database: Database) -> None:
    await write(database, bar())
    assert await write(database, bar(close=11.0, volume=None, trade_count=None)) == WriteResult(0, 1, 0)
    assert await stored(database, "close, volume, trade_count") == [(11.0, 100.0, 7)]


async def test_what_a_running_bar_had_so_far_is_not_the_volume_that_it_ended_with(database: Database) -> None:
    await write(database, bar(is_final=False))
    await write(database, bar(close=11.0, volume=None, trade_count=None))
    assert await stored(database, "volume, trade_count, is_final") == [(None, None, True)]


async def test_a_volume_that_becomes_known_is_a_revision(database: Database) -> None:
    await write(database, bar(volume=None, trade_count=None))
    assert await stored(database, "volume, trade_count") == [(None, None)]
    assert await write(database, bar()) == WriteResult(0, 1, 0)


async def test_the_same_values_from_another_source_change_nothing(database: Database) -> None:
    await write(database, bar())
    assert await write(database, bar(source="sample")) == WriteResult(0, 0, 1)
    assert await stored(database, "source") == [("synthetic",)]


async def test_other_values_bring_their_source_along(database: Database) -> None:
    await write(database, bar())
    await write(database, bar(close=11.0, source="sample"))
    assert await stored(database, "source, close") == [("sample", 11.0)]


async def test_of_bars_with_the_same_key_the_last_one_wins(database: Database) -> None:
    assert await write(database, bar(close=11.0), bar("MSFT"), bar(close=11.5)) == WriteResult(2, 0, 0)
    assert await stored(database) == [("AAPL", NOON, 11.5, 0), ("MSFT", NOON, 10.5, 0)]


async def test_of_bars_with_the_same_key_a_final_one_wins(database: Database) -> None:
    await write(database, bar(close=11.0), bar(close=11.5, is_final=False))
    assert await stored(database) == [("AAPL", NOON, 11.0, 0)]


async def test_an_empty_table_writes_nothing(database: Database) -> None:
    assert await write(database) == WriteResult(0, 0, 0)


async def test_daily_and_intraday_bars_of_one_table_go_to_their_tables(database: Database) -> None:
    daily = datetime(2025, 10, 8, 13, 30, tzinfo=UTC)
    await write(database, bar(), bar(interval="1h"), bar(ts=daily, interval="1d"))
    assert await stored(database, "interval, ts") == [("1h", NOON), ("1m", NOON)]
    assert [tuple(row) for row in await database.pool.fetch("SELECT interval, ts FROM candles_daily")] == [
        ("1d", daily)
    ]


async def test_a_bar_lies_in_the_partition_of_its_month(database: Database) -> None:
    midnight = datetime(2025, 11, 1, tzinfo=UTC)
    await write(database, bar(ts=midnight - MINUTE), bar(ts=midnight))
    assert await stored(database, "ts, tableoid::regclass::text") == [
        (midnight - MINUTE, "candles_intraday_1m_2025_10"),
        (midnight, "candles_intraday_1m_2025_11"),
    ]


@pytest.mark.parametrize(
    ("interval", "ts", "partition", "starts", "ends"),
    [
        ("1m", "2025-12-31 23:59Z", "candles_intraday_1m_2025_12", "2025-12-01", "2026-01-01"),
        ("1h", "2024-02-29 00:00Z", "candles_intraday_1h_2024", "2024-01-01", "2025-01-01"),
        ("1d", "1999-12-31 14:30Z", "candles_daily_1990", "1990-01-01", "2000-01-01"),
        ("1d", "2000-01-01 00:00Z", "candles_daily_2000", "2000-01-01", "2010-01-01"),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland"])
async def test_partitions_are_cut_in_utc(
    database: Database, interval: str, ts: str, partition: str, starts: str, ends: str, zone: str
) -> None:
    async with database.transaction() as connection:
        await connection.execute(f"SET LOCAL timezone = '{zone}'")
        row = await connection.fetchrow(
            "SELECT name, starts, ends FROM candle_partition($1, $2)", interval, datetime.fromisoformat(ts)
        )
    assert row is not None
    assert row["name"] == partition
    assert [row["starts"].date().isoformat(), row["ends"].date().isoformat()] == [starts, ends]


async def test_a_rolled_back_write_leaves_nothing(database: Database) -> None:
    async with database.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await bars.write(connection, table(bar()))
        await transaction.rollback()
    assert await stored(database) == []
    assert await database.pool.fetchval("SELECT to_regclass('candles_intraday_1m_2025_10')") is None


async def test_concurrent_writers_of_the_same_bars_end_in_one_row_each(database: Database) -> None:
    minutes = [bar(symbol, NOON + n * MINUTE) for symbol in ("AAPL", "MSFT") for n in range(200)]
    results = await asyncio.gather(*(write(database, *minutes) for _ in range(6)))
    assert sum(result.inserted for result in results) == 400
    assert sum(result.unchanged for result in results) == 5 * 400
    assert len(await stored(database)) == 400


async def test_concurrent_revisions_are_all_counted(database: Database) -> None:
    await write(database, bar())
    closes = [9.5, 10.0, 11.0, 11.5, 12.0]
    results = await asyncio.gather(*(write(database, bar(close=close)) for close in closes))
    assert results == [WriteResult(0, 1, 0)] * 5
    assert await stored(database, "revision") == [(5,)]


async def test_concurrent_writers_make_a_missing_partition_once(database: Database) -> None:
    symbols = [f"S{n}" for n in range(12)]
    for month in range(1, 7):
        first = datetime(2025, month, 1, tzinfo=UTC)
        await asyncio.gather(*(write(database, bar(symbol, first)) for symbol in symbols))
    assert len(await stored(database)) == 6 * 12


async def test_a_writer_that_takes_no_lock_makes_the_write_fail_clearly(database: Database) -> None:
    await write(database, bar("MSFT"))  # makes the partition
    async with database.pool.acquire() as other:
        transaction = other.transaction()
        await transaction.start()
        await other.execute(
            "INSERT INTO candles_intraday (symbol, interval, ts, open, high, low, close, source) "
            "VALUES ('AAPL', '1m', $1, 1, 1, 1, 1, 'by hand')",
            NOON,
        )
        writing = asyncio.create_task(write(database, bar()))
        await _someone_waits_for_a_transaction(database)
        await transaction.commit()
        with pytest.raises(StorageError, match="another program wrote the same bars"):
            await writing


async def _someone_waits_for_a_transaction(database: Database) -> None:
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted"
    async with asyncio.timeout(30):
        while not await database.pool.fetchval(waiting):  # noqa: ASYNC110 (nothing tells us)
            await asyncio.sleep(0.01)


async def test_a_write_outside_a_transaction_is_refused(database: Database) -> None:
    async with database.connection() as connection:
        with pytest.raises(StorageError, match="needs a transaction"):
            await bars.write(connection, table(bar()))


IMPOSSIBLE = {
    "NaN close": {"close": float("nan")},
    "NaN high": {"high": float("nan")},
    "NaN low": {"low": float("nan")},
    "infinite high": {"high": float("inf")},
    "close above high": {"close": 12.5},
    "open below low": {"open": 8.5},
    "low of zero": {"low": 0.0},
    "negative volume": {"volume": -1.0},
    "NaN volume": {"volume": float("nan")},
    "infinite volume": {"volume": float("inf")},
    "negative trade count": {"trade_count": -1},
    "long source": {"source": "x" * 25},
    "source beyond ASCII": {"source": "börse"},
    "empty source": {"source": ""},
}


@pytest.mark.parametrize("change", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
async def test_an_impossible_bar_is_refused(database: Database, change: dict[str, Any]) -> None:
    with pytest.raises(BadBars):
        await write(database, bar("MSFT"), bar(**change))
    assert await stored(database) == []


@pytest.mark.parametrize("change", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
async def test_the_database_itself_refuses_an_impossible_bar(
    database: Database, change: dict[str, Any]
) -> None:
    await write(database, bar("MSFT"))  # makes the partition
    row = bar(**change)
    places = ", ".join(f"${n + 1}" for n in range(len(row)))
    with pytest.raises(asyncpg.CheckViolationError):
        await database.pool.execute(
            f"INSERT INTO candles_intraday ({', '.join(row)}) VALUES ({places})", *row.values()
        )


async def test_a_revision_to_an_impossible_bar_is_refused(database: Database) -> None:
    await write(database, bar())
    with pytest.raises(BadBars, match="prices_in_order"):
        await write(database, bar(close=float("nan")))
    assert await stored(database) == [("AAPL", NOON, 10.5, 0)]


@pytest.mark.parametrize(
    ("given_table", "message"),
    [
        (table(bar()).drop_columns(["close"]), r"lack the column\(s\) close"),
        (table(bar(interval="7m")), "interval '7m' is unknown; expected one of 1m, 5m"),
        (table(bar(symbol="")), "symbol or source is empty"),
        (table(bar() | {"symbol": None}), "'symbol' with null values"),
        (table(bar()).set_column(3, "open", pa.array(["ten"])), "not of the types of BAR_SCHEMA"),
    ],
)
async def test_a_table_that_is_not_of_bars_is_refused(
    database: Database, given_table: pa.Table, message: str
) -> None:
    async with database.transaction() as connection:
        with pytest.raises(BadBars, match=message):
            await bars.write(connection, given_table)


PRICES = st.floats(min_value=1e-6, max_value=1e6, allow_subnormal=False)
SYMBOLS = st.sampled_from(["F", "AAPL", "BTC-USD", "^GSPC"])
SOURCES = st.sampled_from(["sample", "synthetic", "a"])


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    low, one, two, high = sorted(draw(st.lists(PRICES, min_size=4, max_size=4)))
    return bar(
        draw(SYMBOLS),
        # Minutes around the end of a month, so that two partitions and a long hole are in play.
        datetime(2025, 10, 31, 23, 57, tzinfo=UTC)
        + draw(st.integers(0, 5) | st.integers(1_000, 1_002)) * MINUTE,
        two,
        open=one,
        high=high,
        low=low,
        volume=draw(st.none() | st.floats(0, 1e12)),
        trade_count=draw(st.none() | st.integers(0, 2**62)),
        source=draw(SOURCES),
        is_final=draw(st.booleans()),
        aligned=draw(st.booleans()),
    )


def apply(model: dict[tuple[str, datetime], dict[str, Any]], row: dict[str, Any]) -> None:
    """What a write of one bar does, in the plainest words."""
    key = (row["symbol"], row["ts"])
    old = model.get(key)
    if old is None:
        model[key] = row | {"revision": 0}
        return
    names = ("open", "high", "low", "close", "is_final")
    differs = any(row[name] != old[name] for name in names) or any(
        row[name] is not None and row[name] != old[name] for name in ("volume", "trade_count")
    )
    if differs and (row["is_final"] or not old["is_final"]):
        keeps = [name for name in ("volume", "trade_count") if row[name] is None]
        kept = {name: old[name] for name in keeps if row["is_final"] == old["is_final"]}
        model[key] = row | kept | {"revision": old["revision"] + 1}


@ON_A_DATABASE
@given(
    pages=st.lists(
        st.lists(rows(), max_size=12, unique_by=lambda row: (row["symbol"], row["ts"])), max_size=4
    )
)
async def test_any_sequence_of_writes_ends_as_if_bars_came_one_by_one(
    database: Database, pages: list[list[dict[str, Any]]]
) -> None:
    await database.pool.execute("TRUNCATE candles_intraday")
    model: dict[tuple[str, datetime], dict[str, Any]] = {}
    for page in pages:
        before = len(model), sum(row["revision"] for row in model.values())
        for row in page:
            apply(model, row)
        after = len(model), sum(row["revision"] for row in model.values())
        inserted, revised = after[0] - before[0], after[1] - before[1]
        assert await write(database, *page) == WriteResult(inserted, revised, len(page) - inserted - revised)
    found = await bars.read_many(database, ["F", "AAPL", "BTC-USD", "^GSPC"], Interval.M1)
    assert found.drop_columns(["ingested_at"]).to_pylist() == [model[key] for key in sorted(model)]


async def test_writers_of_several_intervals_in_any_order_do_not_deadlock(database: Database) -> None:
    intervals = ("1m", "5m", "15m", "30m", "1h")

    async def rows(shift: int) -> WriteResult:
        turned = intervals[shift:] + intervals[:shift]
        return await write(
            database, *(bar(symbol, interval=one) for one in turned for symbol in ("AAPL", "MSFT"))
        )

    for _ in range(5):
        await database.pool.execute(EMPTY)
        results = await asyncio.gather(*(rows(shift % 5) for shift in range(15)))
        assert sum(result.inserted for result in results) == 10
