"""Find the bars that should be stored and are not, and have them fetched."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

import numpy as np

from cluster import metrics
from cluster.backfill.plan import ranges, settled_end, within
from cluster.market import calendars, gaps
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument, Tier
from cluster.storage import bars, calendar_overrides, known_gaps
from cluster.storage.backfill_enqueue import Wanted
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_merge import Span
from cluster.storage.backfill_records import JobStatus
from cluster.storage.database import Database


@dataclass(frozen=True, slots=True)
class Found:
    """What a scan found in one range."""

    expected: int
    """Bars that should exist by now."""
    missing: int
    """Of these, bars to be fetched; known gaps and given-up ranges do not count."""
    gaps: tuple[gaps.Gap, ...]
    jobs: tuple[JobStatus, ...]
    """The jobs that will fetch them, queued now or before."""


@dataclass(frozen=True, slots=True)
class Scan:
    """How to look for gaps."""

    page_bars: int = 1_000
    """Most expected bars in one job: the provider's page."""
    grace_s: float = 60.0
    """A bar is missed from this long after its close."""
    dead_for_s: float = 86_400.0
    """How long the range of a dead job is left to a person before it is tried again."""


async def scan(
    database: Database,
    queue: BackfillQueue,
    instrument: Instrument,
    interval: Interval,
    start: datetime,
    end: datetime,
    *,
    now: datetime,
    tier: Tier | None = None,
    provider: str | None = None,
    how: Scan = Scan(),
) -> Found:
    """Compare the calendar of `instrument` with what is stored in [start, end) and queue what is missing.

    Not queued: bars that have not closed by `now`, known gaps that are not due for another look, and ranges
    that were given up lately. `tier` is the instrument's own unless given. Errors as in
    `calendars.expected_opens`.
    """
    end = settled_end(end, interval, now, how.grace_s)
    if end <= start:
        return Found(0, 0, (), ())
    await calendar_overrides.refresh(database)
    wanted = Span(start, end)
    expected = await asyncio.to_thread(calendars.expected_opens, instrument.calendar, interval, *wanted)
    stored = await bars.opens(database, instrument.symbol, interval, *wanted)
    skipped = await known_gaps.to_skip(database, instrument.symbol, interval, wanted, provider)
    skipped += await queue.dead_spans(instrument.symbol, interval, *wanted, within_s=how.dead_for_s)
    found = gaps.find(expected, np.concatenate([stored, within(expected, skipped)]), interval)
    metrics.gaps_found_total.labels(str(interval)).inc(len(found))
    asked = [
        Wanted(instrument.symbol, interval, span, tier or instrument.tier, provider)
        for span in ranges(found, expected, interval, how.page_bars)
    ]
    covering = chain.from_iterable(await queue.enqueue_many(asked))
    jobs = await queue.get_many(list(dict.fromkeys(covering)))
    in_order = {job.id: job for job in sorted(jobs.values(), key=lambda each: each.start)}
    return Found(len(expected), sum(gap.missing for gap in found), tuple(found), tuple(in_order.values()))
