"""Which tier a symbol belongs to, by how much it trades and how large it is. Pure.

A symbol moves up when it reaches the limits of a better tier, and down when it has fallen clearly below those
of its own; in between it stays, so that one near a limit does not flap. What is not known never moves it up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import get_args

from cluster.errors import ConfigError
from cluster.market.symbols import Instrument, Tier

TIERS: tuple[Tier, ...] = get_args(Tier)
"""Best first."""

CURRENCY = "USD"
"""Limits of the market capitalisation are in it; one in another currency counts as unknown."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a symbol of a tier has at least."""

    adv_21d: float
    """Average daily volume of 21 sessions, in shares or units."""
    mkt_cap: float
    """In US dollars."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Limits by tier; the last tier takes everything, so it has none."""

    limits: Mapping[Tier, Limits]
    slack: float
    """Share of a limit by which a symbol may fall below it and stay, 0 up to 1."""

    def __post_init__(self) -> None:
        limited = TIERS[:-1]
        if set(self.limits) != set(limited):
            raise ConfigError(f"tiers: expected limits of {', '.join(limited)}, given {sorted(self.limits)}")
        for better, worse in pairwise(limited):
            if not _reaches(_values(self.limits[better]), self.limits[worse]):
                raise ConfigError(f"tiers: the limits of {worse} are above those of {better}")
        if not 0 <= self.slack < 1:
            raise ConfigError(f"tier_slack = {self.slack:g}: expected a share from 0 up to, but not, 1")


@dataclass(frozen=True, slots=True)
class Change:
    """A symbol whose tier is another than it should be."""

    symbol: str
    before: Tier
    after: Tier
    adv_21d: float | None
    mkt_cap: float | None


def tier_of(instrument: Instrument, rule: Rule) -> Tier:
    """The tier that `instrument` should have, given the one that it has."""
    own = TIERS.index(instrument.tier)
    known = (instrument.adv_21d, instrument.mkt_cap if instrument.currency == CURRENCY else None)
    for better in TIERS[:own]:
        if _reaches(known, rule.limits[better]):
            return better
    for kept in TIERS[own:-1]:
        if _holds(known, rule.limits[kept], rule.slack):
            return kept
    return TIERS[-1]


def changes(instruments: Sequence[Instrument], rule: Rule) -> list[Change]:
    """The instruments that belong to another tier than they are in."""
    wanted = [(each, tier_of(each, rule)) for each in instruments]
    return [
        Change(each.symbol, each.tier, tier, each.adv_21d, each.mkt_cap)
        for each, tier in wanted
        if tier != each.tier
    ]


def _reaches(known: Sequence[float | None], limits: Limits) -> bool:
    pairs = zip(known, _values(limits), strict=True)
    return all(value is not None and value >= limit for value, limit in pairs)


def _holds(known: Sequence[float | None], limits: Limits, slack: float) -> bool:
    pairs = zip(known, _values(limits), strict=True)
    return all(value is None or value >= limit * (1 - slack) for value, limit in pairs)


def _values(limits: Limits) -> tuple[float, float]:
    return limits.adv_21d, limits.mkt_cap
