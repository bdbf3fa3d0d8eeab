from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from cluster.backfill import gap_level
from cluster.backfill.gap_offers import Offers
from cluster.backfill.gap_scan import WatchRules
from cluster.backfill.gap_watch import GapWatch
from cluster.clock import FakeClock
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.storage import universe
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.database import Database
from tests.integration.storage.bar_tables import bar, write

pytestmark = pytest.mark.postgres

M1 = Interval.M1
T = datetime(2025, 10, 8, 14, tzinfo=UTC)
BITCOIN = Instrument("BTC-USD", "BINANCE", "crypto", "24/7", tier="T0")


async def test_bars_in_gaps_of_more_than_two_are_the_share_that_violates(database: Database) -> None:
    """Of each of two symbols 100 minutes are due: 3 + 5 are lost together, 2 by themselves."""
    for each in (BITCOIN, replace(BITCOIN, symbol="ETH-USD")):
        await universe.add(database, each)
    lost = {10, 11, 12, 50, 51, 80, 81, 82, 83, 84}
    kept = [number for number in range(100) if number not in lost]
    await write(database, *(bar("BTC-USD", T + timedelta(minutes=number)) for number in kept))
    await write(database, *(bar("ETH-USD", T + timedelta(minutes=number)) for number in range(100)))
    now = T + timedelta(minutes=101)
    rules = WatchRules({"T0": [M1]}, grace_s=0.0)
    await GapWatch(database, BackfillQueue(database), FakeClock(now), rules).scan(M1, ["T0"], Offers())
    levels = await gap_level.read(database, now)
    assert levels.violation_rate == {("T0", "1m"): (3 + 5) / 200}
    assert levels.gaps == {("T0", "1m", "not_fetched"): 3}
    assert levels.age_s == {"1m": 60.0}
    await database.pool.execute("UPDATE gaps SET cause = 'no_trades' WHERE missing = 5")
    assert (await gap_level.read(database, now)).violation_rate == {("T0", "1m"): 3 / 200}
    later = T + timedelta(days=1, minutes=12)  # of the lost three one is of the last day
    assert (await gap_level.read(database, later)).violation_rate == {("T0", "1m"): 1 / (2 * 88)}
    assert (await gap_level.read(database, T + timedelta(days=9))).violation_rate == {("T0", "1m"): 0.0}
