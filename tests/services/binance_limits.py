"""How Binance counts the weight of one client address, and what it refuses with."""

from __future__ import annotations

from dataclasses import dataclass

_ADVICE = "Please use WebSocket Streams for live updates to avoid"


class Refused(Exception):
    """An answer that is an error; `wait_s` becomes the header `Retry-After`."""

    def __init__(self, status: int, code: int, message: str, wait_s: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.wait_s = status, code, wait_s


@dataclass
class WeightLimit:
    """At most `limit` of weight in each minute of the clock; whoever goes on after a 429 is banned."""

    limit: int = 6_000
    patience: int = 10
    """Requests above the limit in one minute that are answered 429 before the ban."""
    used: int = 0
    """Weight used in the current minute."""
    _minute: int = -1
    _over: int = 0
    _bans: int = 0
    _banned_until_ms: int = 0

    def count(self, weight: int, now_ms: int) -> None:
        """Take `weight`, or raise why the request is refused; bans grow by two minutes each."""
        if now_ms < self._banned_until_ms:
            raise self._banned(now_ms)
        if now_ms // 60_000 != self._minute:
            self._minute, self.used, self._over = now_ms // 60_000, 0, 0
        self.used += weight
        if self.used <= self.limit:
            return
        self._over += 1
        if self._over <= self.patience:
            raise self._throttled(now_ms)
        self._bans += 1
        self._banned_until_ms = now_ms + 120_000 * self._bans
        raise self._banned(now_ms)

    def _throttled(self, now_ms: int) -> Refused:
        text = f"Too much request weight used; current limit is {self.limit} request weight per 1 MINUTE."
        wait_s = _seconds_up((self._minute + 1) * 60_000 - now_ms)
        return Refused(429, -1003, f"{text} {_ADVICE} polling the API.", wait_s)

    def _banned(self, now_ms: int) -> Refused:
        text = f"Way too much request weight used; IP banned until {self._banned_until_ms}."
        return Refused(418, -1003, f"{text} {_ADVICE} bans.", _seconds_up(self._banned_until_ms - now_ms))


def _seconds_up(milliseconds: int) -> int:
    return -(-milliseconds // 1_000)
