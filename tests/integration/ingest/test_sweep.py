"""Looks for new bars, against a real database and providers that lie, fail and disagree."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster import metrics
from cluster.clock import FakeClock
from cluster.ingest.cadence import Cadence
from cluster.market import bars as market_bars
from cluster.market.intervals import Interval
from cluster.providers.sample import SampleProvider
from cluster.providers.synthetic import Hole, Outage, Revision, SyntheticProvider
from cluster.storage import bars as stored_bars
from cluster.storage import universe
from cluster.storage.database import Database
from tests.integration.ingest.market import (
    LIVE,
    M1,
    MINUTES,
    Named,
    Together,
    at,
    look,
    stored,
    sweeper,
    truth,
    watch,
)

pytestmark = pytest.mark.postgres


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(at(0, 0.5))


def counted(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


async def test_the_bar_that_has_just_closed_is_stored_of_every_symbol(
    database: Database, clock: FakeClock
) -> None:
    names = [f"SYN{number:04d}" for number in range(1, 8)]
    await watch(database, *names)
    one = sweeper(database, clock, SyntheticProvider(clock=clock), batch=3)
    first = await look(one, clock)
    assert (first.symbols, first.idle, first.unserved, first.failed, first.bars) == (7, 0, 0, 0, 63)
    clock.advance(60)
    second = await look(one, clock)
    assert (second.symbols, second.idle, second.bars) == (7, 0, 7)
    assert (second.lag_p50_s, second.lag_p99_s) == (0.5, 0.5)
    for name in names:
        found = (await stored_bars.read(database, name, M1)).select(market_bars.BAR_SCHEMA.names)
        assert found.equals((await truth(name, "synthetic", at(-9), at(1))).cast(market_bars.BAR_SCHEMA))


async def test_a_second_look_in_the_same_minute_asks_nobody(database: Database, clock: FakeClock) -> None:
    await watch(database, "SYN0001")
    provider = Named("a", clock)
    one = sweeper(database, clock, provider)
    await look(one, clock)
    clock.advance(20)
    again = await look(one, clock)
    assert (again.idle, again.bars, len(provider.asked)) == (1, 0, 1)
    assert again.lag_p99_s == 0.5  # still that of the newest bar


async def test_another_collector_goes_on_from_what_the_database_has(
    database: Database, clock: FakeClock
) -> None:
    await watch(database, "SYN0001")
    await look(sweeper(database, clock, SyntheticProvider(clock=clock)), clock)
    clock.advance(60)
    provider = Named("synthetic", clock)
    assert (await look(sweeper(database, clock, provider), clock)).bars == 1
    assert provider.asked == [("SYN0001", at(-2), at(1))]  # the new one, and two for corrections


async def test_symbols_come_and_go_with_the_universe(database: Database, clock: FakeClock) -> None:
    await watch(database, "SYN0001", "SYN0002")
    one = sweeper(database, clock, SyntheticProvider(clock=clock))
    await look(one, clock)
    await universe.change(database, "SYN0001", {"active": False})
    await watch(database, "SYN0003")
    clock.advance(60)
    assert (await look(one, clock)).symbols == 2
    assert (await stored(database, "SYN0001"))[-1][0] == "11:59"
    assert [(await stored(database, name))[-1][0] for name in ("SYN0002", "SYN0003")] == ["12:00", "12:00"]


async def test_the_running_bar_is_stored_as_such_and_read_again_until_it_is_final(
    database: Database, clock: FakeClock
) -> None:
    await watch(database, "SYN0001", tier="T0")
    one = sweeper(database, clock, SyntheticProvider(clock=clock, running_bar=True))
    clock.advance(30)
    await look(one, clock, LIVE)
    assert (await stored(database, "SYN0001"))[-1] == ("12:00", "synthetic", False, 0)
    clock.advance(30)
    await look(one, clock, LIVE)
    assert (await stored(database, "SYN0001"))[-2:] == [
        ("12:00", "synthetic", True, 1),
        ("12:01", "synthetic", False, 0),
    ]


async def test_what_a_provider_calls_final_too_early_is_read_again(
    database: Database, clock: FakeClock
) -> None:
    await watch(database, "SYN0001", tier="T0")
    one = sweeper(database, clock, Named("a", clock, grace_s=10.0, running_bar=True))
    await look(one, clock, LIVE)
    assert [final for *_, final, _ in (await stored(database, "SYN0001"))[-3:]] == [True, False, False]
    clock.advance(9.5)
    await look(one, clock, LIVE)
    found = await stored_bars.read(database, "SYN0001", M1)
    last = found.filter(found["is_final"]).select(market_bars.BAR_SCHEMA.names)
    assert last.equals((await truth("SYN0001", "a", at(-9), at(0))).cast(market_bars.BAR_SCHEMA))


async def test_a_correction_of_one_of_the_last_bars_is_seen_and_counted(
    database: Database, clock: FakeClock
) -> None:
    await watch(database, "SYN0001")
    revision = Revision("SYN0001", at(-2), 1.5, after=at(0, 30))
    one = sweeper(database, clock, SyntheticProvider(clock=clock, revisions=(revision,)))
    await look(one, clock)
    before = counted("bars_corrected_total", source="synthetic")
    clock.advance(60)
    assert (await look(one, clock)).bars == 2
    assert [revision for *_, revision in await stored(database, "SYN0001")] == [0] * 7 + [1, 0, 0]
    assert counted("bars_corrected_total", source="synthetic") - before == 1


async def test_a_late_bar_is_stored_and_counted(database: Database, clock: FakeClock) -> None:
    await watch(database, "SYN0001")
    hole = Hole("SYN0001", at(-1), at(0))
    await look(sweeper(database, clock, SyntheticProvider(clock=clock, holes=(hole,))), clock)
    clock.advance(60)
    await look(sweeper(database, clock, SyntheticProvider(clock=clock, holes=(hole,))), clock)
    before = counted("bars_late_total", source="synthetic")
    clock.advance(60)
    await look(sweeper(database, clock, SyntheticProvider(clock=clock)), clock)
    assert counted("bars_late_total", source="synthetic") - before == 1
    assert [ts for ts, *_ in await stored(database, "SYN0001")][-4:] == ["11:58", "11:59", "12:00", "12:01"]


async def test_a_hole_at_the_provider_is_asked_for_once_and_left_to_the_gap_finder(
    database: Database, clock: FakeClock
) -> None:
    await watch(database, "SYN0001")
    provider = Named("a", clock)
    provider._bars = SyntheticProvider(clock=clock, holes=(Hole("SYN0001", at(-5), at(-4)),))
    one = sweeper(database, clock, provider)
    await look(one, clock)
    clock.advance(60)
    await look(one, clock)
    assert provider.asked == [("SYN0001", at(-9), at(0)), ("SYN0001", at(-2), at(1))]


async def test_after_a_long_stop_only_the_last_bars_are_asked_for(
    database: Database, clock: FakeClock
) -> None:
    await watch(database, "SYN0001")
    one = sweeper(database, clock, SyntheticProvider(clock=clock))
    await look(one, clock)
    clock.advance(3_600)
    await look(one, clock)
    assert [ts for ts, *_ in await stored(database, "SYN0001")][8:10] == ["11:59", "12:51"]


async def test_the_data_set_that_has_ended_is_asked_by_nobody_for_new_bars(
    database: Database, clock: FakeClock
) -> None:
    await watch(database, "SPX", calendar="XNYS")
    synthetic = Named("synthetic", clock)
    one = sweeper(database, clock, SampleProvider(), synthetic)
    days = Cadence("T1", Interval.D1, 3_600.0)
    first = await look(one, clock, days)
    assert (first.unserved, first.failed, len(synthetic.asked)) == (1, 0, 1)  # who has it must be asked once
    clock.advance(3_600)
    assert (await look(one, clock, days)).unserved == 1
    assert len(synthetic.asked) == 1


async def test_symbols_that_the_configured_providers_do_not_list_are_unserved_and_nobody_is_asked(
    database: Database, clock: FakeClock
) -> None:
    await watch(database, "SPX", "SYN0001")
    synthetic, ended = SyntheticProvider(clock=clock), SampleProvider()
    found = await look(sweeper(database, clock, synthetic, ended), clock)
    assert (found.symbols, found.unserved, found.failed, found.bars) == (2, 1, 0, 9)


async def test_no_provider_at_all_leaves_all_symbols_unserved(database: Database, clock: FakeClock) -> None:
    await watch(database, "SYN0001", "SYN0002")
    found = await look(sweeper(database, clock), clock)
    assert (found.symbols, found.unserved, found.idle, found.failed) == (2, 2, 0, 0)


@pytest.mark.parametrize("kind", [Named, Together])
async def test_a_symbol_that_fails_stops_no_other_and_goes_to_the_next_provider(
    database: Database, clock: FakeClock, kind: type[Named]
) -> None:
    await watch(database, "SYN0001", "SYN0002", "SYN0003")
    first, second = kind("a", clock), kind("b", clock)
    first.down, second.down = {"SYN0001", "SYN0002"}, {"SYN0001"}
    found = await look(sweeper(database, clock, first, second), clock)
    assert (found.failed, found.bars) == (1, 18)
    assert await stored(database, "SYN0001") == []
    assert (await stored(database, "SYN0002"))[-1] == ("11:59", "b", True, 0)
    assert (await stored(database, "SYN0003"))[-1] == ("11:59", "a", True, 0)


class Hanging(Named):
    """Never answers."""

    calls = 0

    async def bars(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        self.calls += 1
        await asyncio.Event().wait()
        raise AssertionError


async def test_a_provider_that_hangs_is_left_for_the_next_before_the_next_look_is_due(
    database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.ingest.sweep._LEAST_S", 0.2)
    await watch(database, "SYN0001")
    one = sweeper(database, clock, Hanging("a", clock), Named("b", clock))
    found = await one.sweep(MINUTES, clock.now())
    assert (found.failed, found.bars) == (0, 9)
    assert (await stored(database, "SYN0001"))[-1] == ("11:59", "b", True, 0)


async def test_a_provider_that_was_silent_is_not_asked_for_the_other_batches_of_the_look(
    database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.ingest.sweep._LEAST_S", 0.2)
    names = [f"SYN000{number}" for number in range(1, 7)]
    await watch(database, *names)
    hanging = Hanging("a", clock)
    one = sweeper(database, clock, hanging, Named("b", clock), batch=1)
    found = await one.sweep(MINUTES, clock.now())
    assert (found.failed, found.bars, hanging.calls) == (0, 54, 2)  # two batches at a time


async def test_a_symbol_that_nobody_gives_any_more_falls_behind(database: Database, clock: FakeClock) -> None:
    await watch(database, "SYN0001", "SYN0002")
    provider = Named("a", clock)
    provider.capabilities = replace(provider.capabilities, symbols=frozenset({"SYN0001"}))
    one = sweeper(database, clock, provider)
    assert (await look(one, clock)).lag_p99_s == 0.5  # the other one was never given
    provider.capabilities = replace(provider.capabilities, symbols=frozenset())
    clock.advance(60)
    found = await look(one, clock)
    assert (found.unserved, found.lag_p99_s) == (2, 0.5)
    clock.advance(120)
    assert (await look(one, clock)).lag_p99_s == 120.5
    assert (
        await look(sweeper(database, clock, provider), clock)
    ).lag_p99_s == 120.5  # known by what is stored


async def test_an_outage_is_made_up_for_when_it_is_over(database: Database, clock: FakeClock) -> None:
    await watch(database, "SYN0001")
    outage = Outage(start=at(1), end=at(4))
    one = sweeper(database, clock, SyntheticProvider(clock=clock, outages=(outage,)))
    results = []
    for _minute in range(6):
        results.append(await look(one, clock))
        clock.advance(60)
    assert [each.failed for each in results] == [0, 1, 1, 1, 0, 0]
    assert [each.bars for each in results] == [9, 0, 0, 0, 4, 1]
    assert [each.lag_p99_s for each in results] == [0.5, 0.5, 60.5, 120.5, 0.5, 0.5]


async def test_a_lag_of_hours_is_told_in_hours_also_by_a_collector_that_has_just_started(
    database: Database, clock: FakeClock
) -> None:
    await watch(database, "SYN0001")
    provider = Named("a", clock)
    one = sweeper(database, clock, provider)
    await look(one, clock)
    provider.down = {"*"}
    clock.advance(5 * 3_600.0)
    for again in (one, one, sweeper(database, clock, provider)):
        assert (await look(again, clock)).lag_p99_s == 17_940.5  # the bar of 12:00 closed at 12:01
    assert (await look(sweeper(database, clock), clock)).lag_p99_s == 17_940.5  # nobody gives it any more
    provider.down = set()
    assert (await look(one, clock)).lag_p99_s == 0.5
    provider.down = {"*"}
    clock.advance(3_600.0)
    assert (await look(one, clock)).lag_p99_s == 3_540.5  # of the new outage only


async def test_a_symbol_of_which_nothing_was_ever_collected_is_behind_since_it_is_known(
    database: Database, clock: FakeClock
) -> None:
    await watch(database, "SYN0001")
    provider = Named("a", clock)
    provider.down = {"*"}
    await database.pool.execute("UPDATE symbol_universe SET created_at = $1", at(-90, 20))
    found = await look(sweeper(database, clock, provider), clock)
    assert (found.failed, found.lag_p50_s) == (1, 5_280.5)  # 10:31 was the first bar, and closed at 10:32
    unserved = await look(sweeper(database, clock), clock)
    assert (unserved.unserved, unserved.lag_p50_s) == (1, None)  # nobody could ever give it
    await database.pool.execute("UPDATE symbol_universe SET created_at = $1", at(0))
    assert (await look(sweeper(database, clock, provider), clock)).lag_p50_s is None  # nothing was due yet


async def test_a_tier_without_symbols_has_no_lag(database: Database, clock: FakeClock) -> None:
    found = await look(sweeper(database, clock, Named("a", clock)), clock)
    assert (found.symbols, found.lag_p50_s, found.lag_p99_s) == (0, None, None)


async def test_a_session_keeps_the_source_that_it_began_with(database: Database, clock: FakeClock) -> None:
    await watch(database, "SYN0001")
    first, second = Named("a", clock), Named("b", clock)
    await look(sweeper(database, clock, second), clock)
    clock.advance(60)
    await look(sweeper(database, clock, first, second), clock)  # a comes first of equals
    assert {source for _, source, *_ in await stored(database, "SYN0001")} == {"b"}


class AtOnce(Named):
    """Answers when two have asked."""

    barrier: asyncio.Barrier

    async def bars(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        await self.barrier.wait()
        return await super().bars(symbol, interval, start, end)


async def test_of_two_collectors_at_once_one_counts_what_has_changed(
    database: Database, clock: FakeClock
) -> None:
    await watch(database, "SYN0001")
    await look(sweeper(database, clock, Named("before", clock)), clock)
    clock.advance(60)
    written = counted("bars_written_total", source="after")
    provider = AtOnce("after", clock)
    provider.barrier = asyncio.Barrier(2)
    two = [sweeper(database, clock, provider) for _ in range(2)]
    await asyncio.gather(*(look(one, clock) for one in two))
    assert counted("bars_written_total", source="after") - written == 1
    assert counted("source_changes_total", before="before", after="after") == 1


async def test_another_source_goes_on_where_the_first_fails_and_changes_nothing_that_was_final(
    database: Database, clock: FakeClock
) -> None:
    await watch(database, "SYN0001")
    first, second = Named("a", clock), Named("b", clock, factor=2.0)
    one = sweeper(database, clock, first, second)
    await look(one, clock)
    before = counted("source_changes_total", before="a", after="b")
    first.down = {"*"}
    for _minute in range(2):
        clock.advance(60)
        await look(one, clock)
    assert counted("source_changes_total", before="a", after="b") - before == 1
    first.down = set()
    clock.advance(60)
    await look(one, clock)
    found = (await stored(database, "SYN0001"))[-4:]
    assert [(ts, source, revision) for ts, source, _, revision in found] == [
        ("11:59", "a", 0), ("12:00", "b", 0), ("12:01", "b", 0), ("12:02", "a", 0),
    ]  # fmt: skip


async def test_nothing_is_looked_for_on_a_holiday_and_the_first_bar_after_it_is(database: Database) -> None:
    await watch(database, "SYN0001", calendar="XNYS")
    clock = FakeClock(at(0).replace(month=11, day=26, hour=21, minute=0, second=1))
    provider = Named("a", clock)
    one = sweeper(database, clock, provider)
    await look(one, clock)
    for _hour in range(36):  # Thanksgiving
        clock.advance(3_600)
        assert (await look(one, clock)).idle == 1
    assert len(provider.asked) == 1
    clock.advance(5 * 3_600 + 31 * 60)
    assert (await look(one, clock)).idle == 0
    eve, friday = at(0).replace(month=11, day=26), at(0).replace(month=11, day=28)
    assert provider.asked[1:] == [
        ("SYN0001", eve.replace(hour=20, minute=58), friday.replace(hour=14, minute=31))
    ]


async def test_a_calendar_that_nobody_knows_stops_no_other(database: Database, clock: FakeClock) -> None:
    await watch(database, "SYN0001")
    await watch(database, "SYN0002", calendar="XNYZ")
    found = await look(sweeper(database, clock, SyntheticProvider(clock=clock)), clock)
    assert (found.failed, found.bars) == (1, 9)


async def test_a_batch_that_the_database_refuses_is_tried_again_by_the_next_look(
    database: Database, clock: FakeClock
) -> None:
    await watch(database, "SYN0001", "SYN0002")
    one = sweeper(database, clock, SyntheticProvider(clock=clock), batch=1)
    refusal = "ADD CONSTRAINT refused CHECK (symbol <> 'SYN0002') NOT VALID"
    async with database.pool.acquire() as connection:
        await connection.execute(f"ALTER TABLE candles_intraday {refusal}")
        try:
            found = await look(one, clock)
        finally:
            await connection.execute("ALTER TABLE candles_intraday DROP CONSTRAINT refused")
    assert (found.failed, found.bars) == (1, 9)
    clock.advance(60)
    assert (await look(one, clock)).bars == 10  # what is older than ten minutes is the gap finder's


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(
            st.floats(1, 100),
            st.sampled_from([LIVE, Cadence("T0", M1, 60.0)]),
            st.sampled_from(["well", "down", "killed", "both"]),
        ),
        min_size=1,
        max_size=8,
    )
)
async def test_whenever_and_by_whom_bars_are_read_the_last_values_are_stored(
    database: Database, steps: list[tuple[float, Cadence, str]]
) -> None:
    await database.pool.execute("TRUNCATE symbol_universe, candles_intraday")
    await watch(database, "SYN0001", tier="T0")
    clock = FakeClock(at(0, 0.5))
    provider = Named("a", clock, grace_s=7.0, running_bar=True)
    one, other = sweeper(database, clock, provider), sweeper(database, clock, provider)
    for seconds, cadence, event in steps:
        clock.advance(seconds)
        provider.down = {"*"} if event == "down" else set()
        if event == "killed":
            one = sweeper(database, clock, provider)
        others = [look(other, clock, cadence)] if event == "both" else []
        await asyncio.gather(look(one, clock, cadence), *others)
        await _nothing_is_final_that_may_change(database, clock)
    provider.down = set()
    clock.advance(67 - clock.now().timestamp() % 60)
    await look(sweeper(database, clock, provider), clock, LIVE)
    found = await stored_bars.read(database, "SYN0001", M1)
    last = found.filter(found["is_final"]).slice(found.num_rows - 10).select(market_bars.BAR_SCHEMA.names)
    first, end = last["ts"][0].as_py(), clock.now() - timedelta(seconds=7)
    expected = await truth("SYN0001", "a", first, end - timedelta(seconds=1))
    assert last.equals(expected.cast(market_bars.BAR_SCHEMA))


async def _nothing_is_final_that_may_change(database: Database, clock: FakeClock) -> None:
    found = await stored_bars.read(database, "SYN0001", M1)
    final = found.filter(found["is_final"]).select(market_bars.BAR_SCHEMA.names)
    if final.num_rows:
        assert final["ts"][-1].as_py() + timedelta(seconds=67) <= clock.now()
        for row in final.to_pylist():
            start = row["ts"]
            assert [row] == (await truth("SYN0001", "a", start, start + timedelta(minutes=1))).to_pylist()
