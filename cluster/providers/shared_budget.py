"""One exact budget for a whole fleet, kept in Redis and counted by the clock of Redis."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib import resources
from typing import Any
from uuid import uuid4

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from cluster.clock import Clock
from cluster.errors import ConfigError, RateLimited
from cluster.providers.budget import Window, WindowLeft, checked, used_of
from cluster.redaction import redact

_log = structlog.get_logger(__name__)
_SCRIPT = resources.files("cluster.providers").joinpath("budget.lua").read_text()


@dataclass(frozen=True, slots=True)
class Reply:
    """What the budget said; times are microseconds of the clock of Redis."""

    taken: bool
    now_us: int
    wait_us: int
    left: tuple[int, ...]


class SharedBudget:
    """An `Allowance` that everybody who names the same `scope` on the same Redis draws from.

    Exact: every decision is one atomic script, in which all windows must have room. All must use windows of
    the same lengths. While Redis is out of reach it fails closed: nobody knows what the others use, a ban
    lasts up to days, and jobs that wait lose nothing. A Redis that forgot (flushed, started empty) is
    told by every gateway what it last heard to be used, which then counts as if it were of that moment: for a
    window less may be granted, and more only by what no gateway that is left had heard of.
    """

    def __init__(
        self,
        redis: Redis,
        scope: str,
        windows: tuple[Window, ...],
        clock: Clock,
        *,
        timeout_s: float = 2.0,
        retry_s: float = 5.0,
    ) -> None:
        self._scope, self._clock = scope, clock
        self._timeout_s, self._retry_s = timeout_s, retry_s
        self._script = redis.register_script(_SCRIPT)
        self._name: bytes | str = ""
        self.renew(windows)
        self._closed_until_s = float("-inf")

    def renew(self, windows: tuple[Window, ...]) -> None:
        """See `Allowance.renew`."""
        key = f"finsight:budget:{{{self._scope}}}"  # the braces keep all keys in one slot of a Redis cluster
        self._windows = checked(windows)
        self._keys = [f"{key}:closed", *(f"{key}:{_us(window)}" for window in self._windows)]
        self._keys.append(f"{key}:name")
        self._left = self._heard = tuple(window.limit for window in self._windows)
        self._heard_s = float("-inf")

    async def reserve(self, weight: int) -> float:
        """See `Allowance.reserve`."""
        for window in self._windows:
            if weight > window.limit:
                raise ConfigError(f"a call of weight {weight} never fits into the budget window {window}")
        closed_s = self._closed_until_s - self._clock.monotonic_s()
        if closed_s > 0:
            return closed_s
        reply = await self.ask(weight=weight)
        return 0.0 if reply.taken else reply.wait_us / 1e6

    async def close_for(self, seconds: float) -> None:
        """See `Allowance.close_for`; holds here even while Redis is out of reach."""
        self._closed_until_s = max(self._closed_until_s, self._clock.monotonic_s() + seconds)
        await self._tell(close_us=max(0, math.ceil(seconds * 1e6)))

    async def correct(self, usage: Mapping[str, int]) -> None:
        """See `Allowance.correct`."""
        if any(used_of(window, usage) for window in self._windows):
            await self._tell(usage=usage)

    async def refresh(self) -> None:
        """Learn what the fleet has left."""
        await self._tell()

    def left(self) -> list[WindowLeft]:
        """What was left when this gateway last heard of it; nothing while Redis is out of reach."""
        closed = self._clock.monotonic_s() < self._closed_until_s
        return [
            WindowLeft(window.limit, window.seconds, 0 if closed else left)
            for window, left in zip(self._windows, self._left, strict=True)
        ]

    async def ask(
        self, *, weight: int = 0, close_us: int = 0, usage: Mapping[str, int] | None = None
    ) -> Reply:
        """One atomic step; `RateLimited` when Redis is out of reach."""
        windows, keys = self._windows, self._keys
        numbers: list[Any] = [weight, close_us, self._name, uuid4().hex]
        for window, remembered in zip(windows, self._remembered(), strict=True):
            numbers += [window.limit, _us(window), used_of(window, usage or {}), remembered]
        try:
            async with asyncio.timeout(self._timeout_s):
                taken, now_us, wait_us, name, *left = await self._script(keys=keys, args=numbers)
        except (RedisError, OSError, TimeoutError) as error:
            raise self._out_of_reach(error) from None
        self._name = name
        if windows is self._windows:  # else it is about windows that were replaced meanwhile
            self._left = self._heard = tuple(left)
            self._heard_s = self._clock.monotonic_s()
        return Reply(bool(taken), now_us, wait_us, tuple(left))

    def _remembered(self) -> list[int]:
        """What was used of every window when this gateway last heard of it; 0 when that is too long ago."""
        age_s = self._clock.monotonic_s() - self._heard_s
        return [
            window.limit - left if age_s < window.seconds else 0
            for window, left in zip(self._windows, self._heard, strict=True)
        ]

    async def _tell(self, *, close_us: int = 0, usage: Mapping[str, int] | None = None) -> None:
        try:
            await self.ask(close_us=close_us, usage=usage)
        except RateLimited as error:  # it will be said again by the next call that wants something
            _log.warning("shared_budget_unreachable", scope=self._scope, reason=str(error))

    def _out_of_reach(self, error: Exception) -> RateLimited:
        self._left = tuple(0 for _ in self._windows)
        return RateLimited(
            f"the budget that {self._scope} shares with others is out of reach, so nothing is granted: "
            f"{redact(f'{type(error).__name__} {error}'.strip())}",
            self._clock.now() + timedelta(seconds=self._retry_s),
        )


def _us(window: Window) -> int:
    return round(window.seconds * 1_000_000)
