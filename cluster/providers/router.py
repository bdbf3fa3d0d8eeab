"""Which provider gives some bars: who can, who is well, who is cheap, and who began the session."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

import pyarrow as pa
import structlog

from cluster import metrics
from cluster.clock import Clock
from cluster.errors import (
    InputError,
    Interrupted,
    InvalidSymbol,
    NotEntitled,
    OutOfHorizon,
    ProviderDown,
    ProviderError,
    RateLimited,
)
from cluster.market.intervals import Interval
from cluster.market.symbols import AssetType
from cluster.providers.protocol import BarSource
from cluster.providers.stats import Standing

_log = structlog.get_logger(__name__)

Rule = Literal["announce", "never"]
"""When the provider that a session began with fails: another goes on, logged and counted; or none does."""

WELL = 0.5
"""A health score below this moves the traffic to others."""
CONFIRM_S = 60.0
"""That there are no bars is confirmed by providers up to this price."""
RETRY_S = 600.0
"""The longest pause before a job tries again; a rate limit that lasts longer is not waited for."""


@dataclass(frozen=True, slots=True)
class Want:
    """The bars with `start <= ts < end` that somebody wants."""

    symbol: str
    interval: Interval
    start: datetime
    end: datetime
    asset_type: AssetType | None = None
    """`None`: not known."""
    began_with: str | None = None
    """Source of the bars that the session of `start` has already."""


class RoutedSource(BarSource, Protocol):
    """A gateway, near or far."""

    async def standing(self) -> Standing:
        """What the choice looks at; `ProviderDown` when it cannot be told."""
        ...


def ranked(
    want: Want, standings: Sequence[Standing], now: datetime, rule: Rule = "announce"
) -> list[Standing]:
    """Those that can give some of `want`, best first; of equals the first.

    Whoever covers the whole range comes before who covers a part, whoever the session began with before all
    others unless its breaker is open, the well before the ailing, the cheap before the dear. By the rule
    `never` nobody but the one that the session began with.
    """
    able = [one for one in standings if _can(one, want, now)]
    if rule == "never" and want.began_with is not None:
        return [one for one in able if one.provider == want.began_with]
    return sorted(able, key=lambda one: _rank(one, want, now))


def price_s(one: Standing, want: Want) -> float:
    """Seconds of its budget that `want` costs."""
    most_bars = (want.end - want.start).total_seconds() / want.interval.seconds
    return max(1, math.ceil(most_bars / one.offer.page_bars)) * one.seconds_per_call


def worth_asking(one: Standing, want: Want, errors: Sequence[Exception], now: datetime) -> bool:
    """Whether to ask `one` after others failed: not when waiting for them costs less than it does."""
    waits_s = [_wait_s(error, now) for error in errors if isinstance(error, RateLimited)]
    return not waits_s or price_s(one, want) < min(waits_s)


def hopeful(want: Want, errors: Sequence[Exception], now: datetime) -> Exception:
    """The error that stands for all: the first that passes, else that nobody gives these bars."""
    limits = [error for error in errors if isinstance(error, RateLimited)]
    first = min(limits, key=lambda error: error.retry_at, default=None)
    passing = [error for error in errors if not isinstance(error, RateLimited | _REFUSALS)]
    if first is not None and (not passing or _wait_s(first, now) <= RETRY_S):
        return first
    if passing:
        return passing[0]
    reasons = "; ".join(map(str, errors)) or "none offers them"
    return NotEntitled(f"no provider gives {want.interval} bars of {want.symbol}: {reasons}")


class Router:
    """Asks the providers of `ranked` one after another; how they stand is asked anew after `fresh_s`."""

    def __init__(
        self,
        sources: Mapping[str, RoutedSource],
        clock: Clock,
        rule: Rule = "announce",
        *,
        fresh_s: float = 5.0,
        timeout_s: float = 10.0,
    ) -> None:
        self._sources, self._clock, self._rule = dict(sources), clock, rule
        self._fresh_s, self._timeout_s = fresh_s, timeout_s
        self._told: Mapping[str, Standing | ProviderDown] = {}
        self._told_s = float("-inf")
        self._asking = asyncio.Lock()
        self._silent: set[str] = set()

    async def fetch(
        self, want: Want, ask: Callable[[BarSource], Awaitable[pa.Table]]
    ) -> tuple[str, pa.Table]:
        """The provider that gave bars, and its bars; an empty table when those that were asked have none.

        Raises what `hopeful` says when all fail. Nobody is asked in vain: see `worth_asking`.
        """
        rule = self._rule_for(want.began_with)
        told = await self.standings()
        errors: list[Exception] = [one for one in told.values() if isinstance(one, ProviderDown)]
        standings = [one for one in told.values() if isinstance(one, Standing)]
        empty: tuple[str, pa.Table] | None = None
        part: Interrupted | None = None
        for one in ranked(want, standings, self._clock.now(), rule):
            if not worth_asking(one, want, errors, self._clock.now()):
                continue
            if empty is not None and price_s(one, want) > CONFIRM_S:
                continue
            try:
                table = await ask(self._sources[one.provider])
            except Interrupted as error:
                if error.bars.num_rows:  # what it gave is kept; who gives the rest is another choice
                    announce(want, one.provider)
                    raise
                part = part or error  # its word alone does not prove that there are none
                errors.append(error.cause)
                continue
            except (ProviderError, InputError) as error:
                errors.append(error)
                continue
            if table.num_rows:
                announce(want, one.provider)
                return one.provider, table
            empty = empty or (one.provider, table)
        if empty is None:
            if part is not None:
                raise part
            raise hopeful(want, errors, self._clock.now())
        return empty

    def is_bound(self, began_with: str, source: str) -> bool:
        """Whether a session that `began_with` must not go on with `source`."""
        return began_with != source and self._rule_for(began_with) == "never"

    def _rule_for(self, began_with: str | None) -> Rule:
        """A provider that is no more configured cannot go on for ever."""
        return self._rule if began_with in self._sources else "announce"

    async def standings(self) -> Mapping[str, Standing | ProviderDown]:
        """How every provider stands, or why that cannot be told; not older than `fresh_s`.

        One that does not answer holds everybody up once, and from then on for a tenth of that time.
        """
        async with self._asking:
            if self._clock.monotonic_s() >= self._told_s + self._fresh_s:
                told = await asyncio.gather(*(self._standing(name) for name in self._sources))
                self._told = dict(zip(self._sources, told, strict=True))
                self._told_s = (
                    self._clock.monotonic_s()
                )  # else what took longer than `fresh_s` is never fresh
            return self._told

    async def _standing(self, name: str) -> Standing | ProviderDown:
        try:
            async with asyncio.timeout(self._timeout_s / (10 if name in self._silent else 1)):
                standing = await self._sources[name].standing()
            self._silent.discard(name)
            return standing
        except TimeoutError:
            self._silent.add(name)
            return ProviderDown(f"the gateway of provider {name} does not answer")
        except ProviderDown as error:
            return error


def announce(want: Want, provider: str) -> None:
    """Count and log that `provider` goes on with a session that another began."""
    before = want.began_with
    if before is not None and before != provider:
        metrics.source_changes_total.labels(before, provider).inc()
        _log.warning(
            "source_changed", symbol=want.symbol, interval=str(want.interval),
            start=want.start.isoformat(), before=before, after=provider,
        )  # fmt: skip


_REFUSALS = NotEntitled | InvalidSymbol | OutOfHorizon | InputError


def _can(one: Standing, want: Want, now: datetime) -> bool:
    offer = one.offer
    return (
        one.state != "NOT_ENTITLED"
        and want.interval in offer.intervals
        and (offer.symbols is None or want.symbol in offer.symbols)
        and (want.asset_type is None or offer.asset_types is None or want.asset_type in offer.asset_types)
        and (offer.until is None or want.start < offer.until)
        and ((reach := _reach(one, want, now)) is None or want.end > reach)
    )


def _reach(one: Standing, want: Want, now: datetime) -> datetime | None:
    """The first moment that its bars can reach back to."""
    depth = one.offer.depth.get(want.interval)
    ends = [end for end in (one.offer.earliest, now - depth if depth else None) if end is not None]
    return max(ends, default=None)


def _rank(one: Standing, want: Want, now: datetime) -> tuple[bool, bool, bool, bool, float]:
    reach, until = _reach(one, want, now), one.offer.until
    partly = (reach is not None and want.start < reach) or (until is not None and want.end > until)
    # Half-open is not ailing: one call at a time finds out, and the others go on to the next at once.
    ailing = one.health_score < WELL
    return partly, one.state == "OPEN", one.provider != want.began_with, ailing, price_s(one, want)


def _wait_s(error: RateLimited, now: datetime) -> float:
    return (error.retry_at - now).total_seconds()
