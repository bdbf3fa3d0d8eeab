"""Minutes of 5 000 symbols, collected live by a whole instance: `python -m benchmarks.collect_live`.

There is no peer that does the same, so the bound is the one we promise. The lag of a bar is the time from its
close until another connection sees it as final: all bars of a minute are counted four times a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import numpy as np

from benchmarks.idle_memory import kind, processes
from benchmarks.instance import finsight, fresh_home
from benchmarks.report import report

GOAL_S = 10.0
MOST_GROWTH = 1.1
"""Of the memory from the first minute to the last; caches that fill are a few percent."""
SYMBOLS = 5_000
_PAUSE_S = 0.25
_LONGEST_S = 58.0
_WATCH = """
INSERT INTO symbol_universe (symbol, exchange, asset_type, calendar, tier)
SELECT 'SYN' || lpad(number::text, 4, '0'), 'SYNTHETIC', 'crypto', '24/7', 'T1'
FROM generate_series(1, $1) AS number ON CONFLICT (symbol) DO UPDATE SET tier = 'T1'
"""
_SEEN = "SELECT count(*) FROM candles_intraday WHERE interval = '1m' AND ts = $1 AND is_final"
_SETTINGS = {
    "FINSIGHT_PROVIDERS": json.dumps({"synthetic": {}}),
    "FINSIGHT_COLLECTION": json.dumps({"T1": {"1m": 60}}),
}


@dataclass
class Measured:
    """What was seen."""

    lags_s: list[float] = field(default_factory=list)
    """Of every bar; one that was not seen within a minute has the longest."""
    lost: int = 0
    memory_mb: list[dict[str, float]] = field(default_factory=list)
    """After every minute, by part."""


def main() -> None:
    """Start, watch all symbols, wait for the first minutes, measure, and print the line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=int, default=10)
    minutes: int = parser.parse_args().minutes
    with fresh_home() as environment:
        environment.update(_SETTINGS)
        finsight(environment, "up")
        home = Path(environment["FINSIGHT_HOME"])
        dsn = json.loads((home / "run" / "endpoints.json").read_text())["database_url"]
        measured = asyncio.run(measure(dsn, home, minutes))
    tell(measured, minutes)


async def measure(dsn: str, home: Path, minutes: int) -> Measured:
    """The bars of so many minutes after the first two, in which the symbols become known."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(_WATCH, SYMBOLS)
        measured = Measured()
        start = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=2)
        for number in range(minutes):
            await watch(connection, start + timedelta(minutes=number), measured)
            measured.memory_mb.append(memory_mb(home))
        return measured
    finally:
        await connection.close()


async def watch(connection: asyncpg.Connection[asyncpg.Record], ts: datetime, measured: Measured) -> None:
    """Count the bars that opened at `ts` from their close on until all are there."""
    close, seen, lag_s = ts + timedelta(minutes=1), 0, 0.0
    await asyncio.sleep(max(0.0, (close - datetime.now(UTC)).total_seconds()))
    while seen < SYMBOLS and lag_s < _LONGEST_S:
        now_seen: int = await connection.fetchval(_SEEN, ts)
        lag_s = (datetime.now(UTC) - close).total_seconds()
        measured.lags_s += [lag_s] * (now_seen - seen)
        seen = now_seen
        await asyncio.sleep(_PAUSE_S)
    measured.lags_s += [_LONGEST_S] * (SYMBOLS - seen)
    measured.lost += SYMBOLS - seen


def memory_mb(home: Path) -> dict[str, float]:
    """PSS of the instance by part."""
    used: dict[str, float] = {}
    for process in processes(home):
        part = kind(process)
        used[part] = used.get(part, 0.0) + process.memory_full_info().pss / 1e6
    return used


def tell(measured: Measured, minutes: int) -> None:
    """Print the line; fails when bars were lost or the memory grew."""
    p50_s, p99_s = np.percentile(measured.lags_s, [50, 99])
    first, last = measured.memory_mb[0], measured.memory_mb[-1]
    if measured.lost or total(last) > MOST_GROWTH * total(first):
        raise SystemExit(
            f"collect_live: {measured.lost} bars missing; PSS {total(first)} MB after the first minute, "
            f"{total(last)} MB after the last"
        )
    report(
        "collect_live",
        float(p99_s),
        GOAL_S,
        "s",
        digits=2,
        better="lower",
        note=f"bound, not a peer; 99th percentile from close to visible of {SYMBOLS} symbols over "
        f"{minutes} minutes, median {p50_s:.2f}, missing {measured.lost}; PSS in MB after the first and last "
        f"minute: all {total(first)} {total(last)}, {parts(first, last)}",
    )


def total(used: Mapping[str, float]) -> int:
    """All parts together."""
    return round(sum(used.values()))


def parts(first: Mapping[str, float], last: Mapping[str, float]) -> str:
    """The parts that the bars go through."""
    through = ("collector", "gateways", "PostgreSQL")
    return ", ".join(f"{name} {first.get(name, 0):.0f} {last.get(name, 0):.0f}" for name in through)


if __name__ == "__main__":
    main()
