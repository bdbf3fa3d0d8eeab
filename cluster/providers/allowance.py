"""Who says whether a call may be made: this gateway's own budget, or one that a fleet shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from cluster.clock import Clock
from cluster.providers.budget import Budget, Window, WindowLeft


class Allowance(Protocol):
    """A budget as the gateway sees it; whoever keeps it has a clock of its own, so all times are lengths."""

    async def reserve(self, weight: int) -> float:
        """Take `weight` and answer 0, or take nothing and answer the seconds after which it may fit.

        Raises `ConfigError` for a weight that never fits, `RateLimited` when nobody can tell.
        """
        ...

    async def close_for(self, seconds: float) -> None:
        """Grant nothing for so long: the provider itself said when to come back."""
        ...

    async def correct(self, usage: Mapping[str, int]) -> None:
        """Count at least what the provider says is used of its windows, as in `{"1m": 37}`."""
        ...

    async def refresh(self) -> None:
        """Learn what others have left."""
        ...

    def left(self) -> list[WindowLeft]:
        """What is left of every window, as far as it is known here."""
        ...

    def renew(self, windows: tuple[Window, ...]) -> None:
        """Go on with other windows; what was used counts in those of the same length."""
        ...


class OwnBudget:
    """A budget in this process's memory."""

    def __init__(self, windows: tuple[Window, ...], clock: Clock) -> None:
        self._budget, self._clock = Budget(windows), clock

    async def reserve(self, weight: int) -> float:
        """See `Allowance.reserve`."""
        now_s = self._clock.monotonic_s()
        retry_at_s = self._budget.reserve(weight, now_s)
        return 0.0 if retry_at_s is None else retry_at_s - now_s

    async def close_for(self, seconds: float) -> None:
        """See `Allowance.close_for`."""
        self._budget.close_until(self._clock.monotonic_s() + seconds)

    async def correct(self, usage: Mapping[str, int]) -> None:
        """See `Allowance.correct`."""
        self._budget.correct(usage, self._clock.monotonic_s())

    async def refresh(self) -> None:
        """Nothing to learn: nobody else takes from it."""

    def left(self) -> list[WindowLeft]:
        """See `Allowance.left`."""
        return self._budget.left(self._clock.monotonic_s())

    def renew(self, windows: tuple[Window, ...]) -> None:
        """See `Allowance.renew`."""
        self._budget.renew(windows)
