"""What the backfill queue hands out: leases, the state of a job, its history."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NamedTuple
from uuid import UUID

import asyncpg

from cluster.market.intervals import Interval
from cluster.market.symbols import Tier
from cluster.storage.backfill_merge import Span

JobState = Literal["ready", "leased", "done", "dead"]
Outcome = Literal["done", "failed", "dead", "snoozed", "released", "lease_expired"]

TIERS: tuple[Tier, ...] = ("T0", "T1", "T2", "T3")
"""Most urgent first."""

LONGEST_PAUSE = timedelta(minutes=10)
"""After it some jobs try whether the provider still means what it said."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on one job for a while; whoever holds the token holds it."""

    id: int
    token: UUID
    symbol: str
    interval: Interval
    start: datetime
    end: datetime
    """Half-open: bar opens from `start` up to, not including, `end`."""
    tier: Tier
    provider: str | None
    """`None`: any provider that is entitled to it."""
    attempt: int
    """1 for the first."""
    max_attempts: int
    leased_at: datetime
    """When the attempt began, by the database's clock."""
    lease_until: datetime
    """By the database's clock."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job as its owner sees it."""

    id: int
    symbol: str
    interval: Interval
    start: datetime
    end: datetime
    tier: Tier
    provider: str | None
    state: JobState
    attempt: int
    reason: str | None
    """Why it waits again, or why it is dead."""
    rows_written: int | None
    """Bars inserted or revised; `None` before it is done."""
    enqueued_at: datetime
    started_at: datetime | None
    """Start of the first attempt since it was asked for, or grew."""
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a job; `outcome` is `None` while it runs."""

    token: UUID
    attempt: int
    worker: str
    started_at: datetime
    ended_at: datetime | None
    outcome: Outcome | None
    message: str | None


class Depth(NamedTuple):
    """What waits in one tier; a job whose lease has expired waits too."""

    waiting: int
    oldest_age_s: float
    """Seconds since the oldest was enqueued; 0.0 when nothing waits."""


def lease_of(row: asyncpg.Record) -> Lease:
    """The lease in a row of `backfill_jobs`."""
    return Lease(
        id=row["id"],
        token=row["lease_token"],
        symbol=row["symbol"],
        interval=Interval(row["interval"]),
        start=row["start_ts"],
        end=row["end_ts"],
        tier=row["tier"],
        provider=row["provider"],
        attempt=row["attempt"],
        max_attempts=row["max_attempts"],
        leased_at=row["leased_at"],
        lease_until=row["lease_until"],
    )


def status_of(row: asyncpg.Record) -> JobStatus:
    """The state in a row of `backfill_jobs`."""
    return JobStatus(
        id=row["id"],
        symbol=row["symbol"],
        interval=Interval(row["interval"]),
        start=row["start_ts"],
        end=row["end_ts"],
        tier=row["tier"],
        provider=row["provider"],
        state=row["state"],
        attempt=row["attempt"],
        reason=row["reason"],
        rows_written=row["rows_written"],
        enqueued_at=row["enqueued_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
    )


def span_of(row: asyncpg.Record) -> Span:
    """The range in a row with `start_ts` and `end_ts`."""
    return Span(row["start_ts"], row["end_ts"])
