"""Put wanted ranges into the queue, or find the jobs that have them already; any number in one transaction.

Requests of one (symbol, interval) go one after another by an advisory lock; inside it the only changes left
to others are claims and the ends of attempts, and neither changes a range. So the rows that could be locked
as `ready` may grow, and whatever else is active covers its range and stays as it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias
from zlib import crc32

from cluster.errors import InputError
from cluster.market.instants import to_instant
from cluster.market.intervals import Interval
from cluster.market.symbols import Tier, parse_symbol
from cluster.storage.backfill_join import Joining, Waiting
from cluster.storage.backfill_merge import Span
from cluster.storage.backfill_records import TIERS, JobStatus, span_of, status_of
from cluster.storage.database import Connection

Key: TypeAlias = tuple[str, str, str | None]
"""Symbol, interval, provider: jobs of the same key may merge."""

_YEARS = (1800, 9000)  # within them every time zone and sum of times is fine, and no database knows infinity
_LOCK_CLASS = 0x66696C6C  # "fill"
_LOCK_STRIPES = 1024  # bounds the locks of a large request; symbols of one stripe only wait for each other
_LOCK = """
SELECT now() AS now, pg_advisory_xact_lock($1, stripe),
       set_config('idle_in_transaction_session_timeout', '10s', true)
FROM unnest($2::int[]) AS stripe
"""

_AT_ONCE = 2_000
"""About as many requests are joined between two statements."""

_OF_KEYS = """
FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[])
    AS key (symbol, interval, provider, first, last)
JOIN backfill_jobs j
    ON j.symbol = key.symbol AND j.interval = key.interval AND j.provider IS NOT DISTINCT FROM key.provider
"""

_READY = f"""
SELECT j.* {_OF_KEYS}
WHERE j.state = 'ready' AND j.start_ts <= key.last AND j.end_ts >= key.first
ORDER BY j.id FOR UPDATE OF j
"""

# After the locks of the rows above, so with a younger snapshot: nothing active can be missing from both.
_FIXED = f"""
SELECT j.id, j.symbol, j.interval, j.provider, j.start_ts, j.end_ts {_OF_KEYS}
WHERE j.state IN ('ready', 'leased') AND j.start_ts < key.last AND j.end_ts > key.first
  AND j.id <> ALL($6::bigint[])
"""

_ABSORB = """
UPDATE backfill_jobs j SET state = 'merged', merged_into = gone.into_id, finished_at = now()
FROM unnest($1::bigint[], $2::bigint[]) AS gone (id, into_id) WHERE j.id = gone.id
"""

_CHANGE = """
UPDATE backfill_jobs j
SET start_ts = n.start_ts, end_ts = n.end_ts, tier = n.tier, enqueued_at = n.enqueued_at, due = n.due,
    run_at = n.run_at, attempt = n.attempt, started_at = CASE WHEN n.attempt > 0 THEN j.started_at END
FROM unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[], $4::text[], $5::timestamptz[],
            $6::timestamptz[], $7::timestamptz[], $8::int[])
    AS n (id, start_ts, end_ts, tier, enqueued_at, due, run_at, attempt)
WHERE j.id = n.id
"""

_INSERT = """
INSERT INTO backfill_jobs (symbol, interval, provider, start_ts, end_ts, tier, enqueued_at, run_at, due,
                           max_attempts)
SELECT symbol, interval, provider, start_ts, end_ts, tier, now(), now(), due, $8
FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::text[],
            $7::timestamptz[]) AS n (symbol, interval, provider, start_ts, end_ts, tier, due)
RETURNING id, symbol, interval, provider, start_ts
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
        if not (self.provider or "").isprintable():
            raise InputError(f"provider {self.provider!r:.60} is no name of one", "#/provider")
        for name, moment in zip(("start", "end"), self.span, strict=True):
            if not _YEARS[0] <= moment.year < _YEARS[1]:
                raise InputError(
                    f"{name} {moment.isoformat()}: expected a year from {_YEARS[0]} to {_YEARS[1] - 1}",
                    f"#/{name}",
                )
        if to_instant(self.span.start) >= to_instant(self.span.end):
            raise InputError(
                f"the range starts at {self.span.start.isoformat()}, which is not before its end "
                f"{self.span.end.isoformat()}; the end itself is not part of it"
            )

    @property
    def key(self) -> Key:
        """Requests of the same key may merge."""
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
    (jobs,) = await enqueue_many(connection, [wanted], rules)
    return [status_of(row) for row in await connection.fetch(_STATUSES, jobs)]


async def enqueue_many(
    connection: Connection, wanted: Sequence[Wanted], rules: Rules
) -> list[tuple[int, ...]]:
    """For each of `wanted` the ids of the jobs that cover it; to be called inside a transaction.

    Each joins what is there by the same rules, whether it comes alone or with others.
    """
    if not wanted:
        return []
    for each in wanted:
        _refuse_too_long(each, rules)
    now = await lock(connection, wanted)
    covering: list[tuple[int, ...]] = [()] * len(wanted)
    for part in _parts(wanted):
        found = await _join(connection, [wanted[at] for at in part], rules, now)
        for at, jobs in zip(part, found, strict=True):
            covering[at] = jobs
    return covering


