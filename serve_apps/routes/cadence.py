"""GET /stats/cadence."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from fastapi import APIRouter

from cluster.market.intervals import Interval
from cluster.market.symbols import Tier
from cluster.storage import sweeps
from cluster.storage.sweeps import Sweep
from serve_apps import problems
from serve_apps.market_schemas import CadencePage, CadenceStats
from serve_apps.services import Services


class CadenceRoutes:
    """How fast new bars arrive."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def router(self) -> APIRouter:
        """The one route."""
        router = APIRouter(tags=["market data"])
        router.add_api_route("/stats/cadence", self.cadence, responses=problems.documented(503))
        return router

    async def cadence(self) -> CadencePage:
        """Per tier and interval: how often its bars are looked for, and how far behind the stored ones are.

        The measured lags are those of the last look, of the slowest collector. A look that is overdue makes
        them grow.
        """
        now, settings = self._services.clock.now(), self._services.settings
        last = await sweeps.last(await self._services.database())
        items = [
            _item(
                tier,
                interval,
                settings.cadence_s(tier, interval),
                settings.collectors,
                _of(last, tier, interval),
                now,
            )
            for tier, intervals in sorted(settings.collection.items())
            for interval in intervals
        ]
        return CadencePage(items=items, next_cursor=None)


def _of(last: Sequence[Sweep], tier: Tier, interval: Interval) -> list[Sweep]:
    return [each for each in last if (each.tier, each.interval) == (tier, interval)]


def _item(
    tier: Tier,
    interval: Interval,
    cadence_s: float,
    collectors: int,
    last: Sequence[Sweep],
    now: datetime,
) -> CadenceStats:
    def total(name: str) -> int:
        return sum(getattr(each, name) for each in last)

    return CadenceStats(
        tier=tier,
        interval=interval,
        cadence_s=cadence_s,
        expected_lag_s=max((each.expected_lag_s for each in last), default=None),
        lag_p50_s=sweeps.slowest(each.lag_s(each.lag_p50_s, now) for each in last),
        lag_p99_s=sweeps.slowest(each.lag_s(each.lag_p99_s, now) for each in last),
        last_run_at=min((each.finished_at for each in last), default=None),
        next_run_at=min((each.next_run_at for each in last), default=None),
        silent_collectors=max(0, collectors - len(last)),
        symbols=total("symbols"),
        idle=total("idle"),
        unserved=total("unserved"),
        failed=total("failed"),
        bars=total("bars"),
    )
