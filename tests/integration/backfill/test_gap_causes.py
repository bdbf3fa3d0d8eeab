"""Why bars are missing, and whom that makes the watch ask."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from cluster.backfill.gap_offers import Offers, offers
from cluster.errors import ProviderDown
from cluster.providers.gateway import Gateway
from cluster.providers.protocol import Capabilities
from cluster.providers.sample import SampleProvider
from cluster.providers.stats import Standing
from cluster.providers.synthetic import SyntheticProvider
from cluster.storage import known_gaps, universe
from cluster.storage.backfill_merge import Span
from cluster.storage.database import Database
from cluster.storage.known_gaps import Hole
from tests.integration.backfill.gap_desk import (
    BITCOIN,
    ETHER,
    M1,
    MONERO,
    Desk,
    minute,
    store,
)

pytestmark = pytest.mark.postgres


class TestClasses:
    async def desk(self, database: Database, *providers: str) -> Desk:
        """The minutes 14:01 to 14:03 are missing."""
        await universe.add(database, BITCOIN)
        await store(database, "BTC-USD", [minute(0), minute(3)])
        desk = Desk(database, minute(4))
        offer = Capabilities(frozenset([M1]), None, 1_000, depth={M1: timedelta(days=7)})
        desk.offers = Offers([Standing(name, offer) for name in providers], silent=0)
        await desk.scan()
        return desk

    async def test_what_one_provider_lacks_the_other_is_asked_for_and_what_both_lack_did_not_trade(
        self, database: Database
    ) -> None:
        desk = await self.desk(database, "binance", "yahoo")
        await desk.answered("binance", 1, 3, "provider_hole")
        await desk.scan()
        assert await desk.gaps() == [("BTC-USD", "14:01", "14:03", "provider_hole")]
        assert await desk.queued() == [("BTC-USD", "14:00", "14:04", "yahoo")]  # with its neighbours
        await desk.answered("yahoo", 1, 3, "provider_hole")
        await desk.scan()
        assert await desk.gaps() == [("BTC-USD", "14:01", "14:03", "no_trades")]
        await database.pool.execute("UPDATE gaps SET next_check_at = '2000-01-01'")
        await desk.scan()
        assert await desk.queued() == []

    async def test_what_a_provider_had_a_part_of_is_told_apart(self, database: Database) -> None:
        desk = await self.desk(database, "binance")
        await desk.answered("binance", 2, 3, "rejected")
        await desk.scan()
        assert await desk.gaps() == [
            ("BTC-USD", "14:01", "14:02", "not_fetched"),
            ("BTC-USD", "14:02", "14:03", "rejected"),
        ]

    async def test_what_nobody_reaches_back_to_is_never_queued(self, database: Database) -> None:
        await universe.add(database, BITCOIN)
        await store(database, "BTC-USD", [minute(0), minute(3)])
        desk = Desk(database, minute(4) + timedelta(days=8))
        offer = Capabilities(frozenset([M1]), None, 1_000, depth={M1: timedelta(days=7)})
        desk.offers = Offers([Standing("yahoo", offer)], silent=0)
        await desk.scan()
        assert ("BTC-USD", "14:01", "14:03", "unfillable") in await desk.gaps()
        jobs = await database.pool.fetchval(
            "SELECT count(*) FROM backfill_jobs WHERE start_ts < $1", minute(3)
        )
        assert jobs == 0

    async def test_what_is_in_the_queue_or_was_given_up_lately_is_not_queued_again(
        self, database: Database
    ) -> None:
        desk = await self.desk(database, "binance")
        assert await desk.queued() == [("BTC-USD", "14:01", "14:03", None)]
        await database.pool.execute("UPDATE gaps SET next_check_at = '2000-01-01'")
        assert (await desk.scan()).asked == 0
        await database.pool.execute("UPDATE backfill_jobs SET state = 'dead', finished_at = now()")
        await database.pool.execute("UPDATE gaps SET next_check_at = '2000-01-01'")
        assert (await desk.scan()).asked == 0
        await database.pool.execute("UPDATE backfill_jobs SET finished_at = now() - interval '2 days'")
        await database.pool.execute("UPDATE gaps SET next_check_at = '2000-01-01'")
        assert (await desk.scan()).asked == 1

    async def test_jobs_that_end_without_any_answer_are_not_made_for_ever(self, database: Database) -> None:
        desk = await self.desk(database, "binance")
        for _ in range(10):
            await database.pool.execute("DELETE FROM backfill_jobs")
            await database.pool.execute("UPDATE gaps SET next_check_at = '2000-01-01'")
            await desk.scan()
        assert await desk.queued() == []
        assert await desk.gaps() == [("BTC-USD", "14:01", "14:03", "unfillable")]
        assert await database.pool.fetchval("SELECT tries FROM gaps") == 5

    async def test_what_every_symbol_of_a_venue_lacks_after_it_was_asked_for_is_its_outage(
        self, database: Database
    ) -> None:
        desk = await self.desk(database, "binance")
        for each in (ETHER, MONERO):
            await universe.add(database, each)
        for symbol in ("ETH-USD", "XMR-USD"):
            await store(database, symbol, [minute(0), minute(3)])
        await desk.scan()
        assert {cause for *_, cause in await desk.gaps()} == {
            "not_fetched"
        }  # our own outage, for all we know
        for symbol in ("BTC-USD", "ETH-USD", "XMR-USD"):
            span = Span(minute(1), minute(3))
            async with database.transaction() as connection:
                holes = [Hole(span, "provider_hole")]
                await known_gaps.record(connection, symbol, M1, "binance", span, holes)
        await desk.scan()
        await desk.scan()
        assert {cause for *_, cause in await desk.gaps()} == {"venue_down"}


@pytest.mark.parametrize(("symbol", "jobs"), [("SPX", 0), ("SYN0001", 1)])
async def test_what_no_configured_provider_gives_is_never_queued(
    database: Database, symbol: str, jobs: int
) -> None:
    await universe.add(database, replace(BITCOIN, symbol=symbol))
    await store(database, symbol, [minute(0)])
    desk = Desk(database, minute(3))
    told = [Gateway(provider, desk.clock) for provider in (SampleProvider(), SyntheticProvider())]
    desk.offers = Offers([await each.standing() for each in told], silent=0)
    await desk.scan()
    cause = "not_fetched" if jobs else "unfillable"
    assert await desk.gaps() == [(symbol, "14:01", "14:02", cause)]
    assert len(await desk.queued()) == jobs


class Silent(Gateway):
    """A gateway that is being started again."""

    async def standing(self) -> Standing:
        raise ProviderDown("the gateway did not answer")


async def test_what_a_silent_provider_may_offer_waits_until_that_has_told(database: Database) -> None:
    await universe.add(database, replace(BITCOIN, symbol="SPX"))
    await store(database, "SPX", [minute(0)])
    desk = Desk(database, minute(3))
    gateways = {"synthetic": Gateway(SyntheticProvider(), desk.clock)}
    silent = Silent(SampleProvider(), desk.clock)
    desk.offers = await offers({**gateways, "sample": silent})
    await desk.scan()
    assert await desk.gaps() == [("SPX", "14:01", "14:02", "not_fetched")]
    assert await desk.queued() == []
    desk.offers = await offers({**gateways, "sample": Gateway(SampleProvider(), desk.clock)})
    desk.clock.advance(301)
    await desk.scan()
    assert [cause for *_, cause in await desk.gaps()] == ["unfillable"]
    assert await desk.queued() == []