async def _join(
    connection: Connection, wanted: Sequence[Wanted], rules: Rules, now: datetime
) -> list[tuple[int, ...]]:
    """`enqueue_many` of one part, whose keys are in no other."""
    lines = await _lines(connection, _hulls(wanted), rules, now)
    covering = [lines[each.key].add(each.span, each.tier, rules.patience(each.tier)) for each in wanted]
    ids = await _apply(connection, lines, rules)
    return [
        tuple(dict.fromkeys(ids.get((each.key, job), job) for job in map(lines[each.key].standing_for, jobs)))
        for each, jobs in zip(wanted, covering, strict=True)
    ]


async def lock(connection: Connection, wanted: Collection[Wanted]) -> datetime:
    """Keep others from adding or growing jobs of these symbols and intervals until the transaction ends.

    All in one order, so that two large requests do not deadlock. Returns the transaction's time.
    """
    keys = {f"{each.symbol} {each.interval}" for each in wanted}
    stripes = sorted({crc32(key.encode()) % _LOCK_STRIPES for key in keys})
    now: datetime = (await connection.fetch(_LOCK, _LOCK_CLASS, stripes))[0]["now"]
    return now


def _parts(wanted: Sequence[Wanted]) -> Iterator[list[int]]:
    """Places in `wanted`, those of one key together: about as many at once as we are soon done with.

    The server ends a transaction that says nothing for ten seconds, and our process has others to serve.
    """
    places: dict[Key, list[int]] = defaultdict(list)
    for at, each in enumerate(wanted):
        places[each.key].append(at)
    part: list[int] = []
    for of_key in places.values():
        part += of_key
        if len(part) >= _AT_ONCE:
            yield part
            part = []
    if part:
        yield part


def _refuse_too_long(wanted: Wanted, rules: Rules) -> None:
    """Before anything is cut into pieces: a slip in a date must not become millions of them."""
    count = -((wanted.span.start - wanted.span.end) // rules.longest(wanted.interval))  # rounded up
    if count > rules.most_jobs:
        raise InputError(
            f"the range would become {count} jobs of {rules.longest_bars} bars, more than the "
            f"{rules.most_jobs} that one request may add; ask for a shorter range"
        )


def _hulls(wanted: Sequence[Wanted]) -> dict[Key, Span]:
    """For each key the range from its first to its last wanted bar."""
    hulls: dict[Key, Span] = {}
    for each in wanted:
        hull = hulls.get(each.key, each.span)
        hulls[each.key] = Span(min(hull.start, each.span.start), max(hull.end, each.span.end))
    return hulls


async def _lines(
    connection: Connection, hulls: Mapping[Key, Span], rules: Rules, now: datetime
) -> dict[Key, Joining]:
    """The active jobs of each key, the ready ones locked."""
    columns = _columns([(*key, *hull) for key, hull in hulls.items()])
    ready: dict[Key, list[Waiting]] = defaultdict(list)
    fixed: dict[Key, dict[int, Span]] = defaultdict(dict)
    rows = await connection.fetch(_READY, *columns)
    for row in rows:
        ready[row["symbol"], row["interval"], row["provider"]].append(
            Waiting(
                row["id"], span_of(row), row["tier"], row["enqueued_at"], row["due"], row["run_at"],
                row["attempt"],
            )
        )  # fmt: skip
    for row in await connection.fetch(_FIXED, *columns, [row["id"] for row in rows]):
        fixed[row["symbol"], row["interval"], row["provider"]][row["id"]] = span_of(row)
    return {key: Joining(ready[key], fixed[key], rules.longest(Interval(key[1])), now) for key in hulls}


async def _apply(
    connection: Connection, lines: Mapping[Key, Joining], rules: Rules
) -> dict[tuple[Key, int], int]:
    """Write down what became of the jobs; returns the ids of the new ones by (key, their id until now)."""
    gone = [pair for line in lines.values() for pair in line.gone.items()]
    if gone:
        await connection.execute(_ABSORB, *_columns(gone))
    changed = [job for line in lines.values() for job in line.changed]
    if changed:
        rows = [(j.id, *j.span, j.tier, j.enqueued_at, j.due, j.run_at, j.attempt) for j in changed]
        await connection.execute(_CHANGE, *_columns(rows))
    new = [(key, job) for key, line in lines.items() for job in line.new]
    if not new:
        return {}
    columns = _columns([(*key, *job.span, job.tier, job.due) for key, job in new])
    found = await connection.fetch(_INSERT, *columns, rules.max_attempts)
    ids = {((row["symbol"], row["interval"], row["provider"]), row["start_ts"]): row["id"] for row in found}
    return {(key, job.id): ids[key, job.span.start] for key, job in new}


def _columns(rows: Collection[tuple[object, ...]]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)]
