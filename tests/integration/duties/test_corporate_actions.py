"""Splits and dividends from a provider to bars that are read adjusted, and who asks when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta

import asyncpg
import pytest

from cluster.clock import FakeClock
from cluster.duties.corporate_actions import refresh
from cluster.errors import InvalidSymbol, Malformed, ProviderDown, RateLimited
from cluster.market.adjustments import Adjusted, CorporateAction
from cluster.market.intervals import Interval
from cluster.providers.gateway import Gateway
from cluster.providers.protocol import Capabilities
from cluster.providers.stats import Standing
from cluster.providers.yahoo import YahooProvider
from cluster.storage import bars, corporate_actions
from cluster.storage.database import Database
from tests.services import yahoo
from tests.services.yahoo import Yahoo, dividend, flat, split

pytestmark = pytest.mark.postgres

NOW = datetime(2025, 6, 3, 20, 30, tzinfo=UTC)
OFFER = Capabilities(intervals=frozenset(Interval), symbols=None, page_bars=1_000)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await Database.open(database_url)
    yield database
    await database.close()


async def list_symbols(database: Database, *rows: tuple[str, str, str, bool]) -> None:
    async with database.connection() as connection:
        await connection.executemany(
            "INSERT INTO symbol_universe (symbol, exchange, asset_type, tier, active, calendar) "
            "VALUES ($1, 'NASDAQ', $2, $3, $4, 'XNYS')",
            rows,
        )


class Told:
    """A source that tells given actions or fails, and remembers whom it was asked for."""

    def __init__(self, *answers: Sequence[CorporateAction] | Exception, errand: bool = True) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)
        self._standing = Standing("told", OFFER, errands=frozenset({"actions"} if errand else ()))

    async def standing(self) -> Standing:
        return self._standing

    async def actions(self, symbol: str, start: datetime, end: datetime) -> list[CorporateAction]:
        self.asked.append(symbol)
        answer = self._answers.pop(0) if self._answers else []
        if isinstance(answer, Exception):
            raise answer
        return list(answer)


@pytest.fixture
def service() -> Iterator[tuple[str, Yahoo]]:
    """AAPL and NVDA around their splits of 4:1, divided as Yahoo tells them."""
    service = Yahoo(now=lambda: NOW)
    service.put("AAPL", "1d", [flat("2020-08-28T13:30", 499.23 / 4, 400), flat("2020-08-31T13:30", 129.04)])
    service.splits["AAPL"] = [split("2020-08-31T13:30", 4)]
    service.dividends["AAPL"] = [dividend("2020-08-07T13:30", 0.205)]
    service.put(
        "NVDA", "1d", [flat("2021-07-19T13:30", 751.19 / 40, 4_000), flat("2021-07-20T13:30", 18.612)]
    )
    service.splits["NVDA"] = [split("2021-07-20T13:30", 4), split("2024-06-10T13:30", 10)]
    with yahoo.running(service) as url:
        yield url, service


async def test_bars_are_stored_as_they_were_traded_and_read_adjusted_by_what_the_provider_told(
    database: Database, service: tuple[str, Yahoo]
) -> None:
    await list_symbols(database, ("AAPL", "equity", "T0", True), ("NVDA", "equity", "T1", True))
    provider = YahooProvider(service[0], now=lambda: NOW)
    gateway = Gateway(provider)
    for symbol, day in (("AAPL", "2020-08-28"), ("NVDA", "2021-07-19")):
        first = datetime.fromisoformat(day).replace(tzinfo=UTC)
        table = await gateway.fetch(symbol, Interval.D1, first, first + timedelta(days=4))
        async with database.transaction() as connection:
            await bars.write(connection, table)
    await refresh(database, {"yahoo": gateway}, FakeClock(NOW))
    assert await corporate_actions.read(database, "AAPL") == [
        CorporateAction("AAPL", date(2020, 8, 7), "dividend", 0.82, "yahoo"),
        CorporateAction("AAPL", date(2020, 8, 31), "split", 4.0, "yahoo"),
    ]
    assert await closes(database, "AAPL", Adjusted.NONE) == [499.23, 129.04]
    assert await closes(database, "AAPL", Adjusted.SPLITS) == [124.8075, 129.04]
    assert await closes(database, "NVDA", Adjusted.NONE) == [751.19, 186.12]
    assert await closes(database, "NVDA", Adjusted.SPLITS) == [pytest.approx(18.77975), pytest.approx(18.612)]
    raw = await bars.read(database, "NVDA", Interval.D1)
    assert raw["volume"].to_pylist() == [100, 10]
    await provider.close()


async def closes(database: Database, symbol: str, mode: Adjusted) -> list[float]:
    raw = await bars.read(database, symbol, Interval.D1)
    table = await corporate_actions.adjusted(database, raw, "XNYS", mode)
    found: list[float] = table["close"].to_pylist()
    return found


async def test_active_shares_and_funds_are_asked_for_once_a_day_the_first_tier_first(
    database: Database,
) -> None:
    await list_symbols(
        database,
        ("LATE", "equity", "T3", True),
        ("FUND", "etf", "T1", True),
        ("GONE", "equity", "T0", False),
        ("BTCUSDT", "crypto", "T0", True),
        ("FIRST", "equity", "T0", True),
    )
    source = Told()
    for _ in range(2):
        await refresh(database, {"told": source}, FakeClock(NOW))
    assert source.asked == ["FIRST", "FUND", "LATE"]
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE corporate_action_checks SET asked_at = asked_at - interval '25 hours', "
            "checked_at = checked_at - interval '25 hours' WHERE symbol = 'FUND'"
        )
    await refresh(database, {"told": source}, FakeClock(NOW))
    assert source.asked == ["FIRST", "FUND", "LATE", "FUND"]


async def test_a_limit_ends_the_round_and_the_symbol_is_asked_for_again_after_an_hour(
    database: Database,
) -> None:
    await list_symbols(database, ("ONE", "equity", "T0", True), ("TWO", "equity", "T1", True))
    source = Told(RateLimited("later", NOW + timedelta(minutes=1)))
    await refresh(database, {"told": source}, FakeClock(NOW))
    await refresh(database, {"told": source}, FakeClock(NOW))
    assert source.asked == ["ONE"]
    async with database.connection() as connection:
        await connection.execute("UPDATE corporate_action_checks SET asked_at = asked_at - interval '61 min'")
    await refresh(database, {"told": source}, FakeClock(NOW))
    assert source.asked == ["ONE", "ONE", "TWO"]


async def test_one_symbol_that_is_told_wrong_does_not_keep_the_others_waiting(database: Database) -> None:
    await list_symbols(database, ("ONE", "equity", "T0", True), ("TWO", "equity", "T1", True))
    source = Told(Malformed("in pounds before and in pence now"))
    await refresh(database, {"told": source}, FakeClock(NOW))
    assert source.asked == ["ONE", "TWO"]


async def test_the_next_source_is_asked_for_what_the_first_does_not_know_and_not_who_tells_none(
    database: Database,
) -> None:
    await list_symbols(database, ("ONE", "equity", "T0", True))
    paid = CorporateAction("ONE", date(2024, 2, 1), "dividend", 0.5, "second")
    first, second, mute = Told(InvalidSymbol("no ONE")), Told([paid]), Told(errand=False)
    await refresh(database, {"mute": mute, "first": first, "second": second}, FakeClock(NOW))
    assert (mute.asked, first.asked, second.asked) == ([], ["ONE"], ["ONE"])
    assert await corporate_actions.read(database, "ONE") == [paid]


async def test_without_anybody_to_ask_nothing_is_claimed(database: Database) -> None:
    class Away(Told):
        async def standing(self) -> Standing:
            raise ProviderDown("not running")

    await list_symbols(database, ("ONE", "equity", "T0", True))
    await refresh(database, {"away": Away()}, FakeClock(NOW))
    source = Told()
    await refresh(database, {"told": source}, FakeClock(NOW))
    assert source.asked == ["ONE"]


async def test_two_clusters_ask_for_each_symbol_once(database: Database) -> None:
    await list_symbols(database, *((f"S{n:03}", "equity", "T2", True) for n in range(60)))
    one, other = Told(), Told()
    await asyncio.gather(*(refresh(database, {"told": each}, FakeClock(NOW)) for each in (one, other)))
    await refresh(database, {"told": one}, FakeClock(NOW))
    assert sorted(one.asked + other.asked) == [f"S{n:03}" for n in range(60)]


class Slow(Told):
    """Answers when it may."""

    def __init__(self, *answers: Sequence[CorporateAction]) -> None:
        super().__init__(*answers)
        self.was_asked, self.may_answer = asyncio.Event(), asyncio.Event()

    async def actions(self, symbol: str, start: datetime, end: datetime) -> list[CorporateAction]:
        told = await super().actions(symbol, start, end)
        self.was_asked.set()
        await self.may_answer.wait()
        return told


async def test_an_answer_from_before_somebody_else_asked_again_is_dropped(database: Database) -> None:
    await list_symbols(database, ("ONE", "equity", "T0", True))
    wrong, right = (
        CorporateAction("ONE", date(2024, 2, 1), "dividend", value, "told") for value in (5.0, 0.5)
    )
    frozen = Slow([wrong])
    late = asyncio.create_task(refresh(database, {"told": frozen}, FakeClock(NOW)))
    await frozen.was_asked.wait()
    await database.pool.execute("UPDATE corporate_action_checks SET asked_at = now() - interval '2 hours'")
    await refresh(database, {"told": Told([right])}, FakeClock(NOW))
    frozen.may_answer.set()
    await late
    assert await corporate_actions.read(database, "ONE") == [right]
    assert await database.pool.fetchval("SELECT max(revision) FROM corporate_actions") == 0


async def test_a_write_that_fails_leaves_the_symbol_to_be_asked_again(database: Database) -> None:
    await list_symbols(database, ("ONE", "equity", "T0", True))
    nameless = CorporateAction("ONE", date(2024, 2, 1), "dividend", 0.5, "")  # the table wants a source
    with pytest.raises(asyncpg.CheckViolationError):
        await refresh(database, {"told": Told([nameless])}, FakeClock(NOW))
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT checked_at FROM corporate_action_checks") is None
