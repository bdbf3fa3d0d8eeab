"""How requests for bars of one symbol, interval and provider join the jobs that are there. Pure.

Requests join one after another, as if each had been made alone; what comes of all of them together is known
at the end.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from cluster.market.symbols import Tier
from cluster.storage.backfill_merge import Merge, Span, merge
from cluster.storage.backfill_records import LONGEST_PAUSE

_FIRST_NEW = 2**62
"""Ids from here on are of jobs that the database does not have yet; they are younger than all others."""


@dataclass(slots=True)
class Waiting:
    """A ready job, as it is or as it shall be."""

    id: int
    span: Span
    tier: Tier
    enqueued_at: datetime
    due: datetime
    run_at: datetime
    attempt: int


class Joining:
    """`ready` jobs may grow and join, `fixed` ones (by id) stay as they are; `now` is the database's.

    A ready job that was told to wait does neither before its time: new minutes would wait with it for what
    may be no concern of theirs, and it would get its attempts back before it has waited for the next.
    """

    def __init__(
        self, ready: Iterable[Waiting], fixed: Mapping[int, Span], longest: timedelta, now: datetime
    ) -> None:
        self._ready = {job.id: job for job in ready}
        self._starts = sorted((job.span.start, job.id) for job in self._ready.values())
        self._fixed = dict(fixed)
        self._longest, self._now = longest, now
        self._next_id = _FIRST_NEW
        self._absorbed: dict[int, int] = {}
        self._changed: set[int] = set()

    def add(self, span: Span, tier: Tier, patience: timedelta) -> list[int]:
        """Ids of the jobs that cover `span` from now on; `patience` is its time to the virtual deadline."""
        touching = self._touching(span)
        waiting = {job: each for job, each in touching.items() if self._ready[job].run_at > self._now}
        fixed = {job: each for job, each in (waiting | self._fixed).items() if _overlap(each, span)}
        free = {job: each for job, each in touching.items() if job not in waiting}
        merged = merge(span, free, list(fixed.values()), self._longest)
        covering = [one for one in merged if _overlap(one.span, span)]
        due = self._now + patience
        for job in waiting.keys() & fixed.keys():
            self._hurry(self._ready[job], tier, due)
        return [self._become(one, tier, due) for one in covering] + list(fixed)

    @property
    def changed(self) -> list[Waiting]:
        """Jobs of the database that are to be changed, and still ready."""
        return [self._ready[job] for job in sorted(self._changed) if job in self._ready]

    @property
    def gone(self) -> dict[int, int]:
        """Jobs of the database that went into others: id -> id of the one that stands for it."""
        return {job: self.standing_for(job) for job in self._absorbed if job < _FIRST_NEW}

    @property
    def new(self) -> list[Waiting]:
        """Jobs that the database does not have yet."""
        return [job for job in self._ready.values() if job.id >= _FIRST_NEW]

    def standing_for(self, job: int) -> int:
        """The job itself, or the one that it has gone into."""
        while job in self._absorbed:
            job = self._absorbed[job]
        return job

    def _touching(self, span: Span) -> dict[int, Span]:
        """Ready jobs do not overlap each other, so those that touch the range are neighbours."""
        at = max(0, bisect_left(self._starts, (span.start, 0)) - 1)
        found: dict[int, Span] = {}
        while at < len(self._starts) and self._starts[at][0] <= span.end:
            job = self._ready[self._starts[at][1]]
            if job.span.end >= span.start:
                found[job.id] = job.span
            at += 1
        return found

    def _become(self, one: Merge, tier: Tier, due: datetime) -> int:
        if not one.jobs:
            self._put(Waiting(self._next_id, one.span, tier, self._now, due, self._now, 0))
            self._next_id += 1
            return self._next_id - 1
        kept = one.jobs[0]
        if one.grew or self._ready[kept].tier > tier or len(one.jobs) > 1:
            self._join(one, tier, due)
        return kept

    def _hurry(self, job: Waiting, tier: Tier, due: datetime) -> None:
        """Who is more urgent than those who asked before tries after `LONGEST_PAUSE` at the latest."""
        if tier < job.tier:
            job.tier, job.due = tier, min(due, job.due)
            job.run_at = min(job.run_at, self._now + LONGEST_PAUSE)
            self._changed.add(job.id)

    def _join(self, one: Merge, tier: Tier, due: datetime) -> None:
        """The most urgent wins. New minutes get all attempts."""
        jobs = [self._take(job) for job in one.jobs]
        kept = jobs[0].id
        self._absorbed |= {job.id: kept for job in jobs[1:]}
        self._put(
            Waiting(
                kept,
                one.span,
                min(tier, *(job.tier for job in jobs)),
                min(job.enqueued_at for job in jobs),
                min(due, *(job.due for job in jobs)),
                max(job.run_at for job in jobs),
                0 if one.grew else max(job.attempt for job in jobs),
            )
        )
        if kept < _FIRST_NEW:
            self._changed.add(kept)

    def _take(self, job: int) -> Waiting:
        taken = self._ready.pop(job)
        self._starts.pop(bisect_left(self._starts, (taken.span.start, job)))
        return taken

    def _put(self, job: Waiting) -> None:
        self._ready[job.id] = job
        insort(self._starts, (job.span.start, job.id))


def _overlap(left: Span, right: Span) -> bool:
    return left.start < right.end and right.start < left.end
