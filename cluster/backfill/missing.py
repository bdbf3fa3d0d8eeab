"""What is missing of many symbols, and why: one pass of the database over their bars, one over the queue."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np

from cluster import logs
from cluster.backfill.plan import settled_end
from cluster.backfill.scan import Scan
from cluster.market import calendars, gaps
from cluster.market.gaps import Gap, Places
from cluster.market.instants import Instants, to_instant
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.storage import bar_breaks, calendar_overrides, rollups
from cluster.storage.backfill_merge import Span
from cluster.storage.backfill_records import span_of
from cluster.storage.bar_breaks import Breaks
from cluster.storage.bar_windows import Windows
from cluster.storage.database import Database

log = logs.get(__name__)

CauseName = Literal[
    "not_fetched", "queued", "given_up", "no_data", "provider_hole", "rejected", "no_trades", "venue_down",
    "unfillable",
]  # fmt: skip

# The first cause that explains a missing bar is told: what is under way, then what is known, then failures.
_CAUSES = """
SELECT 1 AS rank, symbol, 'queued' AS name, provider, NULL AS detail, start_ts, end_ts FROM backfill_jobs
WHERE symbol = ANY($1::text[]) AND interval = $2 AND state IN ('ready', 'leased')
  AND start_ts < $4 AND end_ts > $3
UNION ALL
SELECT 2, symbol, cause, NULL, evidence, start_ts, end_ts FROM gaps
WHERE symbol = ANY($1::text[]) AND interval = $2 AND start_ts < $4 AND end_ts > $3
  AND cause IN ('no_trades', 'venue_down', 'unfillable')
UNION ALL
SELECT 3, symbol, cause, provider, NULL, start_ts, end_ts FROM known_gaps
WHERE symbol = ANY($1::text[]) AND interval = $2 AND start_ts < $4 AND end_ts > $3
UNION ALL
SELECT 4, symbol, 'given_up', provider, reason, start_ts, end_ts FROM backfill_jobs
WHERE symbol = ANY($1::text[]) AND interval = $2 AND state = 'dead' AND start_ts < $4 AND end_ts > $3
ORDER BY rank, start_ts, provider
"""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why bars are missing."""

    name: CauseName
    provider: str | None = None
    """Who was asked, where that is known."""
    detail: str | None = None
    """Why a job was given up, or what the gap watch went by."""

    @property
    def is_known(self) -> bool:
        """Whether the bars are known not to be had, for now or for ever."""
        return self.name not in ("not_fetched", "queued", "given_up")


OPEN = Cause("not_fetched")


@dataclass(frozen=True, slots=True)
class Missing:
    """Missing bars that follow each other and have one cause."""

    instrument: Instrument
    interval: Interval
    gap: Gap
    cause: Cause


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which bars of an instrument should be stored: `start <= open < end`."""

    instrument: Instrument
    start: datetime
    end: datetime


async def since(
    database: Database, instruments: Sequence[Instrument], interval: Interval, start: datetime | None
) -> dict[str, datetime]:
    """From when on bars are expected, by symbol: `start`, or the oldest bar ever seen; none without any.

    Never before those that are kept: what was deleted for its age is not missed.
    """
    names = [instrument.symbol for instrument in instruments]
    async with database.connection() as connection:
        kept_from = await rollups.given_up(connection, interval)
    found = dict.fromkeys(names, start) if start else await bar_breaks.oldest(database, names, interval)
    return {symbol: max(first, kept_from) for symbol, first in found.items()}


def settled(
    instruments: Sequence[Instrument],
    starts: Mapping[str, datetime],
    interval: Interval,
    end: datetime,
    now: datetime,
) -> list[Wanted]:
    """What should be stored by `now`, of the instruments that have a start before `end`."""
    end = settled_end(end, interval, now, Scan().grace_s)
    known = [(each, starts[each.symbol]) for each in instruments if each.symbol in starts]
    return [Wanted(instrument, start, end) for instrument, start in known if start < end]


async def find(database: Database, wanted: Sequence[Wanted], interval: Interval) -> list[Missing]:
    """The missing bars of all that is wanted, in its order and by time. Errors as in `expected_opens`.

    Symbols whose calendar is not known are left out and logged: one must not hide what all others lack.
    """
    await calendar_overrides.refresh(database)
    wanted = await asyncio.to_thread(_of_known_calendars, wanted)
    if not wanted:
        return []
    names = [each.instrument.symbol for each in wanted]
    first, last = min(each.start for each in wanted), max(each.end for each in wanted)
    windows = Windows(names, [each.start for each in wanted], [each.end for each in wanted])
    broken = await bar_breaks.breaks(database, interval, windows)
    causes = await _causes(database, names, interval, Span(first, last))
    return await asyncio.to_thread(_find, wanted, interval, broken, causes)


def _of_known_calendars(wanted: Sequence[Wanted]) -> list[Wanted]:
    named = {each.instrument.calendar for each in wanted}
    unknown = sorted(calendar for calendar in named if not calendars.is_known(calendar))
    for calendar in unknown:
        symbols = [each.instrument.symbol for each in wanted if each.instrument.calendar == calendar]
        log.error("calendar_unknown", calendar=calendar, symbols=len(symbols), first=symbols[0])
    return [each for each in wanted if each.instrument.calendar not in unknown]


async def _causes(
    database: Database, symbols: Sequence[str], interval: Interval, within: Span
) -> dict[str, list[tuple[Span, Cause]]]:
    found: dict[str, list[tuple[Span, Cause]]] = defaultdict(list)
    async with database.connection() as connection:
        for row in await connection.fetch(_CAUSES, symbols, interval, *within):
            cause = Cause(row["name"], row["provider"], row["detail"])
            found[row["symbol"]].append((span_of(row), cause))
    return found


def _find(
    wanted: Sequence[Wanted],
    interval: Interval,
    broken: Breaks,
    causes: Mapping[str, Sequence[tuple[Span, Cause]]],
) -> list[Missing]:
    expected = _Expected(wanted, interval)
    edges = np.searchsorted(broken.window, np.arange(len(wanted) + 1))
    found: list[Missing] = []
    for place, each in enumerate(wanted):
        part = slice(edges[place], edges[place + 1])
        opens = expected.of(each)
        missing = _places(opens, broken.ts[part], broken.next[part])
        why = causes.get(each.instrument.symbol, ())
        found += [
            Missing(each.instrument, interval, gap, cause)
            for gap, cause in explained(opens, missing, interval, why)
        ]
    return found


class _Expected:
    """The expected opens of each instrument, out of one array for each calendar."""

    def __init__(self, wanted: Sequence[Wanted], interval: Interval) -> None:
        spans: dict[str, Span] = {}
        for each in wanted:
            known = spans.get(each.instrument.calendar, Span(each.start, each.end))
            spans[each.instrument.calendar] = Span(min(known.start, each.start), max(known.end, each.end))
        self._opens = {
            calendar: calendars.expected_opens(calendar, interval, *span) for calendar, span in spans.items()
        }

    def of(self, wanted: Wanted) -> Instants:
        """The opens in the range of `wanted`."""
        opens = self._opens[wanted.instrument.calendar]
        first, last = np.searchsorted(opens, [to_instant(wanted.start), to_instant(wanted.end)])
        return opens[first:last]


def _places(expected: Instants, stored: Instants, following: Instants) -> Places:
    """Places of the expected opens before the first stored bar, and between each and the one that follows."""
    if not len(stored):
        return np.arange(len(expected))
    starts = np.concatenate([[0], np.searchsorted(expected, stored, "right")])
    ends = np.searchsorted(expected, np.concatenate([stored[:1], following]))
    counts = np.maximum(ends - starts, 0)
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    places: Places = np.repeat(starts, counts) + offsets
    return places


def explained(
    expected: Instants, missing: Places, interval: Interval, causes: Sequence[tuple[Span, Cause]]
) -> list[tuple[Gap, Cause]]:
    """The missing bars by range, oldest first; each has the first of `causes` that covers it, else `OPEN`.

    `missing` holds places in `expected`, ascending.
    """
    kinds = list(dict.fromkeys([OPEN, *(cause for _, cause in causes)]))
    label_of = {cause: label for label, cause in enumerate(kinds)}
    bounds = np.array([[to_instant(moment) for moment in span] for span, _ in causes], "datetime64[us]")
    places = np.searchsorted(missing, np.searchsorted(expected, bounds))
    labels = np.zeros(len(missing), np.int64)
    for (first, last), (_, cause) in zip(places[::-1], reversed(causes), strict=True):
        labels[first:last] = label_of[cause]
    return [(gap, kinds[label]) for gap, label in gaps.labelled(expected, missing, labels, interval)]
