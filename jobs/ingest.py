"""Fill the store from a provider: add its instruments, find what is missing, wait until it is fetched.

The bars are fetched by the backfill workers; this job only queues ranges and waits.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cluster.backfill.scan import Found, Scan, scan
from cluster.clock import Clock, SystemClock
from cluster.errors import InputError, NotReady, NotRunning, ProviderError
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.providers import registry
from cluster.providers.protocol import BarProvider, Capabilities
from cluster.settings import Settings
from cluster.storage import universe
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_records import JobStatus
from cluster.storage.database import Database
from jobs import arguments, history, protocol
from jobs.protocol import Progress

_DAILY_HISTORY = timedelta(days=3_653)
_INTRADAY_HISTORY = timedelta(days=30)
_POLL_S = 0.2
_CLOCK = SystemClock()


@dataclass(frozen=True, slots=True)
class Wanted:
    """Bars to be stored; `symbols` empty: all that the provider lists, None in the range: all it has."""

    interval: Interval
    symbols: Sequence[str] = ()
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait: for everything, and for the first sign of a worker."""

    total_s: float = 600.0
    unattended_s: float = 60.0


async def ingest(
    database: Database,
    provider: BarProvider,
    wanted: Wanted,
    *,
    patience: Patience = Patience(),
    progress: Progress = lambda _share, _what: None,
    clock: Clock = _CLOCK,
) -> dict[str, Any]:
    """Queue what is missing and wait for it; how many symbols, expected and written bars, jobs there were.

    `InputError` for what the provider does not offer, `UnknownSymbol`, `ProviderError` with the reasons of
    jobs that were given up, `NotRunning` when no worker takes them, `NotReady` when the time is over.
    """
    offer, queue = provider.capabilities, BackfillQueue(database)
    if wanted.interval not in offer.intervals:
        offered = ", ".join(sorted(offer.intervals))
        raise InputError(f"provider {provider.name} has no {wanted.interval} bars; it has {offered}")
    added = await _seed(database, provider, clock.now())
    instruments = await _instruments(database, provider, wanted.symbols)
    start, end = _range(wanted, offer, clock.now())
    found: list[Found] = []
    for one in instruments:
        progress(0.0, f"looking for gaps of {one.symbol}")
        how = Scan(page_bars=offer.page_bars)
        found.append(
            await scan(
                database, queue, one, wanted.interval, start, end,
                now=clock.now(), provider=provider.name, how=how,
            )
        )  # fmt: skip
    jobs = await _wait(queue, [job for one in found for job in one.jobs], patience, progress, clock)
    _raise_if_dead(jobs)
    return {
        "symbols": [one.symbol for one in instruments],
        "added": added,
        "interval": wanted.interval,
        "start": start.isoformat(),
        "end": end.isoformat(),
        "expected": sum(one.expected for one in found),
        "missing": sum(one.missing for one in found),
        "written": sum(job.rows_written or 0 for job in jobs),
        "jobs": len(jobs),
        "dead": 0,
    }


async def _seed(database: Database, provider: BarProvider, now: datetime) -> list[str]:
    tag = f"{provider.name}-{now:%Y%m%dT%H%M%S.%f}"
    meta = {"source": "ingest", "provider": provider.name}
    return await universe.add_missing(database, provider.instruments(), tag, meta)


async def _instruments(database: Database, provider: BarProvider, named: Sequence[str]) -> list[Instrument]:
    """Those that are named, active or not; else those that the provider lists, unless switched off."""
    listed = {one.symbol for one in provider.instruments()}
    symbols = set(await history.chosen(database, named))
    known = await universe.listed(database, active_only=False)
    chosen = [one for one in known if one.symbol in symbols and (named or one.symbol in listed)]
    if not chosen:
        raise InputError(f"provider {provider.name} lists no active symbol; name some with --symbols")
    return chosen


