"""A provider that gives the answers of a list."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.market import bars
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.providers.protocol import Capabilities


def minutes(*offsets: int, high: float = 2.0) -> pa.Table:
    """Bars of AAA that many minutes after 2024-06-03 10:00 UTC."""
    ts = np.datetime64("2024-06-03T10:00:00", "us") + np.array(offsets) * np.timedelta64(60, "s")
    ones = np.ones(len(offsets))
    return bars.from_columns("AAA", Interval.M1, ts, ones, high * ones, ones, ones, None, source="scripted")


class Scripted:
    """Gives the answers of a list, one a call, and remembers what it was asked."""

    name = "scripted"

    def __init__(self, *answers: object, page_bars: int = 1_000, short_page_ends: bool = True) -> None:
        self.capabilities = Capabilities(
            intervals=frozenset({Interval.M1, Interval.D1}),
            symbols=None,
            page_bars=page_bars,
            short_page_ends=short_page_ends,
            weights={"limits": 20},
        )
        self.asked: list[datetime] = []
        self._answers = list(answers)

    async def bars(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        """The next answer of the list."""
        self.asked.append(start)
        answer = self.next()
        assert isinstance(answer, pa.Table)
        return answer

    def instruments(self) -> list[Instrument]:
        """None."""
        return []

    def next(self) -> Any:
        """The next answer of the list; raises it when it is an error."""
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer
