"""Workers whose clocks are wrong and jump: leases keep the database's time, no bar comes from the future."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cluster.market.intervals import Interval
from tests.chaos import fleet as fleets
from tests.chaos.fleet import fleet, outcomes, query, require_kept, synthetic, until_acknowledged, until_done
from tests.chaos.worker_process import Orders

pytestmark = [pytest.mark.chaos, pytest.mark.postgres, pytest.mark.slow]

M1 = Interval.M1
START, END = datetime(2024, 3, 4, tzinfo=UTC), datetime(2024, 3, 4, 8, tzinfo=UTC)
SEED = 17
TEN_MINUTES_S = 600.0
PROVIDERS = {"synthetic": {"seed": SEED, "latency_s": 0.1}}
SYMBOLS = ("SYN0001", "SYN0002")


async def test_clocks_that_jump_by_ten_minutes_touch_no_lease(database_url: str, tmp_path: Path) -> None:
    jobs = await fleets.enqueue(database_url, SYMBOLS, M1, START, END, bars=10)
    orders = Orders("", database_url, fleets.log_folder(tmp_path), PROVIDERS, lease_s=30.0, concurrency=2)
    with fleet(orders) as workers:
        workers.start("one", "two")
        for offset_s in (TEN_MINUTES_S, -TEN_MINUTES_S, 0.0, 3_600.0, -3_600.0, 0.0):
            workers.clock_offset_s.value = offset_s
            await until_acknowledged(workers)
        await until_done(database_url, jobs)
        events = workers.history()
    await require_kept(database_url, events, await synthetic(SEED, SYMBOLS, M1, START, END))
    assert await outcomes(database_url) == {"done": jobs}


async def test_a_worker_ahead_of_time_stores_no_bar_and_knows_no_hole_of_the_future(
    database_url: str, tmp_path: Path
) -> None:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    start, end = now - timedelta(minutes=30), now + timedelta(minutes=30)
    jobs = await fleets.enqueue(database_url, SYMBOLS[:1], M1, start, end, bars=60)
    orders = Orders("", database_url, fleets.log_folder(tmp_path), PROVIDERS)
    with fleet(orders) as workers:
        workers.clock_offset_s.value = TEN_MINUTES_S
        workers.start("early")
        await until_done(database_url, jobs)
    newest = await query(database_url, "SELECT max(ts) < now() FROM candles_intraday")
    assert newest[0][0] is True
    ahead = await query(database_url, "SELECT symbol, start_ts, end_ts FROM known_gaps WHERE end_ts > now()")
    assert ahead == []
