"""What the providers together can give of a symbol, as the gap watch asks before it queues a range."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cluster.errors import ProviderError
from cluster.market.intervals import Interval
from cluster.providers.router import RoutedSource, Want, ranked
from cluster.providers.stats import Standing
from cluster.storage.backfill_merge import Span
from cluster.storage.gap_state import Watched


@dataclass(frozen=True, slots=True)
class Offers:
    """What the providers offer."""

    standings: Sequence[Standing] = ()
    silent: int | None = None
    """Providers that should have told and did not: what no other offers waits for them. None: not asked."""

    def able(
        self, symbol: str, of: Watched, interval: Interval, now: datetime, span: Span
    ) -> Collection[str] | None:
        """Who offers a range; `None` when that is not known."""
        want = Want(symbol, interval, *span, asset_type=of.asset_type)
        names = [one.provider for one in ranked(want, self.standings, now)]
        return names if names or self.silent == 0 else None


async def offers(gateways: Mapping[str, RoutedSource], timeout_s: float = 10.0) -> Offers:
    """What the providers behind `gateways` tell; one that does not answer leaves the picture incomplete."""

    async def told(gateway: RoutedSource) -> Standing | None:
        try:
            return await asyncio.wait_for(gateway.standing(), timeout_s)
        except (ProviderError, TimeoutError):
            return None

    found = await asyncio.gather(*map(told, gateways.values()))
    return Offers([one for one in found if one is not None], silent=found.count(None))
