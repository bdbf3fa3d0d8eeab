"""One scan for gaps: compare, judge what is missing, have it fetched, and remember it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

import numpy as np

from cluster import logs, metrics
from cluster.backfill.gap_ledger import Ask, Facts, Ledger, settle
from cluster.backfill.gap_offers import Offers
from cluster.backfill.gap_windows import NEVER, NOTHING, Looked, Window, parts, tails
from cluster.backfill.plan import ranges, settled_end
from cluster.errors import InputError
from cluster.market import calendars
from cluster.market.gaps import Gap, Runs
from cluster.market.instants import Instants, to_instant, to_moment
from cluster.market.intervals import Interval
from cluster.market.symbols import Tier, is_symbol
from cluster.storage import bar_presence, calendar_overrides, gap_state, rollups
from cluster.storage.backfill_enqueue import Wanted
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_merge import Span
from cluster.storage.database import Connection, Database
from cluster.storage.gap_state import Dirty, GapRow, Group, Watched

log = logs.get(__name__)

Item = TypeVar("Item")

_BEFORE = timedelta(days=1)
"""In which there is the bar before a gap, unless that begins after closed days."""
_BEYOND = timedelta(days=15)
"""Expected bars after the settled ones tell where a gap ends; no exchange is closed for longer."""
_QUEUED_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class WatchRules:
    """What is watched, and how."""

    collection: Mapping[Tier, Collection[Interval]]
    """The intervals of each tier."""
    full_s: float = 86_400.0
    """How often everything is compared."""
    grace_s: float = 60.0
    """A bar is missed from this long after its close."""
    dead_for_s: float = 86_400.0
    """How long the range of a dead job is left to a person before it is tried again."""
    retention: Mapping[Interval, timedelta] = field(default_factory=dict)
    """Bars that are older are expected no more; an interval that is not named is kept for ever."""
    page_bars: int = 1_000
    venue_symbols: int = 3
    """A venue is known to be down only by so many symbols."""
    symbols_at_once: int = 5_000


@dataclass(frozen=True, slots=True)
class Scanned:
    """What one scan of an interval did."""

    compared_all: int
    """Symbols of which everything was compared."""
    compared_new: int
    """Symbols of which only what is new was compared."""
    judged: int
    """Symbols whose gaps were looked at."""
    found: int
    """Gaps that nobody knew of before."""
    asked: int
    """Ranges that were put into the queue."""


class Scan:
    """One scan of one interval, by the connection that holds its lock."""

    def __init__(
        self,
        database: Database,
        queue: BackfillQueue,
        now: datetime,
        rules: WatchRules,
        interval: Interval,
        tiers: Collection[Tier],
        offers: Offers,
        connection: Connection,
    ) -> None:
        self._database, self._queue, self._rules = database, queue, rules
        self._interval, self._tiers, self._offers, self._connection = interval, tiers, offers, connection
        self._now = now
        self._end = settled_end(now, interval, now, rules.grace_s)

    async def run(self) -> Scanned:
        """Everything of the symbols that are due for it, then what is new of the others."""
        connection, interval = self._connection, self._interval
        await gap_state.give_up(connection, interval, await self._given_up())
        dirty = await gap_state.dirty(connection, interval)
        if truncated := [each for each in dirty if _is_all(each)]:
            async with connection.transaction():
                await gap_state.compare_all(connection, interval)
                await gap_state.cleaned(connection, truncated)
        full_since = self._now - timedelta(seconds=self._rules.full_s)
        groups, unwatched = await gap_state.groups(connection, interval, self._tiers, full_since)
        if unwatched:
            await gap_state.forget(connection, interval, unwatched)
        whole = 0
        done: list[Ledger] = []
        for group in groups:
            if group.scanned_to is None:
                for symbols in _chunks(_readable(group.symbols), self._rules.symbols_at_once):
                    try:
                        ledgers, compared = await self._compare_all(group.calendar, symbols)
                    except InputError as error:  # of a calendar that nobody knows: the others go on
                        log.warning("not_scanned", interval=str(interval), reason=str(error))
                        continue
                    done, whole = done + ledgers, whole + compared
        done += await self._compare_new(
            [group for group in groups if group.scanned_to is not None],
            [each for each in dirty if not _is_all(each)],
        )
        scanned = Scanned(
            compared_all=whole,
            compared_new=sum(len(group.symbols) for group in groups if group.scanned_to is not None),
            judged=len(done),
            found=sum(each.found for each in done),
            asked=sum(len(each.asks) for each in done),
        )
        metrics.gaps_found_total.labels(str(interval)).inc(scanned.found)
        if scanned.judged or whole:
            log.info("gaps_scanned", interval=str(interval), **asdict(scanned))
        return scanned

    async def _compare_all(self, calendar: str, symbols: Sequence[str]) -> tuple[list[Ledger], int]:
        connection, interval = self._connection, self._interval
        async with connection.transaction():
            since = await self._since(symbols)
            if not since:
                return [], 0
            expected, count = await self._expected(calendar, min(since.values()))
            missing = await self._missing(since, expected[:count])
            known = await gap_state.rows(connection, interval, list(since))
            looks = {
                symbol: [Looked(calendar, None, count, missing.get(symbol, NOTHING), expected[:1])]
                for symbol in since
                if symbol in missing or symbol in known
            }
            done = await self._settle(looks)
            await gap_state.mark(connection, interval, calendar, since, self._end, self._now)
        return done, len(since)

    async def _since(self, symbols: Sequence[str]) -> dict[str, datetime]:
        """From when on bars of each symbol are expected; none of those that nobody can give any."""
        starts = await gap_state.starts(self._connection, self._interval, symbols)
        of = await gap_state.watched(self._connection, list(starts))
        kept = self._rules.retention.get(self._interval)
        oldest = await self._given_up()
        if kept is not None:
            oldest = max(oldest, self._now - kept)
        found: dict[str, datetime] = {}
        for symbol, start in starts.items():
            since = start.since
            if since is None and self._able(symbol, of[symbol], Span(start.created_at, self._now)):
                since = start.created_at
            if since is not None and max(since, oldest) < self._end:
                found[symbol] = max(since, oldest)
        return found

    async def _given_up(self) -> datetime:
        """Bars before were deleted for their age."""
        return await rollups.given_up(self._connection, self._interval)

    async def _missing(self, since: Mapping[str, datetime], expected: Instants) -> dict[str, Runs]:
        """Runs of missing bars of each symbol that lacks some, as places in `expected`."""
        found: dict[str, list[Runs]] = defaultdict(list)
        size = max(1, bar_presence.BITS_AT_ONCE // len(since))
        for first in range(0, len(expected), size):
            part = expected[first : first + size]
            names = [symbol for symbol, at in since.items() if to_instant(at) <= part[-1]]
            parts = await bar_presence.missing(self._connection, self._interval, names, part)
            for symbol, missing in parts.items():
                own = int(np.searchsorted(part, to_instant(since[symbol])))
                found[symbol].append(np.maximum(missing[missing[:, 1] >= own], own) + first)
        joined = {symbol: np.concatenate(some) for symbol, some in found.items()}
        return {symbol: some for symbol, some in joined.items() if len(some)}

    async def _compare_new(self, groups: Sequence[Group], dirty: Sequence[Dirty]) -> list[Ledger]:
        connection, interval = self._connection, self._interval
        async with connection.transaction():
            if any(each.calendar for each in dirty):
                await calendar_overrides.refresh(self._database, fresh_s=0)  # at least as young as `dirty`
            arrived = await gap_state.arrived(connection, interval)
            due = await gap_state.due(connection, interval, self._now)
            windows = tails(groups, self._end) + await self._again(dirty, arrived)
            looks = await self._looked(windows)
            marks = await gap_state.marks(connection, interval, due)
            for symbol, mark in marks.items():
                looks.setdefault(symbol, [Looked(mark.calendar, None, 0, NOTHING, NEVER)])
            done = await self._settle(looks)
            if not (done or dirty):  # what a crash of the server forgets is only compared once more
                await gap_state.commit_lazily(connection)
            for each in dirty:
                if each.calendar:
                    await self._drop_jobs(each.calendar, each.span)
            await gap_state.cleaned(connection, dirty)
            for group in groups:
                if group.scanned_to is not None and group.scanned_to < self._end:
                    await gap_state.move(connection, interval, group.symbols, self._end)
        return done

    async def _again(self, dirty: Sequence[Dirty], arrived: Sequence[tuple[str, Span]]) -> list[Window]:
        """What was compared before and may have changed."""
        connection, interval = self._connection, self._interval
        spans: list[tuple[str, Span]] = list(arrived)
        spans += [(each.symbol, each.span) for each in dirty if each.symbol]
        for each in dirty:
            if each.calendar:
                names = await gap_state.of_calendar(connection, interval, each.calendar)
                spans += [(symbol, each.span) for symbol in names]
        marks = await gap_state.marks(connection, interval, list({symbol for symbol, _ in spans}))
        windows: dict[tuple[str, Span], list[str]] = defaultdict(list)
        for symbol, span in dict.fromkeys(spans):
            if (mark := marks.get(symbol)) is None:
                continue
            start, end = max(span.start, mark.expected_from), min(span.end, mark.scanned_to)
            windows[mark.calendar, Span(start, max(start, end))].append(symbol)
        return [Window(calendar, span, names, is_changed=True) for (calendar, span), names in windows.items()]

    async def _looked(self, windows: Iterable[Window]) -> dict[str, list[Looked]]:
        """What is missing in the windows, of the symbols whose gaps may be others now."""
        found: dict[str, list[Looked]] = defaultdict(list)
        for window in windows:
            expected = await asyncio.to_thread(
                calendars.expected_opens, window.calendar, self._interval, *window.span
            )
            for span, part in parts(window, expected):
                missing = await bar_presence.missing(self._connection, self._interval, window.symbols, part)
                for symbol in window.symbols if window.is_changed else missing:
                    runs = missing.get(symbol, NOTHING)
                    found[symbol].append(Looked(window.calendar, span, len(part), runs, part[:1]))
        return found

    async def _settle(self, looks: Mapping[str, Sequence[Looked]]) -> list[Ledger]:
        """Judge the gaps of these symbols, have them fetched, and keep them."""
        if not looks:
            return []
        connection, interval, symbols = self._connection, self._interval, list(looks)
        of = await gap_state.watched(connection, symbols)
        known = await gap_state.rows(connection, interval, symbols)
        answers = await gap_state.answers(connection, interval, symbols)
        jobs = await gap_state.jobs(connection, interval, symbols, timedelta(seconds=self._rules.dead_for_s))
        venues = await gap_state.venues(connection, interval, self._tiers, self._rules.venue_symbols)
        grids = await self._grids(looks, known)
        facts = {
            symbol: Facts(
                answers=answers.get(symbol, ()),
                jobs=[span for span, failed in jobs.get(symbol, ()) if failed is None],
                failed=[(span, failed) for span, failed in jobs.get(symbol, ()) if failed is not None],
                venue=venues.get(of[symbol].exchange, ()),
                able=partial(self._able, symbol, of[symbol]),
                is_early=bool(self._offers.silent),
            )
            for symbol in symbols
        }
        ledgers = await asyncio.to_thread(self._ledgers, looks, grids, known, facts)
        wanted = [
            Wanted(symbol, interval, span, of[symbol].tier, ask.provider)
            for symbol, ledger in ledgers.items()
            for ask in ledger.asks
            for span in self._pages(ask, grids[looks[symbol][0].calendar][0])
        ]
        for part in _chunks(wanted, _QUEUED_AT_ONCE):
            await self._queue.enqueue_many(part)
        await gap_state.replace(
            connection, interval, {symbol: ledger.rows for symbol, ledger in ledgers.items()}
        )
        return list(ledgers.values())

    async def _grids(
        self, looks: Mapping[str, Sequence[Looked]], known: Mapping[str, Sequence[GapRow]]
    ) -> dict[str, tuple[Instants, int]]:
        """For each calendar its opens from before the first known gap or look on; how many are settled."""
        lowest: dict[str, datetime] = {}
        for symbol, some in looks.items():
            calendar = some[0].calendar
            firsts = [to_moment(look.at[0]) for look in some if len(look.at)]
            firsts += [row.start for row in known.get(symbol, [])[:1]]
            for first in firsts:
                lowest[calendar] = min(lowest.get(calendar, first), first)
        given_up = await self._given_up()
        return {
            calendar: await self._expected(calendar, max(start - _BEFORE, given_up))
            for calendar, start in lowest.items()
        }

    def _ledgers(
        self,
        looks: Mapping[str, Sequence[Looked]],
        grids: Mapping[str, tuple[Instants, int]],
        known: Mapping[str, Sequence[GapRow]],
        facts: Mapping[str, Facts],
    ) -> dict[str, Ledger]:
        ledgers = {}
        for symbol, some in looks.items():
            if (grid := grids.get(some[0].calendar)) is None:  # no gap is known and no bar is expected
                continue
            expected, count = grid
            rows = known.get(symbol, ())
            places = [look.on(expected) for look in some]
            ledgers[symbol] = settle(expected, count, self._interval, rows, places, facts[symbol], self._now)
        return ledgers

    def _pages(self, ask: Ask, expected: Instants) -> list[Span]:
        gap = Gap(*ask.span, missing=0)
        return ranges([gap], expected, self._interval, self._rules.page_bars)

    async def _expected(self, calendar: str, start: datetime) -> tuple[Instants, int]:
        """All opens from `start` on, and how many of them are settled."""
        end = self._end + _BEYOND
        expected = await asyncio.to_thread(calendars.expected_opens, calendar, self._interval, start, end)
        return expected, int(np.searchsorted(expected, to_instant(self._end)))

    def _able(self, symbol: str, of: Watched, span: Span) -> Collection[str] | None:
        return self._offers.able(symbol, of, self._interval, self._now, span)

    async def _drop_jobs(self, calendar: str, span: Span) -> None:
        """End the jobs for bars that a changed calendar expects no more."""
        waiting = await gap_state.waiting_jobs(self._connection, self._interval, calendar, span)
        try:
            idle = [
                job
                for job, of in waiting.items()
                if not len(calendars.expected_opens(calendar, self._interval, *of))
            ]
        except InputError as error:  # of a calendar that nobody knows: its jobs stay
            log.warning("jobs_not_checked", interval=str(self._interval), reason=str(error))
            return
        await gap_state.drop_jobs(self._connection, idle)


def _readable(symbols: Iterable[str]) -> list[str]:
    """Without those that no reader of the universe takes: nobody could fetch them."""
    return [symbol for symbol in symbols if is_symbol(symbol)]


def _is_all(each: Dirty) -> bool:
    return each.symbol is None and each.calendar is None


def _chunks(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[first : first + size] for first in range(0, len(items), size)]
