from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from cluster.market.bars import concat, from_columns
from cluster.market.intervals import Interval
from cluster.storage.bar_batch import batches

START = datetime(2025, 10, 8, tzinfo=UTC)


def minutes(symbol: str, *offsets: int, interval: Interval = Interval.M1) -> pa.Table:
    opens = np.array([(START + timedelta(minutes=n)).replace(tzinfo=None) for n in offsets], "datetime64[us]")
    ones = np.ones(len(offsets))
    return from_columns(symbol, interval, opens, ones, ones, ones, ones, ones, source="sample")


def spans(table: pa.Table) -> list[tuple[str, int, int]]:
    """(symbol, first, last) in minutes after `START`."""
    (batch,) = batches(table)
    found = batch.spans()
    zero = int(START.timestamp()) * 1_000_000
    return [
        (batch.symbols[symbol], (first - zero) // 60_000_000, (last - zero) // 60_000_000)
        for symbol, first, last in zip(*(column.tolist() for column in found), strict=True)
    ]


def test_bars_without_a_long_hole_are_one_span() -> None:
    assert spans(minutes("AAPL", 0, 1, 5, 69)) == [("AAPL", 0, 69)]


def test_a_hole_of_more_than_64_bars_ends_a_span() -> None:
    assert spans(minutes("AAPL", 0, 1, 66, 67)) == [("AAPL", 0, 1), ("AAPL", 66, 67)]


def test_each_symbol_has_spans_of_its_own() -> None:
    table = concat([minutes("MSFT", 0, 1), minutes("AAPL", 1, 2)])
    assert spans(table) == [("AAPL", 1, 2), ("MSFT", 0, 1)]


def test_bars_are_sorted_whatever_their_order() -> None:
    (batch,) = batches(concat([minutes("B", 2, 0), minutes("A", 1), minutes("B", 1)]))
    assert [batch.symbols[code] for code in batch.columns["symbol"]] == ["A", "B", "B", "B"]
    assert np.diff(batch.columns["ts"][1:]).tolist() == [60_000_000, 60_000_000]


def test_each_interval_is_a_batch() -> None:
    found = batches(concat([minutes("A", 0), minutes("A", 0, interval=Interval.H1), minutes("B", 0)]))
    assert {batch.interval: len(batch) for batch in found} == {Interval.M1: 2, Interval.H1: 1}
