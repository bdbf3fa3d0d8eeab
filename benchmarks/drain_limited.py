"""How much of a provider's limit a refill uses: `python -m benchmarks.drain_limited`.

The synthetic provider with a budget of 20 calls in any second, through its gateway and one backfill worker on
Ray. The limit allows a burst of 20 calls at once and then 20 more every second, so N calls take (N / 20 - 1)
seconds at the least. Ours is the calls per second of the whole refill, theirs what the limit allows.
"""

from __future__ import annotations

import asyncio
import json

from benchmarks.outage import PROVIDER, add_universe, queue_all, seconds_until_done, system, yesterday
from cluster.storage.backfill_merge import Span

LIMIT, WINDOW_S = 20, 1.0
CALLS = 800
GOAL = 0.95
SYMBOLS = [f"SYN{number:04d}" for number in range(1, CALLS // 2 + 1)]
"""Two calls each: a day of minutes is two jobs."""


async def main() -> None:
    """One refill on empty tables."""
    options = {"budget": [{"limit": LIMIT, "seconds": WINDOW_S}]}
    async with system(options) as running:
        await add_universe(running.database, SYMBOLS)
        await queue_all(running.database, SYMBOLS, Span(*yesterday()))
        took_s = await seconds_until_done(running.database)
        ended = "SELECT count(*) FROM backfill_attempts WHERE outcome = 'done'"
        calls = await running.database.pool.fetchval(ended)
    if calls != CALLS:
        raise SystemExit(f"{calls} jobs were done, not {CALLS}")
    least_s = (CALLS / LIMIT - 1) * WINDOW_S
    print(json.dumps({
        "bench": "drain_limited",
        "ours": round(CALLS / took_s, 2),
        "theirs": round(CALLS / least_s, 2),
        "unit": "calls/s",
        "ratio": round(least_s / took_s, 3),
        "goal": GOAL,
        "better": "higher",
        "note": f"bound: what {LIMIT} calls in any {WINDOW_S:g} s allow ({CALLS} calls in {least_s:g} s); "
                f"provider {PROVIDER}, one worker, one gateway",
    }))  # fmt: skip


if __name__ == "__main__":
    asyncio.run(main())
