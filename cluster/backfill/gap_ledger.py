"""The gaps of one symbol after a scan, and what to have fetched.

Pure: joins what was known with what was looked at. Whatever ranges are looked at, in whatever order, the
result is what one look at everything would have found, as long as nothing changes unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np

from cluster.market import gaps
from cluster.market.gap_classes import Answer, Verdict, classify
from cluster.market.gaps import Places, Runs
from cluster.market.instants import Instants, to_instant, to_moment
from cluster.market.intervals import Interval
from cluster.storage.backfill_merge import Span, subtract
from cluster.storage.gap_state import GapRow

_FIRST_CHECK = timedelta(minutes=5)
_LATER = timedelta(days=1)
_SHORT = 100  # bars; a longer gap tells by itself whether the provider has something in it


@dataclass(frozen=True, slots=True)
class Look:
    """Bars that were compared with the store, as half-open places, and those of them that are missing."""

    first: int
    after: int
    missing: Runs

    def among(self, kept: Places) -> Look:
        """The same as places in `kept`, which holds all that are missing."""
        first, after = np.searchsorted(kept, [self.first, self.after])
        return Look(int(first), int(after), np.searchsorted(kept, self.missing))


@dataclass(frozen=True, slots=True)
class Facts:
    """What the gaps of one symbol are judged by."""

    answers: Sequence[tuple[Span, Answer]] = ()
    jobs: Sequence[Span] = ()
    """In the queue, or given up lately by whoever offers them: not to be queued again."""
    failed: Sequence[tuple[Span, str]] = ()
    """Given up lately by one provider: not to be asked for from it."""
    venue: Sequence[Span] = ()
    """Missing for all watched symbols of the venue."""
    able: Callable[[Span], Collection[str] | None] = field(default=lambda _: None)
    """The providers that offer a range; `None`: not known."""
    is_early: bool = False
    """Whether what is not known will be: nothing is decided before."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A range to be fetched, and from whom; `None`: from whoever the router finds."""

    span: Span
    provider: str | None


@dataclass(frozen=True, slots=True)
class Ledger:
    """The gaps as they are now."""

    rows: list[GapRow]
    asks: list[Ask]
    found: int
    """Ranges that nobody knew anything of before."""


@dataclass(frozen=True, slots=True)
class _Piece:
    first: int
    last: int
    row: GapRow


def settle(
    expected: Instants,
    count: int,
    interval: Interval,
    known: Sequence[GapRow],
    looks: Sequence[Look],
    facts: Facts,
    now: datetime,
) -> Ledger:
    """The gaps after `looks`.

    `expected` holds the opens of all expected bars from the first gap or look on; those before `count` are
    settled, those after only tell where a gap ends. Gaps in `known` at which nobody looked stay.
    """
    # What is far from every gap says nothing, and there may be a year of it.
    kept = _near(expected, known, looks)
    expected, count = expected[kept], int(np.searchsorted(kept, count))
    looks = [look.among(kept) for look in looks]
    absent, owner = _joined(expected[:count], known, looks)
    pieces: list[_Piece] = []
    asks: list[Ask] = []
    for first, last in _elementary(expected, absent, owner, facts):
        before = known[owner[first]] if owner[first] >= 0 else None
        gap = gaps.gap_of(expected, first, last, interval)
        row, verdict = _judged(gap, to_moment(expected[last]), before, facts, now)
        pieces.append(_Piece(first, last, row))
        if row.tries > (before.tries if before else 0):
            wide = before is not None and last - first < _SHORT
            span = _with_neighbours(expected, first, last, interval) if wide else Span(gap.start, gap.end)
            asks += _asks(span, verdict.provider, _taken(facts, verdict.provider), expected)
    rows = [each.row for each in _merged(pieces, expected, interval)]
    new = sum(bool(np.all(owner[first : last + 1] < 0)) for first, last in gaps.runs(absent))
    return Ledger(rows, asks, new)


def _near(expected: Instants, known: Sequence[GapRow], looks: Sequence[Look]) -> Places:
    """The places of all that was or is missing, with one more on either side."""
    ranges = [places(expected, Span(row.start, row.end)) for row in known]
    ranges += [(first, last + 1) for look in looks for first, last in look.missing]
    near = [np.arange(max(0, first - 1), min(len(expected), after + 1)) for first, after in ranges]
    return np.unique(np.concatenate(near)) if near else np.array([], dtype=np.int64)


def _joined(
    expected: Instants, known: Sequence[GapRow], looks: Sequence[Look]
) -> tuple[np.ndarray[tuple[int], np.dtype[np.bool_]], Places]:
    """Which bars are missing, and by place the index of the known gap that holds it, or -1."""
    absent, owner = np.zeros(len(expected), dtype=bool), np.full(len(expected), -1, dtype=np.int64)
    for number, row in enumerate(known):
        first, after = np.searchsorted(expected, [to_instant(row.start), to_instant(row.end)])
        absent[first:after], owner[first:after] = True, number
    for look in looks:
        absent[look.first : look.after] = False
        for first, last in look.missing:
            absent[first : last + 1] = True
    return absent, owner


