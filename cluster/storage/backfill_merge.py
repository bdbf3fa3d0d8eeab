"""How a wanted range joins the ranges already in the queue. Pure; ranges are half-open.

A ready job may grow, a leased one never changes: only what it does not cover becomes work. No job becomes
longer than `longest`, so that each stays one short, restartable piece; ready jobs that touch and fit
together become one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple


class Span(NamedTuple):
    """Bar opens from `start` up to, not including, `end`; both in UTC."""

    start: datetime
    end: datetime


@dataclass(frozen=True)
class Merge:
    """One job as it should be."""

    span: Span
    jobs: tuple[int, ...]
    """Ids of the ready jobs that become this one, the oldest first; none: it is a new job."""
    grew: bool
    """Whether it covers minutes that no job covered before."""


def subtract(wanted: Span, covers: Iterable[Span]) -> list[Span]:
    """The parts of `wanted` that no range of `covers` holds, in order."""
    left: list[Span] = []
    at = wanted.start
    for cover in sorted(covers):
        if cover.start >= wanted.end:
            break
        if cover.start > at:
            left.append(Span(at, cover.start))
        at = max(at, cover.end)
    if at < wanted.end:
        left.append(Span(at, wanted.end))
    return left


def cut(span: Span, longest: timedelta) -> list[Span]:
    """`span` in neighbouring pieces, none longer than `longest`."""
    pieces: list[Span] = []
    at = span.start
    while at < span.end:
        pieces.append(Span(at, at + min(longest, span.end - at)))  # never past the end of the calendar
        at = pieces[-1].end
    return pieces


def merge(wanted: Span, ready: Mapping[int, Span], fixed: Sequence[Span], longest: timedelta) -> list[Merge]:
    """The jobs that together with `fixed` cover `wanted`, in order of their start.

    `ready` holds the ready jobs that touch `wanted`, by id; `fixed` the ranges of jobs that must not change.
    """
    missing = subtract(wanted, [*ready.values(), *fixed])
    parts = [Merge(span, (job,), grew=False) for job, span in ready.items()]
    parts += [Merge(piece, (), grew=True) for span in missing for piece in cut(span, longest)]
    merged: list[Merge] = []
    for part in sorted(parts, key=lambda part: part.span):
        if merged and _fits(merged[-1].span, part.span, longest):
            merged.append(_joined(merged.pop(), part))
        else:
            merged.append(part)
    return merged


def _fits(left: Span, right: Span, longest: timedelta) -> bool:
    return left.end == right.start and right.end - left.start <= longest


def _joined(left: Merge, right: Merge) -> Merge:
    jobs = tuple(sorted(left.jobs + right.jobs))
    return Merge(Span(left.span.start, right.span.end), jobs, grew=left.grew or right.grew)
