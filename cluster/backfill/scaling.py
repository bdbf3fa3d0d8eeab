"""How many workers the queue needs. Pure.

More at once, fewer one by one and only after a calm time: starting a worker takes longer than most jobs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

ROUNDS = 4
"""Jobs for each slot of a worker that are worth another one."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the queue holds."""

    waiting: int
    oldest_age_s: float
    running: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many workers there may be, and what makes them more or fewer."""

    least: int
    most: int
    slots: int
    """Jobs that a worker runs at once."""
    age_s: float = 60.0
    """A job that waits longer is a reason for another worker."""
    calm_s: float = 300.0
    """For so long fewer must be enough before one goes."""

    @classmethod
    def of(cls, least: int, most: int, slots: int, limits: list[int | None]) -> Bounds:
        """Not more than can have a job at once by the `limits` of the tiers; `None` is no limit."""
        if None not in limits:
            most = min(most, math.ceil(sum(each for each in limits if each is not None) / slots))
        return cls(least, max(least, most), slots)


@dataclass(frozen=True, slots=True)
class Workers:
    """How many there are, and since when fewer would be enough."""

    count: int
    calm_since_s: float | None = None


def decide(workers: Workers, load: Load, bounds: Bounds, now_s: float) -> Workers:
    """How many workers there should be from now on; `now_s` is of a monotonic clock."""
    wanted = min(bounds.most, max(bounds.least, _wanted(workers.count, load, bounds)))
    if wanted >= workers.count:
        return Workers(wanted)
    if workers.count > bounds.most:
        return Workers(bounds.most)
    if workers.calm_since_s is None:
        return Workers(workers.count, now_s)
    if now_s - workers.calm_since_s < bounds.calm_s:
        return workers
    return Workers(workers.count - 1, now_s)


def _wanted(count: int, load: Load, bounds: Bounds) -> int:
    """Enough for the depth of the queue, one more for its age, but no more while those there are not busy.

    Jobs that wait for a limit or for a provider wait as long with more workers.
    """
    enough = math.ceil((load.waiting + load.running) / (bounds.slots * ROUNDS))
    if load.waiting and load.oldest_age_s > bounds.age_s:
        enough = max(enough, count + 1)
    busy = 2 * load.running >= count * bounds.slots
    return enough if busy else min(enough, count)
