"""Has the splits and dividends of every active share told anew each day."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Protocol

from cluster import logs
from cluster.clock import Clock
from cluster.errors import InputError, InvalidSymbol, Malformed, NotEntitled, ProviderDown, ProviderError
from cluster.market.adjustments import CorporateAction
from cluster.providers.stats import Standing
from cluster.storage import corporate_actions
from cluster.storage.corporate_actions import Claim
from cluster.storage.database import Database

log = logs.get(__name__)

PERIOD_S = 600.0
"""Between two rounds; a symbol is due once a day."""

_EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
"""All of the history is asked for: a call costs the same, and bars of any age may be filled in later."""
_ANNOUNCED = timedelta(days=30)
"""So far ahead, for those who tell ex-dates to come."""
_PAUSE = timedelta(hours=1)
_AT_ONCE = 20
_MOST = 500
"""Symbols of one round."""


class ActionSource(Protocol):
    """A gateway, near or far."""

    async def actions(self, symbol: str, start: datetime, end: datetime) -> list[CorporateAction]:
        """See `Gateway.actions`."""
        ...

    async def standing(self) -> Standing:
        """See `Gateway.standing`."""
        ...


async def refresh(database: Database, sources: Mapping[str, ActionSource], clock: Clock) -> None:
    """Ask for the actions of the symbols that are due, the first tier first, and store them.

    Goes on from the one of `sources` that does not know a symbol to the next; ends, to be continued in the
    next round, when all that tell actions are at their limits or down.
    """
    tellers = await _tellers(sources)
    asked = 0
    while tellers and asked < _MOST:
        claims = await corporate_actions.claim(database, _AT_ONCE, pause=_PAUSE)
        for claim in claims:
            if not await _ask(database, tellers, claim, clock.now()):
                return
        asked += len(claims)
        if not claims:
            return


async def _tellers(sources: Mapping[str, ActionSource]) -> dict[str, ActionSource]:
    """Those that tell actions now, in their order."""
    found = {}
    for name, source in sources.items():
        try:
            standing = await source.standing()
        except ProviderDown:
            continue
        if "actions" in standing.errands and standing.state != "OPEN":
            found[name] = source
    return found


async def _ask(database: Database, tellers: Mapping[str, ActionSource], claim: Claim, now: datetime) -> bool:
    """Store what the first that knows the symbol tells; whether it is worth to ask for the next one."""
    symbol = claim.symbol
    passing: list[str] = []
    away = 0
    for name, source in tellers.items():
        try:
            told = await source.actions(symbol, _EARLIEST, now + _ANNOUNCED)
        except (InvalidSymbol, NotEntitled, InputError):
            continue
        except ProviderError as error:
            passing.append(f"{name}: {error}")
            away += not isinstance(error, Malformed)  # that is about this symbol, and others may do better
            continue
        written = await corporate_actions.store(database, claim, name, told)
        if written.inserted or written.revised:
            log.info("corporate_actions", symbol=symbol, provider=name, inserted=written.inserted,
                     revised=written.revised)  # fmt: skip
        return True
    if passing:
        log.warning("corporate_actions_unknown", symbol=symbol, reason="; ".join(passing))
    else:  # nobody has it; that may be another tomorrow
        await corporate_actions.store(database, claim, None, [])
    return away < len(tellers)
