"""A service that hangs, refuses, throttles and sends rubbish: the queue drains, no bar is lost or wrong."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from starlette.types import ASGIApp

from cluster.market.intervals import Interval
from cluster.providers.breaker import BreakerPolicy
from cluster.providers.gateway import GatewayPolicy
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.database import Database
from tests.chaos import fleet as fleets
from tests.chaos.checker import Key, Values
from tests.chaos.fleet import fleet, outcomes, require_kept, until_done
from tests.chaos.proxy import proxied
from tests.chaos.worker_process import Orders
from tests.services import binance, faults
from tests.services.binance import Binance
from tests.services.binance_limits import WeightLimit

pytestmark = [pytest.mark.chaos, pytest.mark.postgres, pytest.mark.slow]

START, END = datetime(2024, 3, 4, tzinfo=UTC), datetime(2024, 3, 4, 10, tzinfo=UTC)
POLICY = GatewayPolicy(timeout_s=1.0, breaker=BreakerPolicy(failures=5, cooldown_s=0.5, max_cooldown_s=1.0))
FAULTS: list[Callable[[], ASGIApp]] = [
    lambda: faults.hang,
    lambda: faults.says(503, {"code": -1001, "msg": "Internal error"}),
    lambda: faults.html(502),
    lambda: faults.html(200),
    lambda: faults.says(429, {"code": -1003, "msg": "Too many requests"}, retry_after="1"),
    lambda: faults.cut,
    lambda: faults.gzip_bomb(300 * 2**20),
    lambda: faults.says(200, {"unexpected": True}),
    lambda: faults.says(200, [[1, 2, 3]]),
]


def venue() -> Binance:
    made = Binance(weight=WeightLimit(limit=100_000))
    made.list_symbol("BTCUSDT", "BTC", "USDT")
    made.fill("BTCUSDT", "1m", START, END)
    return made


def held() -> dict[Key, Values]:
    """Bar number n of `Binance.fill`, by hand: opens at 100 + n cents, closes a cent higher."""
    bars: dict[Key, Values] = {}
    for n in range(600):
        price = 100.0 + n / 100
        ts = int((START + timedelta(minutes=n)).timestamp())
        texts = (f"{price:.8f}", f"{price + 0.02:.8f}", f"{price - 0.02:.8f}", f"{price + 0.01:.8f}", "1.5")
        bars[Key("BTCUSDT", "1m", ts)] = tuple(map(float, texts))
    return bars


async def ask_for_all(dsn: str, *, bars: int) -> int:
    await fleets.query(
        dsn,
        "INSERT INTO symbol_universe (symbol, exchange, asset_type, calendar) "
        "VALUES ('BTCUSDT', 'BINANCE', 'crypto', '24/7')",
    )
    database = await Database.open(dsn)
    queue = BackfillQueue(database, longest_bars=bars)
    jobs = len(await queue.enqueue("BTCUSDT", Interval.M1, START, END))
    await database.close()
    return jobs


async def test_every_fault_of_a_service_ends_in_the_table_of_a_service_without_faults(
    database_url: str, tmp_path: Path, rng: random.Random
) -> None:
    jobs = await ask_for_all(database_url, bars=40)
    service = venue()
    drawn = [make() for make in FAULTS]
    rng.shuffle(drawn)
    service.faults.extend(drawn)
    with binance.running(service) as url:
        async with proxied("127.0.0.1", int(url.rpartition(":")[2])) as proxy:
            proxy.resets = [(b"GET ", True), (b"GET ", False)]
            providers = {"binance": {"base_url": f"http://127.0.0.1:{proxy.port}"}}
            orders = Orders("", database_url, fleets.log_folder(tmp_path), providers, POLICY, lease_s=5.0)
            with fleet(orders) as workers:
                workers.start("one", "two")
                await until_done(database_url, jobs)
                events = workers.history()
        assert not proxy.resets
    assert not service.faults
    await require_kept(database_url, events, held())
    assert set(await outcomes(database_url)) <= {"done", "failed", "snoozed"}


async def test_a_storm_of_429_uses_no_attempt_and_ends_with_the_storm(
    database_url: str, tmp_path: Path
) -> None:
    jobs = await ask_for_all(database_url, bars=60)
    service = venue()
    service.outage = faults.says(429, {"code": -1003, "msg": "Too many requests"}, retry_after="1")
    with binance.running(service) as url:
        providers = {"binance": {"base_url": url}}
        orders = Orders("", database_url, fleets.log_folder(tmp_path), providers, POLICY, lease_s=5.0)
        with fleet(replace(orders, policy=replace(POLICY, patience_s=0.1))) as workers:
            workers.start("one", "two")

            async def stormy() -> bool:
                return len(service.asked) >= 6

            await fleets.until(stormy)
            service.outage = None
            await until_done(database_url, jobs)
            events = workers.history()
    await require_kept(database_url, events, held())
    tried = await fleets.query(database_url, "SELECT DISTINCT attempt FROM backfill_jobs")
    assert [row["attempt"] for row in tried] == [1]
