"""Which of the expected bars of many symbols are stored: the database answers with one bit a bar."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import asyncpg
import numpy as np

from cluster.market import gaps
from cluster.market.gaps import Runs
from cluster.market.instants import Instants, to_moment
from cluster.market.intervals import Interval
from cluster.storage.bar_windows import candle_table
from cluster.storage.database import Connection

BITS_AT_ONCE = 32_000_000
"""Most expected bars, over all symbols, that one statement looks at."""
_WORD = 64

# By place in the list of expected opens, so that SQL knows no calendar; what nobody expects falls out.
# Grouped so that the planner knows each to be one, and hashes these and not the bars.
_EXPECTED = """
    {table} JOIN (
        SELECT ts, min(number) - 1 AS place FROM unnest($3::timestamptz[]) WITH ORDINALITY AS one (ts, number)
        GROUP BY ts
    ) AS expected USING (ts)
    WHERE symbol = ANY($1::text[]) AND interval = $2 AND is_final AND ts >= $4 AND ts <= $5
"""
# To count is a third of the work of telling which, and all cores share it: few groups come out of many bars.
_WHOLE = "SELECT symbol FROM {expected} GROUP BY symbol HAVING count(*) = $6::bigint"
_PRESENT = """
WITH present AS (
    SELECT symbol, (place >> 6)::int AS word, bit_or(1::bigint << (place & 63)::int) AS bits
    FROM {expected} GROUP BY 1, 2)
SELECT symbol, array_agg(word) AS words, array_agg(bits) AS bits FROM present GROUP BY symbol
"""
# A few bars of each symbol, as a scan finds them new: one look into the index for each, without a plan.
_FEW = 4
_LACKING = """
SELECT symbol, array_agg(place - 1 ORDER BY place) AS places
FROM unnest($1::text[]) AS one (symbol) CROSS JOIN unnest($3::timestamptz[]) WITH ORDINALITY AS of (ts, place)
WHERE NOT EXISTS (
    SELECT FROM {table} AS bar
    WHERE bar.symbol = one.symbol AND bar.interval = $2 AND bar.ts = of.ts AND is_final
      AND bar.ts >= $4 AND bar.ts <= $5)
GROUP BY symbol
"""
# Each minute matches a bar of every symbol. The planner, which cannot know how many those are, must not sort
# the bars for a merge, nor look up each minute by itself; nor take the plan of a minute for that of a month.
_PLAN = """
SET LOCAL enable_mergejoin = off; SET LOCAL enable_nestloop = off; SET LOCAL work_mem = '64MB';
SET LOCAL plan_cache_mode = force_custom_plan
"""
# The statements that follow in the transaction look up a row each.
_PLAN_AS_BEFORE = """
SET LOCAL enable_mergejoin TO DEFAULT; SET LOCAL enable_nestloop TO DEFAULT; SET LOCAL work_mem TO DEFAULT;
SET LOCAL plan_cache_mode TO DEFAULT
"""


async def missing(
    connection: Connection, interval: Interval, symbols: Sequence[str], expected: Instants
) -> dict[str, Runs]:
    """What of `expected` (ascending, unique) is not stored as final bars, by symbol.

    Symbols that lack nothing are left out. Ask for at most `BITS_AT_ONCE` bars over all symbols; to be called
    inside a transaction.
    """
    if not len(expected) or not symbols:
        return {}
    table = candle_table(interval)
    moments = await asyncio.to_thread(lambda: [to_moment(open_) for open_ in expected])
    range_ = interval, moments, moments[0], moments[-1]
    if len(expected) <= _FEW:
        rows = await connection.fetch(_LACKING.format(table=table), symbols, *range_)
        return {row["symbol"]: gaps.runs(np.isin(np.arange(len(expected)), row["places"])) for row in rows}
    await connection.execute(_PLAN)
    expected_bars = _EXPECTED.format(table=table)
    rows = await connection.fetch(_WHOLE.format(expected=expected_bars), symbols, *range_, len(expected))
    whole = {row["symbol"] for row in rows}
    others = [symbol for symbol in symbols if symbol not in whole]
    rows = await connection.fetch(_PRESENT.format(expected=expected_bars), others, *range_) if others else []
    await connection.execute(_PLAN_AS_BEFORE)
    return await asyncio.to_thread(_absent, rows, others, len(expected))


def _absent(rows: Iterable[asyncpg.Record], symbols: Sequence[str], count: int) -> dict[str, Runs]:
    """The runs of zero bits of each symbol that has some; a symbol without a row has no bit at all."""
    found = dict.fromkeys(symbols, np.array([[0, count - 1]]))
    for row in rows:
        words = np.zeros(-(-count // _WORD), dtype=np.int64)
        words[np.array(row["words"])] = np.array(row["bits"], dtype=np.int64)
        bits = np.unpackbits(words.view(np.uint8), bitorder="little", count=count)
        found[row["symbol"]] = gaps.runs(bits == 0)
    return {symbol: missing for symbol, missing in found.items() if len(missing)}
