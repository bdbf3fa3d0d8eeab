"""What a collector remembers between two looks. All of it can be lost: it only saves asking in vain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cluster.market.instants import Instants

REFUSED_FOR_S = 86_400.0
"""A provider that does not have a symbol is asked for it again after this."""
LACKS_FOR_S = 600.0
"""So long it is remembered what symbols without a recent bar lack."""


class Lack(NamedTuple):
    """What a symbol lacks of which no recent bar is stored."""

    closed_at: np.datetime64
    """When the first bar that is missing at its end closed, or will close."""
    is_given: bool
    """Whether there is any bar of it, however old."""


@dataclass(slots=True)
class Memory:
    """Of one tier and interval."""

    answered: dict[str, np.datetime64] = field(default_factory=dict)
    """Open of the newest bar that a provider was asked for in time and gave all it had, by symbol."""
    lag_s: dict[str, float] = field(default_factory=dict)
    """How long after its close the newest bar was stored, by symbol."""
    lacks: dict[str, Lack] = field(default_factory=dict)
    """By symbol, of those without a recent bar; asked for anew now and then, for others collect, too."""
    lacks_until_s: float = 0.0
    refused_until_s: dict[tuple[str, str], float] = field(default_factory=dict)
    """By provider and symbol."""

    def keep(self, symbols: set[str], now_s: float) -> None:
        """Forget all other symbols, refusals that are over, and now and then what is lacking."""
        self.answered = {name: ts for name, ts in self.answered.items() if name in symbols}
        self.lag_s = {name: lag_s for name, lag_s in self.lag_s.items() if name in symbols}
        if now_s >= self.lacks_until_s:
            self.lacks, self.lacks_until_s = {}, now_s + LACKS_FOR_S
        self.refused_until_s = {
            key: until_s
            for key, until_s in self.refused_until_s.items()
            if key[1] in symbols and until_s > now_s
        }

    def answers(self, symbols: Sequence[str]) -> Instants:
        """`answered` of each symbol; 1970 where there is none."""
        never = np.datetime64(0, "us")
        return np.array([self.answered.get(name, never) for name in symbols], dtype="datetime64[us]")

    def lacking_since(self, symbols: Sequence[str]) -> Instants:
        """When the first missing bar of each symbol closed, of those in `lacks`; else NaT."""
        unknown = np.datetime64("NaT", "us")
        found = [self.lacks[name].closed_at if name in self.lacks else unknown for name in symbols]
        return np.array(found, dtype="datetime64[us]")

    def refuse(self, provider: str, symbol: str, now_s: float) -> None:
        """`provider` does not have `symbol`."""
        self.refused_until_s[provider, symbol] = now_s + REFUSED_FOR_S

    def percentiles(self) -> tuple[float | None, float | None]:
        """The median and the 99th percentile of the lags in seconds."""
        if not self.lag_s:
            return None, None
        lags: npt.NDArray[np.float64] = np.fromiter(self.lag_s.values(), float)
        p50, p99 = np.percentile(lags, [50, 99])
        return float(p50), float(p99)
