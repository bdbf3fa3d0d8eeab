"""How much of a provider's limit a refill uses: `python -m benchmarks.drain_limited`.

The synthetic provider with a budget of 20 calls in any second, through its gateway and one worker on Ray,
with the shipped settings. The first 200 calls, in which the processes begin and the budget gives a burst,
do not count. Ours is the rate at which the 800 jobs after them are committed, theirs what the limit allows:
two calls of which the one is 800 after the other are at least 40 s apart. The mean of the last 20 such
pairs counts, so that no single commit decides.
"""

from __future__ import annotations

import asyncio
from statistics import fmean

from benchmarks.outage import PROVIDER, add_universe, queue_all, seconds_until_done, system, yesterday
from benchmarks.report import report
from cluster.storage.backfill_merge import Span

LIMIT, WINDOW_S = 20, 1.0
CALLS = 1_000
UNCOUNTED = 200
GOAL = 0.95
SYMBOLS = [f"SYN{number:04d}" for number in range(1, CALLS // 2 + 1)]
"""Two calls each: a day of minutes is two jobs."""
_ENDS = "SELECT ended_at FROM backfill_attempts WHERE outcome = 'done' ORDER BY ended_at"


async def main() -> None:
    """One refill on empty tables."""
    options = {"budget": [{"limit": LIMIT, "seconds": WINDOW_S}]}
    async with system(options) as running:
        await add_universe(running.database, SYMBOLS)
        await queue_all(running.database, SYMBOLS, Span(*yesterday()))
        await seconds_until_done(running.database)
        ends = [row["ended_at"].timestamp() for row in await running.database.pool.fetch(_ENDS)]
    if len(ends) != CALLS:
        raise SystemExit(f"{len(ends)} jobs were done, not {CALLS}")
    allowed, counted = LIMIT / WINDOW_S, CALLS - UNCOUNTED
    apart = zip(ends[UNCOUNTED - LIMIT : UNCOUNTED], ends[-LIMIT:], strict=True)
    rate = counted / fmean(late - early for early, late in apart)
    report(
        "drain_limited",
        rate,
        allowed,
        "calls/s",
        digits=2,
        better="higher",
        goal=GOAL,
        note=f"bound: {LIMIT} calls in any {WINDOW_S:g} s; {counted} calls after the first {UNCOUNTED}; "
        f"provider {PROVIDER}, one worker, one gateway",
    )


if __name__ == "__main__":
    asyncio.run(main())
