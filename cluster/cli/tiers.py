"""What `finsight symbols tiers` does on the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cluster.clock import SystemClock
from cluster.market import tiers
from cluster.market.symbols import Instrument
from cluster.market.tiers import Change, Rule
from cluster.storage import audit, trading_volume, universe
from cluster.storage.database import Database


@dataclass(frozen=True)
class Reviewed:
    """The symbols that belong to another tier, and the version that put them there, if one did."""

    changes: list[Change]
    version: str | None


@dataclass(frozen=True)
class Review:
    """Compare the tiers of all active symbols with the rule; `apply` sets them."""

    rule: Rule
    apply: bool

    async def __call__(self, database: Database) -> Reviewed:
        """Needs daily bars for volumes that are newer than those of the universe."""
        now = SystemClock().now()
        volumes = await trading_volume.adv_21d(database, now)
        stored = await universe.listed(database)
        current = [replace(each, adv_21d=volumes.get(each.symbol, each.adv_21d)) for each in stored]
        changes = tiers.changes(current, self.rule)
        if not self.apply or (current == stored and not changes):
            return Reviewed(changes, None)
        tag = f"tiers-{now:%Y%m%dT%H%M%S.%fZ}"
        wanted = _wanted(stored, current, changes)
        meta = {"source": "tiers", "sessions": trading_volume.SESSIONS}
        version = await universe.change_all(database, wanted, tag, meta, by=audit.os_user())
        return Reviewed(changes, version.version_tag)


def _wanted(
    stored: Sequence[Instrument], current: Sequence[Instrument], changes: Sequence[Change]
) -> dict[str, dict[str, object]]:
    """The volumes that are new, and the tiers."""
    wanted: dict[str, dict[str, object]] = {
        new.symbol: {"adv_21d": new.adv_21d} for old, new in zip(stored, current, strict=True) if new != old
    }
    for change in changes:
        wanted.setdefault(change.symbol, {})["tier"] = change.after
    return wanted
