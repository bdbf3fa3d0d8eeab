"""Refilling an outage of one day on 500 symbols of minute bars: `python -m benchmarks.drain`.

720 000 bars of the synthetic provider, which has no limit, through its gateway and one backfill worker on Ray
into a durable PostgreSQL, with the shipped settings. The clock runs from the request to the last commit.
"""

from __future__ import annotations

import asyncio
import statistics
import time

from benchmarks.outage import add_universe, queue_all, seconds_until_done, system, yesterday
from benchmarks.report import report
from cluster.storage.backfill_merge import Span

ROUNDS = 3
GOAL_S = 60.0
SYMBOLS = [f"SYN{number:04d}" for number in range(1, 501)]
BARS = len(SYMBOLS) * 1_440
_EMPTY = "TRUNCATE candles_intraday, backfill_jobs, backfill_attempts, known_gaps"


async def main() -> None:
    """Each round on empty tables."""
    took_s = []
    async with system({}) as running:
        await add_universe(running.database, SYMBOLS)
        for _ in range(ROUNDS):
            await running.database.pool.execute(_EMPTY)
            began_s = time.perf_counter()
            await queue_all(running.database, SYMBOLS, Span(*yesterday()))
            await seconds_until_done(running.database)
            took_s.append(time.perf_counter() - began_s)
            stored = await running.database.pool.fetchval("SELECT count(*) FROM candles_intraday")
            if stored != BARS:
                raise SystemExit(f"{stored} of {BARS} bars are stored")
    ours = statistics.median(took_s)
    report(
        "drain",
        ours,
        GOAL_S,
        "s",
        digits=2,
        better="lower",
        note=f"bound: {GOAL_S:g} s for {BARS} bars of {len(SYMBOLS)} symbols, {BARS / ours:.0f} bars/s; "
        f"one worker, one gateway, synthetic provider; median of {ROUNDS} rounds",
    )


if __name__ == "__main__":
    asyncio.run(main())
