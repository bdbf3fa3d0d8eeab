"""A scan for gaps after one more minute against one of all: `python -m benchmarks.gap_scan_incremental`.

Both on the same 8 million minute bars of 1 000 symbols, in one run. In between a minute of all symbols
arrives, as it does between two scans of a running system.
"""

from __future__ import annotations

import asyncio
import statistics

from benchmarks.gap_table import SYMBOLS, month
from benchmarks.report import report

ROUNDS = 3
GOAL = 0.01


async def measure() -> tuple[list[float], list[float], int]:
    """Seconds of the scans of what is new, and of everything, and the number of bars."""
    new, whole = [], []
    async with month() as (table, bars):
        for _ in range(ROUNDS):
            await table.forget()
            whole.append((await table.scan())[0])
            for _ in range(5):
                await table.minute_passes()
                seconds, scanned = await table.scan()
                if (scanned.compared_all, scanned.compared_new, scanned.found) != (0, SYMBOLS, 0):
                    raise SystemExit(f"{scanned} is not what was new")
                new.append(seconds)
    return new, whole, bars


def main() -> None:
    """Run it and print its line."""
    new, whole, bars = asyncio.run(measure())
    ours, theirs = statistics.median(new), statistics.median(whole)
    note = (
        f"ours: a scan after one more minute of {SYMBOLS:,} symbols; theirs: our own scan of all "
        f"{bars:,} bars; medians of {len(new)} and {len(whole)} in one run"
    )
    report("gap_scan_incremental", ours, theirs, "s", digits=4, better="lower", goal=GOAL, note=note)


if __name__ == "__main__":
    main()
