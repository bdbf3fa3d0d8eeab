"""A budget of weighted calls in several sliding windows at once; pure, takes the time as an argument."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from cluster.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Window:
    """At most `limit` of weight in any `seconds` in a row."""

    limit: int
    seconds: float


_UNIT_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def used_of(window: Window, usage: Mapping[str, int]) -> int:
    """What `usage`, such as `{"1m": 37}`, says of `window`; 0 when it says nothing."""
    for name, used in usage.items():
        length = re.fullmatch(r"(\d{1,9})([smhd])", name)
        if length and int(length[1]) * _UNIT_S[length[2]] == window.seconds:
            return used
    return 0


@dataclass(frozen=True, slots=True)
class WindowLeft:
    """What is left of one window."""

    limit: int
    seconds: float
    left: int


def checked(windows: tuple[Window, ...]) -> tuple[Window, ...]:
    """`windows`; raises `ConfigError` for one that is impossible."""
    for window in windows:
        if window.limit < 1 or window.seconds <= 0:
            raise ConfigError(f"budget window {window} must have limit >= 1 and seconds > 0")
    return windows


def narrowed(windows: tuple[Window, ...], told: tuple[Window, ...]) -> tuple[Window, ...]:
    """`windows`, none of them above four fifths of what the provider `told` of the same length.

    A fifth is left to what else runs behind the same address: a ban hits all.
    """
    told_limit = {window.seconds: window.limit for window in told}
    return tuple(
        Window(max(1, min(window.limit, told_limit[window.seconds] * 4 // 5)), window.seconds)
        if window.seconds in told_limit
        else window
        for window in windows
    )


def seconds_per_call(budget: tuple[Window, ...], weight: int) -> float:
    """How long the tightest window takes to allow one call of `weight`, in the long run: its price."""
    return max((weight * window.seconds / window.limit for window in budget), default=0.0)


class Budget:
    """Grants calls as long as every window has room for them.

    The windows slide: the weight granted within any half-open stretch of `seconds` never exceeds `limit`.
    Times are seconds of one monotonic clock. Without windows everything is granted.
    """

    def __init__(self, windows: tuple[Window, ...] = ()) -> None:
        self._logs = [_Log(window) for window in checked(windows)]
        self._closed_until_s = float("-inf")

    def reserve(self, weight: int, now_s: float) -> float | None:
        """Take `weight` out of every window and answer `None`, or answer the second at which it may fit.

        Raises `ConfigError` when `weight` is above the limit of a window, so that it could never fit.
        """
        retry_at_s = max((log.room_at(weight, now_s) for log in self._logs), default=now_s)
        retry_at_s = max(retry_at_s, self._closed_until_s)
        if retry_at_s > now_s:
            return retry_at_s
        for log in self._logs:
            log.add(weight, now_s)
        return None

    def renew(self, windows: tuple[Window, ...]) -> None:
        """Go on with other windows; what was used counts in those of the same length."""
        logs = {log.window.seconds: log for log in self._logs}
        self._logs = [_Log(window) for window in checked(windows)]
        for log in self._logs:
            if log.window.seconds in logs:
                log.inherit(logs[log.window.seconds])

    def close_until(self, until_s: float) -> None:
        """Grant nothing before `until_s`: the provider itself said when to come back."""
        self._closed_until_s = max(self._closed_until_s, until_s)

    def correct(self, usage: Mapping[str, int], now_s: float) -> None:
        """Count at least what the provider says is used, as in `{"1m": 37}`: others may spend it, too.

        What we counted beyond that stays: calls on their way, and windows that the provider begins anew.
        """
        for log in self._logs:
            log.raise_to(usage, now_s)

    def left(self, now_s: float) -> list[WindowLeft]:
        """What is left of every window; nothing while the provider has closed the budget."""
        closed = now_s < self._closed_until_s
        return [log.left(now_s, closed=closed) for log in self._logs]


class _Log:
    """The grants of one window that still count, oldest first."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self._grants: deque[tuple[float, int]] = deque()
        self._used = 0

    def inherit(self, before: _Log) -> None:
        self._grants, self._used = before._grants, before._used

    def room_at(self, weight: int, now_s: float) -> float:
        """The earliest second, not before `now_s`, at which `weight` fits."""
        if weight > self.window.limit:
            raise ConfigError(f"a call of weight {weight} never fits into the budget window {self.window}")
        self._forget(now_s)
        excess, at_s = self._used + weight - self.window.limit, now_s
        for granted_s, granted in self._grants:
            if excess <= 0:
                break
            excess, at_s = excess - granted, granted_s + self.window.seconds
        return at_s

    def add(self, weight: int, now_s: float) -> None:
        self._grants.append((now_s, weight))
        self._used += weight

    def raise_to(self, usage: Mapping[str, int], now_s: float) -> None:
        self._forget(now_s)
        unknown = used_of(self.window, usage) - self._used
        if unknown > 0:
            self.add(unknown, now_s)

    def left(self, now_s: float, *, closed: bool) -> WindowLeft:
        self._forget(now_s)
        left = 0 if closed else max(0, self.window.limit - self._used)
        return WindowLeft(self.window.limit, self.window.seconds, left)

    def _forget(self, now_s: float) -> None:
        while self._grants and self._grants[0][0] + self.window.seconds <= now_s:
            self._used -= self._grants.popleft()[1]