def _range(wanted: Wanted, offer: Capabilities, now: datetime) -> tuple[datetime, datetime]:
    """What is asked for, cut to what the provider can have."""
    end = min(wanted.end or now, offer.until or now, now)
    usual = offer.earliest if wanted.interval.is_daily else None
    length = _DAILY_HISTORY if wanted.interval.is_daily else _INTRADAY_HISTORY
    start = wanted.start or usual or end - length
    start = max(start, offer.earliest or start)
    if start >= end:
        raise InputError(f"nothing to ask for: the range from {start.isoformat()} ends at {end.isoformat()}")
    return start, end


async def _wait(
    queue: BackfillQueue,
    jobs: Iterable[JobStatus],
    patience: Patience,
    progress: Progress,
    clock: Clock,
) -> list[JobStatus]:
    """The jobs as they ended, each once."""
    latest = {job.id: job for job in jobs}
    began_s = moved_s = clock.monotonic_s()
    while True:
        fresh = await queue.get_many([asked for asked, job in latest.items() if not _ended(job)])
        if any(_standing(latest[asked]) != _standing(job) for asked, job in fresh.items()):
            moved_s = clock.monotonic_s()
        latest |= fresh
        waiting = [job for job in latest.values() if not _ended(job)]
        progress(
            1 - len(waiting) / max(1, len(latest)), f"{len(latest) - len(waiting)} of {len(latest)} jobs"
        )
        if not waiting:
            return list({job.id: job for job in latest.values()}.values())
        now_s = clock.monotonic_s()
        if now_s - moved_s > patience.unattended_s:
            await _require_worker(queue, waiting)
            moved_s = now_s
        if now_s - began_s > patience.total_s:
            raise NotReady(
                f"{len(waiting)} of {len(latest)} backfill jobs are not done after {patience.total_s:g} s; "
                f"they go on: `finsight ingest` waits again. {_reasons(waiting)}"
            )
        await asyncio.sleep(_POLL_S)


def _ended(job: JobStatus) -> bool:
    return job.state in {"done", "dead"}


def _standing(job: JobStatus) -> tuple[int, str, int]:
    return job.id, job.state, job.attempt


async def _require_worker(queue: BackfillQueue, waiting: Sequence[JobStatus]) -> None:
    """A job that waits with a reason was tried; with anything leased somebody is at work elsewhere."""
    if any(job.reason for job in waiting) or await queue.leased_count():
        return
    raise NotRunning(
        f"nobody takes the {len(waiting)} backfill jobs: no backfill worker is running; "
        "`finsight up` starts it, and the jobs wait for it"
    )


def _raise_if_dead(jobs: Sequence[JobStatus]) -> None:
    if dead := [job for job in jobs if job.state == "dead"]:
        raise ProviderError(f"{len(dead)} of {len(jobs)} backfill jobs were given up. {_reasons(dead)}")


def _reasons(jobs: Sequence[JobStatus]) -> str:
    counts = Counter(f"{job.symbol}: {job.reason}" for job in jobs if job.reason)
    return "; ".join(f"{reason} ({count} x)" for reason, count in counts.most_common(5))


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The options in `words`, or on the command line; leaves with status 2 when they are wrong."""
    made = arguments.parser("ingest", "Fetch every missing bar of a provider's symbols into the store.")
    made.add_argument("--provider", default="sample", help="default: sample")
    made.add_argument("--symbols", type=arguments.symbols, default=[], help="A,B; default: all it lists")
    made.add_argument("--start", type=arguments.moment, help="default: all daily bars, 30 days of others")
    made.add_argument("--end", type=arguments.moment, help="not part of the range; default: now")
    made.add_argument("--timeout-s", type=float, default=600.0, help="longest wait; default: 600")
    return made.parse_args(words)


def work(options: argparse.Namespace, settings: Settings, progress: Progress) -> Mapping[str, Any]:
    """Do what the command line asks for."""
    provider = registry.create(options.provider, settings.provider_options(options.provider))
    wanted = Wanted(options.interval, options.symbols, options.start, options.end)

    async def connected() -> dict[str, Any]:
        database = await Database.open(settings.require_database_url(), max_size=2)
        try:
            patience = Patience(options.timeout_s)
            return await ingest(database, provider, wanted, patience=patience, progress=progress)
        finally:
            await database.close()

    return asyncio.run(connected())


if __name__ == "__main__":
    protocol.run(parse(), work)
