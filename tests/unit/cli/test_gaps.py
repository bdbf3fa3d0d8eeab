from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from cluster.cli.gaps import Missing, explained
from cluster.market.instants import Instants
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.storage.backfill_merge import Span

BTC = Instrument("BTC-USD", "X", "crypto", "24/7", tier="T1")


def hours(*numbers: int) -> Instants:
    start = np.datetime64("2020-01-01T00:00:00", "us")
    return np.array([start + np.timedelta64(number, "h") for number in numbers], "datetime64[us]")


def at(hour: int) -> datetime:
    return datetime(2020, 1, 1, hour, tzinfo=UTC)


def missing(start: int, end: int, cause: str) -> Missing:
    return Missing("BTC-USD", "1h", "T1", at(start), at(end), end - start, cause)


def test_a_range_is_split_where_its_cause_changes() -> None:
    causes = {"in the queue": [Span(at(2), at(4))], "x has none": [Span(at(3), at(6))]}
    found = explained(BTC, Interval.H1, hours(*range(10)), hours(0, 9), causes)
    assert found == [
        missing(1, 2, "open"),
        missing(2, 4, "in the queue"),
        missing(4, 6, "x has none"),
        missing(6, 9, "open"),
    ]


def test_a_cause_that_covers_only_stored_bars_explains_nothing() -> None:
    causes = {"given up: no reason": [Span(at(0), at(3))]}
    found = explained(BTC, Interval.H1, hours(0, 1, 2, 3), hours(0, 1, 2), causes)
    assert found == [missing(3, 4, "open")]


def test_nothing_is_missing_when_everything_is_stored() -> None:
    assert explained(BTC, Interval.H1, hours(0, 1), hours(0, 1, 5), {}) == []
