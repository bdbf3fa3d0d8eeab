"""The first scan for gaps of a month of minute bars: `python -m benchmarks.gap_scan`.

Everything a scan does: compare 8.19 million bars with the calendar, judge the gaps, queue and remember them.
"""

from __future__ import annotations

import asyncio
import statistics

from benchmarks.gap_table import LOST_EVERY, SYMBOLS, month
from benchmarks.report import report

ROUNDS = 3
BOUND_S = 5.0


async def measure() -> tuple[list[float], int]:
    """Seconds of each round, and the number of bars."""
    times = []
    async with month() as (table, bars):
        for _ in range(ROUNDS):
            await table.forget()
            seconds, scanned = await table.scan()
            if (scanned.found, scanned.asked) != (SYMBOLS // LOST_EVERY, SYMBOLS // LOST_EVERY):
                raise SystemExit(f"{scanned} is not what was lost")
            times.append(seconds)
    return times, bars


def main() -> None:
    """Run it and print its line."""
    times, bars = asyncio.run(measure())
    ours = statistics.median(times)
    note = (
        f"bound: {BOUND_S:g} s for {bars:,} minute bars of {SYMBOLS:,} symbols (XNYS, 30 days of "
        f"September 2025, rows in the order of their arrival); all are compared; median of {ROUNDS} scans"
    )
    report("gap_scan", ours, BOUND_S, "s", digits=2, better="lower", note=note)


if __name__ == "__main__":
    main()
