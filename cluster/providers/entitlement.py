"""What the plan of a provider does not include: single symbols at first, and all of them with evidence."""

from __future__ import annotations

from cluster.market.intervals import Interval
from cluster.providers.protocol import Errand

Wanted = Interval | Errand

ENOUGH = 3
"""So many refused symbols, and none that was answered, speak for all symbols."""

_MOST_SYMBOLS = 10_000
"""Kept of one interval or errand; beyond them the one that was refused first costs another call."""


class Entitlement:
    """A refusal holds for its symbol and interval, or errand, for `retry_s`: a plan may lack one market only.

    It holds for every symbol while `ENOUGH` symbols are refused and none was answered for `retry_s`. What was
    asked without a symbol is refused as a whole. Pure, every call takes seconds of one monotonic clock.
    """

    def __init__(self, retry_s: float) -> None:
        self._retry_s = retry_s
        self._refused_s: dict[Wanted, dict[str | None, float]] = {}
        """When each symbol was refused last, the earliest first."""
        self._answered_s: dict[Wanted, float] = {}

    def refused(self, wanted: Wanted, symbol: str | None, now_s: float) -> None:
        """The plan does not include `wanted` of `symbol`; `None`: of any."""
        refused_s = self._refused_s.setdefault(wanted, {})
        refused_s.pop(symbol, None)
        refused_s[symbol] = now_s
        if len(refused_s) > _MOST_SYMBOLS:
            del refused_s[next(iter(refused_s))]

    def answered(self, wanted: Wanted, symbol: str | None, now_s: float) -> None:
        """The plan includes `wanted`, of `symbol` at least."""
        self._answered_s[wanted] = now_s
        self._refused_s.get(wanted, {}).pop(symbol, None)

    def includes(self, wanted: Wanted, symbol: str | None, now_s: float) -> bool:
        """Whether `wanted` of `symbol` may be asked for."""
        refused_s = self._refused_s.get(wanted, {}).get(symbol)
        is_refused = refused_s is not None and self._is_recent(refused_s, now_s)
        return not is_refused and not self._is_off(wanted, now_s)

    def off(self, now_s: float) -> frozenset[Wanted]:
        """What is not asked for, whatever the symbol."""
        return frozenset(wanted for wanted in self._refused_s if self._is_off(wanted, now_s))

    def _is_off(self, wanted: Wanted, now_s: float) -> bool:
        refused_s = self._refused_s.get(wanted, {})
        while refused_s and not self._is_recent(next(iter(refused_s.values())), now_s):
            del refused_s[next(iter(refused_s))]
        if None in refused_s:
            return True
        answered_s = self._answered_s.get(wanted, float("-inf"))
        return len(refused_s) >= ENOUGH and not self._is_recent(answered_s, now_s)

    def _is_recent(self, at_s: float, now_s: float) -> bool:
        return now_s < at_s + self._retry_s
