"""Real daily bars without a network: the index data that ships inside the `arch` package.

S&P 500 (`SPX`) and NASDAQ Composite (`IXIC`), 5 031 sessions from 1999-01-04 to 2018-12-31, as distributed by
arch (bashtage/arch, `arch/data/sp500` and `arch/data/nasdaq`). Two NASDAQ sessions carry volume 0 in the data
and are kept so.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from cluster.errors import ConfigError, InputError, InvalidSymbol, Malformed
from cluster.market import bars, calendars
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.providers.protocol import Capabilities

NAME = "sample"

_INSTRUMENTS = {
    "SPX": Instrument("SPX", "INDEX", "index", "XNYS", name="S&P 500", tier="T0"),
    "IXIC": Instrument("IXIC", "INDEX", "index", "XNYS", name="NASDAQ Composite", tier="T0"),
}
_AS_WRITTEN = csv.ConvertOptions(
    column_types={"Date": pa.timestamp("s"), "Volume": pa.float64()}, timestamp_parsers=["%m/%d/%Y"]
)
_FIRST, _AFTER = datetime(1999, 1, 4, tzinfo=UTC), datetime(2019, 1, 1, tzinfo=UTC)


class SampleProvider:
    """Answers daily bars of `SPX` and `IXIC`; `ts` is the session's open by the calendar of New York."""

    name = NAME
    capabilities = Capabilities(
        intervals=frozenset({Interval.D1}),
        symbols=frozenset(_INSTRUMENTS),
        page_bars=10_000,
        earliest=_FIRST,
        until=_AFTER,
        grace_s=0.0,
    )

    async def bars(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        """The bars of [start, end); `InputError` for any other interval than `1d`."""
        if not interval.is_daily:
            raise InputError(f"provider {NAME} has the interval 1d only; asked for {interval}")
        if symbol not in _INSTRUMENTS:
            raise InvalidSymbol(f"provider {NAME} knows {', '.join(_INSTRUMENTS)}; asked for {symbol!r}")
        history = await asyncio.to_thread(_history, symbol)
        return bars.between(history, start, end)

    def instruments(self) -> list[Instrument]:
        """The two indices."""
        return list(_INSTRUMENTS.values())


@cache
def _history(symbol: str) -> pa.Table:
    frame = csv.read_csv(_file(symbol), convert_options=_AS_WRITTEN)
    columns = (frame[name].to_numpy() for name in ("Open", "High", "Low", "Close", "Volume"))
    known = calendars.sessions("XNYS", _FIRST, _AFTER)
    if not np.array_equal(frame["Date"].to_numpy().astype("datetime64[D]"), known.dates):
        raise Malformed(f"the {symbol} data of the arch package does not have one row for each XNYS session")
    return bars.from_columns(symbol, Interval.D1, known.opens, *columns, source=NAME)


def _file(symbol: str) -> Path:
    """The data file inside the package, whose own code would load statsmodels: seconds, and 100 MB."""
    found = find_spec("arch")
    if found is None or found.origin is None:
        raise ConfigError("The package arch, which brings the sample data, is not installed: `make setup`")
    name = {"SPX": "sp500", "IXIC": "nasdaq"}[symbol]
    return Path(found.origin).parent / "data" / name / f"{name}.csv.gz"
