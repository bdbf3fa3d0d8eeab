"""The duties of two clusters on one database, one of them frozen again and again: all is done, and once."""

from __future__ import annotations

import asyncio
import random
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cluster.market.intervals import Interval
from cluster.providers.synthetic import SyntheticProvider
from cluster.storage import bars
from cluster.storage.database import Database
from tests.chaos import fleet as fleets
from tests.chaos.duties_process import do_duties
from tests.chaos.fleet import fleet, query, until
from tests.chaos.worker_process import Orders

pytestmark = [pytest.mark.chaos, pytest.mark.postgres, pytest.mark.slow]

SYMBOLS = [f"SYN{number:04d}" for number in range(1, 7)]
START, NOW = datetime(2024, 3, 4, tzinfo=UTC), datetime(2024, 3, 6, 6, 0, 30, tzinfo=UTC)
MIDNIGHT = datetime(2024, 3, 6, tzinfo=UTC)
_GAPS = "SELECT symbol, start_ts, end_ts FROM gaps ORDER BY symbol, start_ts"
_JOBS = "SELECT symbol, start_ts, end_ts FROM backfill_jobs WHERE state = 'ready' ORDER BY symbol, start_ts"
_DELETE = "DELETE FROM candles_intraday WHERE symbol = $1 AND ts >= $2 AND ts < $3"
_STALE = """
SELECT count(*) FROM (
    (SELECT * FROM rollup_5m WHERE ts < $2 EXCEPT ALL SELECT * FROM minutes_as_5m($1, $2))
    UNION ALL (SELECT * FROM minutes_as_5m($1, $2) EXCEPT ALL SELECT * FROM rollup_5m)
) AS differing
"""


async def put_bars(dsn: str) -> None:
    """Two days and six hours of minutes of every symbol."""
    database = await Database.open(dsn, max_size=1)
    provider = SyntheticProvider(seed=7)
    for symbol in SYMBOLS:
        table = await provider.bars(symbol, Interval.M1, START, NOW - timedelta(seconds=30))
        async with database.transaction() as connection:
            await bars.write(connection, table)
    await database.close()


async def test_duties_of_two_clusters_find_and_queue_each_gap_once_and_keep_the_rollups(
    database_url: str, tmp_path: Path, rng: random.Random
) -> None:
    await fleets.know(database_url, SYMBOLS)
    await put_bars(database_url)
    lost: list[tuple[str, datetime, datetime]] = []
    with fleet(Orders("", database_url, fleets.log_folder(tmp_path), {}), do_duties) as clusters:
        clusters.clock_offset_s.value = (NOW - datetime.now(UTC)).total_seconds()
        clusters.start("one", "other")
        await until_level(database_url, lost)
        for hour, symbol in enumerate(SYMBOLS):
            name = rng.choice(clusters.names())
            start = START + timedelta(hours=5 * hour + rng.randrange(4), minutes=rng.randrange(30))
            lost.append((symbol, start, start + timedelta(minutes=rng.randrange(1, 9))))
            await query(
                database_url,
                "DELETE FROM candles_intraday WHERE symbol = $1 AND ts >= $2 AND ts < $3",
                *lost[-1],
            )
            await asyncio.sleep(rng.uniform(0.0, 0.2))
            clusters.signal(name, signal.SIGSTOP)
            await until_level(database_url, lost)
            clusters.signal(name, signal.SIGCONT)
        await asyncio.sleep(1.0)  # both have looked again
        await until_level(database_url, lost)
        assert [clusters.drain(name) for name in clusters.names()] == [0, 0]
    counted = [int(path.read_text()) for path in clusters.orders.folder.glob("*.counted")]
    assert len(counted) == 2
    assert 0 < sum(counted) <= len(lost)  # what was found in a scan that was cut off is not counted
    assert await query(database_url, "SELECT FROM audit_log") == []  # it was our own work


async def until_level(dsn: str, lost: list[tuple[str, datetime, datetime]]) -> None:
    """Until exactly these bars are known to be missing, and queued, and the rollups are those of the rest."""

    async def level() -> bool:
        gaps, jobs = [[tuple(row) for row in await query(dsn, each)] for each in (_GAPS, _JOBS)]
        stale = (await query(dsn, _STALE, START, MIDNIGHT))[0][0]
        kept = (await query(dsn, "SELECT count(*) FROM rollup_5m"))[0][0]
        return gaps == sorted(lost) and jobs == sorted(lost) and stale == 0 and kept > 0

    await until(level)
