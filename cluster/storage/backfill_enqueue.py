"""Put a wanted range into the queue, or find the jobs that have it already.

Requests of one (symbol, interval) go one after another by an advisory lock; inside it the only changes left
to others are claims and the ends of attempts, and neither changes a range. So the rows that could be locked
as `ready` may grow, and whatever else is active covers its range and stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from cluster.errors import InputError
from cluster.market.instants import to_instant
from cluster.market.intervals import Interval
from cluster.market.symbols import Tier, parse_symbol
from cluster.storage.backfill_merge import Merge, Span, merge
from cluster.storage.backfill_records import TIERS, JobStatus, span_of, status_of
from cluster.storage.database import Connection

_LOCK = """
SELECT set_config('idle_in_transaction_session_timeout', '10s', true),
       pg_advisory_xact_lock(hashtextextended('backfill ' || $1 || ' ' || $2, 0))
"""

_READY = """
SELECT id, start_ts, end_ts, tier FROM backfill_jobs
WHERE symbol = $1 AND interval = $2 AND provider IS NOT DISTINCT FROM $3
  AND state = 'ready' AND start_ts <= $5 AND end_ts >= $4
ORDER BY id FOR UPDATE
"""

# After the lock above, so with a younger snapshot: nothing active can be missing from both.
_FIXED = """
SELECT id, start_ts, end_ts FROM backfill_jobs
WHERE symbol = $1 AND interval = $2 AND provider IS NOT DISTINCT FROM $3
  AND state IN ('ready', 'leased') AND start_ts < $5 AND end_ts > $4 AND NOT id = ANY($6::bigint[])
"""

_ABSORB = """
UPDATE backfill_jobs SET state = 'merged', merged_into = $2, finished_at = now() WHERE id = ANY($1::bigint[])
"""

# The most urgent wins, the longest wait that a provider asked for is kept, and new minutes get all attempts.
_GROW = """
WITH joined AS (
    SELECT min(tier) AS tier, min(enqueued_at) AS enqueued_at, min(due) AS due, max(run_at) AS run_at,
           max(attempt) AS attempt
    FROM backfill_jobs WHERE id = $1 OR id = ANY($2::bigint[]))
UPDATE backfill_jobs j
SET start_ts = $3, end_ts = $4, tier = least(joined.tier, $5), enqueued_at = joined.enqueued_at,
    due = least(joined.due, now() + $6::interval), run_at = joined.run_at,
    attempt = CASE WHEN $7 THEN 0 ELSE joined.attempt END
FROM joined WHERE j.id = $1
"""

_INSERT = """
INSERT INTO backfill_jobs (symbol, interval, provider, start_ts, end_ts, tier, due, max_attempts)
SELECT $1, $2, $3, piece.start_ts, piece.end_ts, $6, now() + $7::interval, $8
FROM unnest($4::timestamptz[], $5::timestamptz[]) AS piece (start_ts, end_ts)
RETURNING id
"""

_STATUSES = "SELECT * FROM backfill_jobs WHERE id = ANY($1::bigint[]) ORDER BY start_ts"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A range of bars that somebody wants; raises `InputError` when it makes no sense."""

    symbol: str
    interval: Interval
    span: Span
    tier: Tier
    provider: str | None

    def __post_init__(self) -> None:
        parse_symbol(self.symbol)
        if self.tier not in TIERS:
            raise InputError(f"tier {self.tier!r} is none of {', '.join(TIERS)}")
        if to_instant(self.span.start) >= to_instant(self.span.end):
            raise InputError(
                f"the range starts at {self.span.start.isoformat()}, which is not before its end "
                f"{self.span.end.isoformat()}; the end itself is not part of it"
            )

    @property
    def key(self) -> tuple[str, str, str | None]:
        """Jobs of the same key may merge."""
        return self.symbol, str(self.interval), self.provider


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for every job of a queue."""

    max_attempts: int
    longest_bars: int
    """Longest range of a job, in slots of its interval."""
    most_jobs: int
    """Most jobs that one request may become."""
    ageing_step: timedelta
    """Head start of a tier before the next."""

    def longest(self, interval: Interval) -> timedelta:
        """Longest range of a job of `interval`."""
        return timedelta(seconds=self.longest_bars * interval.seconds)

    def patience(self, tier: Tier) -> timedelta:
        """Time from enqueueing to the virtual deadline."""
        return self.ageing_step * TIERS.index(tier)


async def enqueue(connection: Connection, wanted: Wanted, rules: Rules) -> list[JobStatus]:
    """The jobs that cover `wanted`, new or not, in order; to be called inside a transaction."""
    _refuse_too_long(wanted, rules)
    await lock(connection, wanted)
    ready = {row["id"]: row for row in await connection.fetch(_READY, *wanted.key, *wanted.span)}
    fixed = await connection.fetch(_FIXED, *wanted.key, *wanted.span, list(ready))
    spans = {job: span_of(row) for job, row in ready.items()}
    merged = merge(wanted.span, spans, [span_of(row) for row in fixed], rules.longest(wanted.interval))
    merged = [one for one in merged if _overlap(one.span, wanted.span)]
    for one in merged:
        if one.jobs:
            urgent = ready[one.jobs[0]]["tier"] > wanted.tier
            if one.grew or urgent or len(one.jobs) > 1:
                await _grow(connection, one, wanted, rules)
    new = await _insert(connection, [one.span for one in merged if not one.jobs], wanted, rules)
    jobs = [one.jobs[0] for one in merged if one.jobs] + new + [row["id"] for row in fixed]
    return [status_of(row) for row in await connection.fetch(_STATUSES, jobs)]


async def lock(connection: Connection, wanted: Wanted) -> None:
    """Keep others from adding or growing jobs of this symbol and interval until the transaction ends."""
    await connection.execute(_LOCK, wanted.symbol, str(wanted.interval))


def _overlap(left: Span, right: Span) -> bool:
    return left.start < right.end and right.start < left.end


def _refuse_too_long(wanted: Wanted, rules: Rules) -> None:
    """Before anything is cut into pieces: a slip in a date must not become millions of them."""
    count = -((wanted.span.start - wanted.span.end) // rules.longest(wanted.interval))  # rounded up
    if count > rules.most_jobs:
        raise InputError(
            f"the range would become {count} jobs of {rules.longest_bars} bars, more than the "
            f"{rules.most_jobs} that one request may add; ask for a shorter range"
        )


async def _grow(connection: Connection, one: Merge, wanted: Wanted, rules: Rules) -> None:
    kept, absorbed = one.jobs[0], list(one.jobs[1:])
    if absorbed:
        await connection.execute(_ABSORB, absorbed, kept)
    patience = rules.patience(wanted.tier)
    await connection.execute(_GROW, kept, absorbed, *one.span, wanted.tier, patience, one.grew)


async def _insert(connection: Connection, spans: list[Span], wanted: Wanted, rules: Rules) -> list[int]:
    if not spans:
        return []
    starts, ends = [span.start for span in spans], [span.end for span in spans]
    patience = rules.patience(wanted.tier)
    rows = await connection.fetch(
        _INSERT, *wanted.key, starts, ends, wanted.tier, patience, rules.max_attempts
    )
    return [row["id"] for row in rows]
