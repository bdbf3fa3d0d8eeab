"""Splits that a provider has told, kept for a while: without them what it divided cannot be undone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from cluster.market.adjustments import CorporateAction

KEPT = timedelta(hours=1)
"""For so long the splits of a symbol are not asked for again."""


@dataclass(frozen=True, slots=True)
class _Told:
    splits: Sequence[CorporateAction]
    since: datetime
    at: datetime
    zone: ZoneInfo


class KeptSplits:
    """By symbol the splits from some time until they were told."""

    def __init__(self) -> None:
        self._told: dict[str, _Told] = {}

    def keep(
        self, symbol: str, splits: Sequence[CorporateAction], since: datetime, at: datetime, zone: ZoneInfo
    ) -> None:
        """Keep those with ex-dates from `since` on, told at `at`; `zone` is the exchange's."""
        self._told[symbol] = _Told(splits, since, at, zone)

    def since(self, symbol: str, since: datetime, now: datetime) -> Sequence[CorporateAction] | None:
        """All from `since` until `now`, or `None` when they have to be asked for."""
        told = self._told.get(symbol)
        if told is None or told.since > since or now - told.at > KEPT:
            return None
        # With a new day a new split may divide what is answered.
        today, then = (moment.astimezone(told.zone).date() for moment in (now, told.at))
        return told.splits if today == then else None
