"""One look for the newest bars of a tier: asked for in batches, each of which is written at once."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from zlib import crc32

import numpy as np
import pyarrow as pa

from cluster import logs, metrics
from cluster.clock import Clock
from cluster.errors import InputError, InvalidSymbol, NotEntitled, ProviderDown, ProviderError
from cluster.ingest import slots, stored
from cluster.ingest.cadence import Cadence
from cluster.ingest.market import Market
from cluster.ingest.memory import Memory
from cluster.ingest.plan import Places
from cluster.market import bars
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument, Tier
from cluster.providers.protocol import Many
from cluster.providers.router import RoutedSource, Router, Rule, Want, worth_asking
from cluster.providers.stats import Standing
from cluster.redaction import redact
from cluster.storage import newest_bar, universe
from cluster.storage.bars import WriteResult, write
from cluster.storage.database import Database
from cluster.storage.sweeps import Sweep

log = logs.get(__name__)

_BATCHES_AT_ONCE = 2
"""Of one provider: while one batch is written the next is fetched."""
_SHARE = 0.8
"""Of the time until the next look, what a batch may take; who is not reached by then comes first then."""
_LEAST_S = 10.0
"""A batch has at least this long, also where looks follow each other faster."""


class CollectedSource(RoutedSource, Protocol):
    """A gateway, near or far."""

    async def fetch_many(
        self, symbols: Sequence[str], interval: Interval, start: datetime, end: datetime, within_s: float
    ) -> Many:
        """See `Gateway.fetch_many`."""
        ...


class NotWritten(Exception):
    """The database did not take a batch."""


@dataclass(slots=True)
class _Tally:
    symbols: int = 0
    idle: int = 0
    unserved: int = 0
    failed: int = 0
    bars: int = 0


@dataclass(frozen=True, slots=True)
class _Look:
    """What all batches of one look share."""

    cadence: Cadence
    until: datetime
    memory: Memory
    tally: _Tally = field(default_factory=_Tally)
    turns: dict[str, asyncio.Semaphore] = field(
        default_factory=lambda: defaultdict(lambda: asyncio.Semaphore(_BATCHES_AT_ONCE))
    )
    """By provider; not shared with other looks, for a slow one must not hold up the minutes."""
    silent: set[str] = field(default_factory=set)
    """Providers that did not answer in the time there was: not asked again in this look."""


class Sweeper:
    """Looks for the newest bars of the symbols of one shard. A `Sweep` a look; nothing but memory is kept."""

    def __init__(
        self,
        database: Database,
        sources: Mapping[str, CollectedSource],
        clock: Clock,
        rule: Rule = "announce",
        *,
        shard: int = 0,
        shards: int = 1,
        batch: int = 500,
    ) -> None:
        self._database, self._sources, self._clock, self._rule = database, dict(sources), clock, rule
        self._shard, self._shards, self._batch_size = shard, shards, batch
        self._router = Router(self._sources, clock, rule)
        self._memories: dict[tuple[Tier, Interval], Memory] = defaultdict(Memory)

    async def graces_s(self, interval: Interval) -> list[float]:
        """How long the bars of each provider of `interval` may still change."""
        standings = await self._standings()
        return [one.offer.grace_s for one in standings if interval in one.offer.intervals]

    async def sweep(self, cadence: Cadence, until: datetime) -> Sweep:
        """Collect what is there; `until` is when the next look is due.

        Raises `StorageError`, or a group of it, when the database does not tell what there is to do; whatever
        happens to a symbol or a batch is counted, logged and tried again by the next look.
        """
        started_at = self._clock.now()
        expected_lag_s = cadence.expected_lag_s(await self.graces_s(cadence.interval))
        markets = await self._markets(cadence.tier)
        look = _Look(cadence, until, self._memories[cadence.tier, cadence.interval])
        names = {each.symbol for members in markets.values() for each in members}
        look.memory.keep(names, self._clock.monotonic_s())
        look.tally.symbols = len(names)
        async with asyncio.TaskGroup() as group:
            for calendar, members in markets.items():
                group.create_task(self._collect(look, calendar, members))
        p50_s, p99_s = look.memory.percentiles()
        tally = look.tally
        return Sweep(
            tier=cadence.tier,
            interval=cadence.interval,
            shard=self._shard,
            cadence_s=cadence.cadence_s,
            expected_lag_s=expected_lag_s,
            started_at=started_at,
            finished_at=self._clock.now(),
            next_run_at=until,
            symbols=tally.symbols,
            idle=tally.idle,
            unserved=tally.unserved,
            failed=tally.failed,
            bars=tally.bars,
            lag_p50_s=p50_s,
            lag_p99_s=p99_s,
        )

    async def _standings(self) -> list[Standing]:
        return [one for one in (await self._router.standings()).values() if isinstance(one, Standing)]

    async def _markets(self, tier: Tier) -> dict[str, list[Instrument]]:
        """The symbols of our shard by calendar."""
        found: dict[str, list[Instrument]] = defaultdict(list)
        for each in await universe.listed(self._database, tier=tier):
            if crc32(each.symbol.encode()) % self._shards == self._shard:
                found[each.calendar].append(each)
        return found

    async def _collect(self, look: _Look, calendar: str, members: Sequence[Instrument]) -> None:
        now = self._clock.now()
        try:
            expected = await asyncio.to_thread(slots.newest, calendar, look.cadence.interval, now)
        except InputError as error:  # one wrong calendar in the universe is no reason to stop all others
            log.error("calendar_unknown", calendar=calendar, symbols=len(members), reason=str(error))
            look.tally.failed += len(members)
            return
        names = [each.symbol for each in members]
        market = Market(
            look.cadence, members, await stored.read(self._database, names, calendar, expected), look.memory
        )
        if len(expected) and (unreached := market.unreached()):
            market.note_reached(await newest_bar.reached(self._database, look.cadence.interval, unreached))
        # Who could not even give one symbol a look would be used up by them all.
        standings = [one for one in await self._standings() if one.seconds_per_call <= look.cadence.cadence_s]
        waiting = market.rankings(standings, self._sources, now, self._rule)
        nobody = [place for place, able in waiting.items() if not able]
        market.note_unserved(nobody, now)
        errors: dict[int, list[Exception]] = defaultdict(list)
        while waiting := {place: able for place, able in waiting.items() if able}:
            failed = await self._round(look, market, waiting)
            for place, reason in failed.items():
                errors[place].append(reason)
            waiting = {
                place: self._others(look, market, place, waiting[place], errors[place]) for place in failed
            }
            given_up = [place for place, able in waiting.items() if not able]
            self._give_up(look, market, given_up, errors)
        look.tally.unserved += len(nobody)
        look.tally.idle += market.idle() - len(nobody)

    async def _round(
        self, look: _Look, market: Market, waiting: Mapping[int, list[Standing]]
    ) -> dict[int, Exception]:
        """Ask for every symbol the first that is left; the symbols that got nothing, and why."""
        by_provider: dict[str, list[int]] = defaultdict(list)
        for place, able in waiting.items():
            by_provider[able[0].provider].append(place)
        tasks = []
        async with asyncio.TaskGroup() as group:
            for places in by_provider.values():
                first = waiting[places[0]][0]
                for ask in market.asks(first, places, self._clock.now()):
                    for at in range(0, len(ask.symbols), self._batch_size):
                        some = ask.symbols[at : at + self._batch_size]
                        job = self._batch(look, market, first, some, ask.start, ask.end)
                        tasks.append(group.create_task(job))
        return {place: error for task in tasks for place, error in task.result().items()}

    async def _batch(
        self, look: _Look, market: Market, first: Standing, places: Places, start: datetime, end: datetime
    ) -> dict[int, Exception]:
        provider, grace_s = first.provider, first.offer.grace_s
        names = {place: market.symbols[place] for place in places.tolist()}
        async with look.turns[provider]:
            asked_at, database_time = self._clock.now(), await self._database_time()
            many = await self._asked(look, provider, list(names.values()), start, end)
            table, symbol = market.usable(many.table, provider, asked_at, grace_s)
            result = await self._written(table, database_time)
        if result is None:
            return dict.fromkeys(names, NotWritten("the database did not take the bars"))
        look.tally.bars += result.inserted + result.revised
        metrics.bars_written_total.labels(provider).inc(result.inserted + result.revised)
        metrics.bars_corrected_total.labels(provider).inc(result.corrected)
        ours = market.of(symbol, {name for _, name in result.changed})  # another collector counts its own
        metrics.bars_late_total.labels(provider).inc(market.late(table.filter(pa.array(ours)), symbol[ours]))
        self._tell_changes(look, market, symbol[ours], provider)
        failed = {place: many.errors[name] for place, name in names.items() if name in many.errors}
        answered = places[~np.isin(places, list(failed))]
        market.note(table, symbol)
        market.note_answered(answered, asked_at, grace_s)
        market.note_lag(answered, self._clock.now(), grace_s)
        return failed

    async def _asked(
        self, look: _Look, provider: str, names: Sequence[str], start: datetime, end: datetime
    ) -> Many:
        if provider in look.silent:
            return Many(bars.empty(), dict.fromkeys(names, ProviderDown(f"provider {provider} is silent")))
        left_s = max(_LEAST_S, (look.until - self._clock.now()).total_seconds())
        source, interval = self._sources[provider], look.cadence.interval
        try:
            async with asyncio.timeout(left_s):
                return await source.fetch_many(names, interval, start, end, _SHARE * left_s)
        except (ProviderError, InputError) as error:
            return Many(bars.empty(), dict.fromkeys(names, error))
        except TimeoutError:
            look.silent.add(provider)
            late = ProviderDown(f"provider {provider} did not answer within {left_s:g} s")
            return Many(bars.empty(), dict.fromkeys(names, late))

    async def _database_time(self) -> datetime | None:
        """By which it orders writes; `None` when it does not answer, and then takes no bars either."""
        try:
            async with self._database.connection() as connection:
                moment: datetime = await connection.fetchval("SELECT clock_timestamp()")
        except Exception as error:
            log.warning("database_away", reason=redact(repr(error)))
            return None
        return moment

    async def _written(self, table: pa.Table, asked_at: datetime | None) -> WriteResult | None:
        """What the transaction did; `None` when it failed: the next look reads it all again."""
        if not table.num_rows:
            return WriteResult()
        if asked_at is None:
            return None
        began_s = self._clock.monotonic_s()
        try:
            async with self._database.transaction() as connection:
                result = await write(connection, table, asked_at=asked_at)
        except Exception as error:  # whatever the database says, no other batch stops for it
            log.warning("batch_not_written", bars=table.num_rows, reason=redact(repr(error)))
            return None
        metrics.write_batch_ms.observe((self._clock.monotonic_s() - began_s) * 1_000)
        return result

    def _others(
        self, look: _Look, market: Market, place: int, asked: Sequence[Standing], errors: Sequence[Exception]
    ) -> list[Standing]:
        """Who of those that have not been asked may still be."""
        symbol, now = market.symbols[place], self._clock.now()
        if isinstance(errors[-1], InvalidSymbol | NotEntitled):
            look.memory.refuse(asked[0].provider, symbol, self._clock.monotonic_s())
        if isinstance(errors[-1], NotWritten):
            return []
        want = Want(symbol, look.cadence.interval, now, now)
        return [one for one in asked[1:] if worth_asking(one, want, errors, now)]

    def _give_up(
        self, look: _Look, market: Market, places: Sequence[int], errors: Mapping[int, list[Exception]]
    ) -> None:
        """Count the symbols that nobody gave anything of, for this time."""
        refused = [p for p in places if all(isinstance(e, InvalidSymbol | NotEntitled) for e in errors[p])]
        look.tally.unserved += len(refused)
        market.note_unserved(refused, self._clock.now())
        failed = sorted(set(places).difference(refused))
        if not failed:
            return
        look.tally.failed += len(failed)
        market.note_lag(np.array(failed, np.intp), self._clock.now(), 0.0)
        cadence = look.cadence
        log.warning(
            "symbols_not_collected", tier=cadence.tier, interval=str(cadence.interval), symbols=len(failed),
            first=market.symbols[failed[0]], reason=redact(str(errors[failed[0]][-1])),
        )  # fmt: skip

    def _tell_changes(self, look: _Look, market: Market, symbol: Places, provider: str) -> None:
        for before, symbols in market.changes(symbol, provider).items():
            metrics.source_changes_total.labels(before, provider).inc(len(symbols))
            log.warning(
                "source_changed", interval=str(look.cadence.interval), before=before, after=provider,
                symbols=len(symbols), first=symbols[0],
            )  # fmt: skip