def _elementary(
    expected: Instants, absent: np.ndarray[tuple[int], np.dtype[np.bool_]], owner: Places, facts: Facts
) -> list[tuple[int, int]]:
    """Runs of missing bars that are in the same known gap and of which the same is known."""
    edges = np.zeros(len(absent) + 1, dtype=bool)
    edges[1:-1] = np.diff(owner) != 0
    for span in [*(span for span, _ in facts.answers), *facts.venue]:
        edges[np.searchsorted(expected[: len(absent)], [to_instant(moment) for moment in span])] = True
    pieces = []
    for first, last in gaps.runs(absent):
        cuts = np.flatnonzero(edges[first + 1 : last + 1]) + first + 1
        pieces += list(zip([int(first), *cuts.tolist()], [*(cuts - 1).tolist(), int(last)], strict=True))
    return pieces


def _judged(
    gap: gaps.Gap, last_open: datetime, before: GapRow | None, facts: Facts, now: datetime
) -> tuple[GapRow, Verdict]:
    """The gap with what is known by now; one try more than `before` when it is to be asked for."""
    span = Span(gap.start, gap.end)
    answers = [answer for of, answer in facts.answers if of.start <= gap.start and last_open < of.end]
    lacks = any(of.start <= gap.start and last_open < of.end for of in facts.venue)
    tries = before.tries if before else 0
    failed = {name for of, name in facts.failed if of.start < gap.end and gap.start < of.end}
    able = facts.able(span)
    if able is None and facts.is_early:
        return _put_off(gap, before, now)
    verdict = classify(answers, able, tries=tries, venue_lacks=lacks, failed=failed)
    if before and before.next_check_at > now and verdict.cause == before.cause:
        row = replace(before, start=gap.start, end=gap.end, missing=gap.missing, evidence=verdict.evidence)
        return replace(row, checked_at=now), verdict
    waits = verdict.not_before is not None and verdict.not_before > now
    tries += verdict.is_asked_for and not waits and subtract(span, _taken(facts, verdict.provider)) != []
    row = GapRow(
        gap.start, gap.end, gap.missing, verdict.cause, verdict.evidence,
        before.found_at if before else now, now, tries, _next_check(verdict, tries, now),
    )  # fmt: skip
    return row, verdict


def _put_off(gap: gaps.Gap, before: GapRow | None, now: datetime) -> tuple[GapRow, Verdict]:
    """What it was before; to be judged soon."""
    soon = now + _FIRST_CHECK
    if before:
        row = replace(before, start=gap.start, end=gap.end, missing=gap.missing, next_check_at=soon)
    else:
        told = "not every provider has told what it offers"
        row = GapRow(gap.start, gap.end, gap.missing, "not_fetched", told, now, now, 0, soon)
    return replace(row, checked_at=now), Verdict(row.cause, row.evidence)


def _taken(facts: Facts, provider: str | None) -> list[Span]:
    """What is not to be queued again for this provider."""
    return [*facts.jobs, *(span for span, name in facts.failed if name == provider)]


def _asks(span: Span, provider: str | None, jobs: Sequence[Span], expected: Instants) -> list[Ask]:
    """The parts of `span` that hold expected bars and that no job has."""
    left = [(part, places(expected, part)) for part in subtract(span, jobs)]
    return [Ask(part, provider) for part, (first, after) in left if first < after]


def _next_check(verdict: Verdict, tries: int, now: datetime) -> datetime:
    if not verdict.is_asked_for:
        return now + _LATER
    pause = min(_LATER, _FIRST_CHECK * int(4 ** max(0, min(tries, 10) - 1)))
    return max(now + pause, verdict.not_before or now)


def _with_neighbours(expected: Instants, first: int, last: int, interval: Interval) -> Span:
    """With one bar before and after: who has those and not the rest has a hole there."""
    wide = gaps.gap_of(expected, max(0, first - 1), min(len(expected) - 1, last + 1), interval)
    return Span(wide.start, wide.end)


def _merged(pieces: Sequence[_Piece], expected: Instants, interval: Interval) -> list[_Piece]:
    """Neighbours of one cause and evidence as one gap, as old as the older."""
    merged: list[_Piece] = []
    for piece in pieces:
        last = merged[-1] if merged else None
        if last is None or last.last + 1 != piece.first or _kind(last.row) != _kind(piece.row):
            merged.append(piece)
            continue
        gap = gaps.gap_of(expected, last.first, piece.last, interval)
        row = replace(
            last.row, start=gap.start, end=gap.end, missing=gap.missing,
            found_at=min(last.row.found_at, piece.row.found_at),
            tries=max(last.row.tries, piece.row.tries),
            next_check_at=min(last.row.next_check_at, piece.row.next_check_at),
        )  # fmt: skip
        merged[-1] = _Piece(last.first, piece.last, row)
    return merged


def _kind(row: GapRow) -> tuple[str, str]:
    return row.cause, row.evidence


def places(expected: Instants, span: Span) -> tuple[int, int]:
    """First place in `span` and first place after it."""
    first, after = np.searchsorted(expected, [to_instant(span.start), to_instant(span.end)])
    return int(first), int(after)
