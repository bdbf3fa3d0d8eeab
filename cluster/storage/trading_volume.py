"""Average daily volume, computed from the daily bars where they lie."""

from __future__ import annotations

from datetime import datetime

from cluster.storage.database import Database

SESSIONS = 21

# 45 days hold 21 sessions on every exchange, its longest holidays included.
# A session's local date is that of six hours after its open: exchanges open from 18:00 UTC of the day before
# to 18:00 UTC. Of several sources of a split one counts.
_ADV = """
SELECT universe.symbol, avg(session.volume * coalesce(split.ratio, 1)) AS adv
FROM symbol_universe AS universe
CROSS JOIN LATERAL (
    SELECT ts, volume FROM candles_daily
    WHERE symbol = universe.symbol AND interval = '1d' AND is_final
      AND ts < $1 AND ts >= $1 - interval '45 days'
    ORDER BY ts DESC LIMIT $2
) AS session
CROSS JOIN LATERAL (
    SELECT exp(sum(ln(value))) AS ratio
    FROM (
        SELECT DISTINCT ON (ex_date) value FROM corporate_actions
        WHERE symbol = universe.symbol AND kind = 'split'
          AND ex_date > ((session.ts AT TIME ZONE 'UTC') + interval '6 hours')::date
          AND ex_date <= ($1 AT TIME ZONE 'UTC')::date
        ORDER BY ex_date, source
    ) AS told
) AS split
GROUP BY universe.symbol
HAVING count(session.volume) = $2
"""


async def adv_21d(database: Database, as_of: datetime) -> dict[str, float]:
    """Average daily volume in today's units of the last 21 sessions before `as_of`, by symbol.

    A symbol is left out when one of the volumes is not known, or when it has fewer sessions in 45 days.
    """
    async with database.connection() as connection:
        rows = await connection.fetch(_ADV, as_of, SESSIONS)
    return {row["symbol"]: row["adv"] for row in rows}
