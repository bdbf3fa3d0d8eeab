"""Prices that providers tell, for when no bar is new enough; asked through gateways, and kept shortly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from cluster import logs
from cluster.clock import Clock
from cluster.errors import FinSightError
from cluster.market.symbols import Instrument
from cluster.providers.protocol import Quote
from cluster.providers.router import WELL
from cluster.providers.stats import Standing
from cluster.redaction import redact

_log = logs.get(__name__)

_MOST_KEPT = 10_000


class QuoteSource(Protocol):
    """A gateway, near or far."""

    async def quote(self, symbol: str) -> Quote:
        """See `Gateway.quote`."""
        ...

    async def standing(self) -> Standing:
        """See `Gateway.standing`."""
        ...


@dataclass(frozen=True, slots=True)
class _Kept:
    told: asyncio.Task[Quote | None]
    until_s: float


class Quotes:
    """Asks the providers that tell prices, the well and cheap ones first, until one does.

    What they told, or that nobody did, is the answer for `kept_s`, also to those who ask while the first
    still waits; so a symbol costs one call in that time, however many look at it.
    """

    def __init__(
        self,
        sources: Callable[[], Mapping[str, QuoteSource]],
        clock: Clock,
        *,
        kept_s: float = 5.0,
        timeout_s: float = 2.0,
    ) -> None:
        self._sources, self._clock = sources, clock
        self._kept_s, self._timeout_s = kept_s, timeout_s
        self._kept: dict[str, _Kept] = {}

    async def latest(self, instrument: Instrument) -> Quote | None:
        """The last price, or `None` when nobody tells one within `timeout_s`."""
        now_s = self._clock.monotonic_s()
        kept = self._kept.get(instrument.symbol)
        if kept is None or now_s >= kept.until_s:
            if len(self._kept) >= _MOST_KEPT:
                self._kept = {symbol: each for symbol, each in self._kept.items() if now_s < each.until_s}
            told = asyncio.create_task(self._told(instrument), name=f"quote of {instrument.symbol}")
            kept = self._kept[instrument.symbol] = _Kept(told, now_s + self._kept_s)
        return await asyncio.shield(kept.told)  # one who goes away takes it from nobody else

    async def _told(self, instrument: Instrument) -> Quote | None:
        try:
            async with asyncio.timeout(self._timeout_s):
                for name, source in await self._able(instrument):
                    try:
                        return await source.quote(instrument.symbol)
                    except FinSightError as error:
                        _log.info("no_quote", provider=name, symbol=instrument.symbol, reason=_reason(error))
        except TimeoutError:
            _log.info("no_quote", symbol=instrument.symbol, reason=f"none within {self._timeout_s:g} s")
        except Exception as error:  # a stored price is better than none
            _log.warning("no_quote", symbol=instrument.symbol, reason=_reason(error))
        return None

    async def _able(self, instrument: Instrument) -> list[tuple[str, QuoteSource]]:
        sources = self._sources()
        within_s = self._timeout_s / 4  # one gateway that hangs leaves the others most of the time
        found = await asyncio.gather(*(_standing(source, within_s) for source in sources.values()))
        standings = [one for one in found if one is not None and _can(one, instrument)]
        standings.sort(key=lambda one: (one.health_score < WELL, one.seconds_per_call))
        return [(one.provider, sources[one.provider]) for one in standings]


async def _standing(source: QuoteSource, within_s: float) -> Standing | None:
    try:
        async with asyncio.timeout(within_s):
            return await source.standing()
    except (FinSightError, TimeoutError):
        return None


def _can(one: Standing, instrument: Instrument) -> bool:
    kinds = one.offer.asset_types
    return (
        "quote" in one.errands
        and one.state != "OPEN"
        and (kinds is None or instrument.asset_type in kinds)
        and (one.offer.symbols is None or instrument.symbol in one.offer.symbols)
    )


def _reason(error: Exception) -> str:
    return redact(f"{type(error).__name__}: {error}")
