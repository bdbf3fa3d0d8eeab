"""What is stored for a time only, and in which form: partitions, compression, old minutes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg

from cluster.market.intervals import Interval
from cluster.storage import rollups
from cluster.storage.database import Connection, Database

_CHUNKS = 20  # compressed in one call
_AHEAD = timedelta(days=32)
_ENSURE = "SELECT ensure_candle_partition(interval, $2) FROM unnest($1::text[]) AS interval"
_PARTITIONS = """
SELECT inhrelid::regclass::text AS name, part.starts, part.ends
FROM pg_inherits
CROSS JOIN LATERAL candle_partition('1m', to_timestamp(right(inhrelid::regclass::text, 7), 'YYYY_MM')) AS part
WHERE inhparent = 'candles_intraday_1m'::regclass AND part.ends <= $1
ORDER BY ends
"""
_CHUNKS_UNTIL = """
SELECT format('%I.%I', chunk_schema, chunk_name) AS name, hypertable_name AS parent, range_start AS starts,
       range_end AS ends
FROM timescaledb_information.chunks
WHERE hypertable_schema = current_schema() AND hypertable_name = ANY($1::text[]) AND range_end <= $2
ORDER BY ends
"""
_NOTED = "SELECT EXISTS (SELECT FROM rollup_dirty WHERE first < $1)"
# TimescaleDB notes changed minutes itself: in the first table until a refresh begins, then in the second.
_INVALID = """
SELECT EXISTS (
    SELECT FROM _timescaledb_catalog.continuous_agg AS view
    JOIN (
        SELECT hypertable_id AS id, lowest_modified_value AS first, greatest_modified_value AS last
        FROM _timescaledb_catalog.continuous_aggs_hypertable_invalidation_log
        UNION ALL
        SELECT materialization_id, lowest_modified_value, greatest_modified_value
        FROM _timescaledb_catalog.continuous_aggs_materialization_invalidation_log
    ) AS changed ON changed.id IN (view.raw_hypertable_id, view.mat_hypertable_id)
    WHERE view.user_view_schema = current_schema()
      AND changed.first < extract(epoch FROM $2::timestamptz) * 1e6
      AND changed.last >= extract(epoch FROM $1::timestamptz) * 1e6
)
"""
_GIVE_UP = "UPDATE rollup_state SET kept_from = greatest(kept_from, $1)"
_INTERVAL = "SELECT interval FROM {part} LIMIT 1"
_STATUS = "SELECT _timescaledb_functions.chunk_status_text($1::text::regclass)"


async def make_partitions(database: Database, now: datetime) -> None:
    """The partitions of this month and the next, so that no writer has to wait for one."""
    async with database.connection() as connection:
        for moment in (now, now + _AHEAD):
            await connection.execute(_ENSURE, list(Interval), moment)


async def drop_minutes(database: Database, before: datetime) -> list[str]:
    """Drop the partitions or chunks whose minutes are all older than `before`; returns their names.

    Only those whose rollups are kept: bring them up to date first. From then on rollups of that time do not
    change, even if minutes of it are written again.
    """
    timescale = await rollups.storage(database) == "timescale"
    async with database.connection() as connection:
        query, arguments = (
            (_CHUNKS_UNTIL, [["candles_intraday"], before]) if timescale else (_PARTITIONS, [before])
        )
        parts = await connection.fetch(query, *arguments)
    dropped = []
    for part in parts:
        async with database.transaction() as connection:
            if await _drop(connection, part, timescale=timescale):
                dropped.append(part["name"])
    return dropped


async def _drop(connection: Connection, part: asyncpg.Record, *, timescale: bool) -> bool:
    name, ends = part["name"], part["ends"]
    await connection.execute("SET LOCAL lock_timeout = '5s'")
    # A chunk has minutes or longer bars, never both.
    if await connection.fetchval(_INTERVAL.format(part=name)) not in (Interval.M1, None):
        return False
    if not timescale:  # first the parent, as readers do
        await connection.execute("LOCK TABLE ONLY candles_intraday_1m IN ACCESS EXCLUSIVE MODE")
    await connection.execute(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")
    # From here on nobody writes to it, and what was written is noted.
    kept = await rollups.state(connection)
    if kept.rolled_until < ends or await connection.fetchval(_NOTED, ends):
        return False
    given_up = ends <= kept.kept_from
    if timescale and not given_up and await connection.fetchval(_INVALID, part["starts"], ends):
        return False
    await connection.execute(_GIVE_UP, ends)
    await connection.execute(f"DROP TABLE {name}")
    return True


async def compress(database: Database, before: datetime) -> list[str]:
    """Compress the chunks that end before; again where late bars went into them. Returns their names.

    At most 20 in one call. Writers of a chunk wait meanwhile. Native storage has no chunks.
    """
    if await rollups.storage(database) != "timescale":
        return []
    done: list[str] = []
    async with database.connection() as connection:
        chunks = await connection.fetch(_CHUNKS_UNTIL, ["candles_intraday", "candles_daily"], before)
        for chunk in chunks:
            if len(done) < _CHUNKS and await _compress(connection, chunk):
                done.append(chunk["name"])
    return done


async def _compress(connection: Connection, chunk: asyncpg.Record) -> bool:
    status = await connection.fetchval(_STATUS, chunk["name"])
    if "COMPRESSED" in status and "PARTIAL" not in status:
        return False
    async with connection.transaction():
        await connection.execute("SELECT hold_chunk_alone($1, $2)", chunk["parent"], chunk["starts"])
        await connection.execute("SELECT compress_chunk($1::text::regclass)", chunk["name"])
    return True


def horizon(now: datetime, days: int) -> datetime:
    """The beginning of the UTC day `days` before."""
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days)
