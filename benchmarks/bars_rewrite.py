"""A million bars written again, unchanged, against written new: `python -m benchmarks.bars_rewrite`."""

from __future__ import annotations

from benchmarks.million_bars import (
    BARS,
    Outcome,
    arriving,
    empty,
    private_server,
    report_rates,
    seconds,
    write_ours,
)
from cluster.storage.bars import WriteResult

ROUNDS = 5
GOAL = 1.0


async def measure() -> Outcome:
    """Write new, then the same again."""
    table = arriving()
    ours, theirs = [], []
    async with private_server() as database:
        for _ in range(ROUNDS):
            await empty(database)
            theirs.append(BARS / await seconds(lambda: write_ours(database, table)))
            ours.append(BARS / await seconds(lambda: write_ours(database, table)))
        if await write_ours(database, table) != WriteResult(0, 0, BARS):
            raise SystemExit("bars that did not change were written")
    note = f"peer: our own write of the same bars when they are new; medians of {ROUNDS} alternating rounds"
    return Outcome("bars_rewrite", ours, theirs, GOAL, note)


if __name__ == "__main__":
    report_rates(measure)
