"""The sample data: its extent, and values that can be looked up."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cluster.errors import InputError
from cluster.market import bars, calendars, gaps
from cluster.market.intervals import Interval
from cluster.providers.sample import SampleProvider

ALL = (datetime(1990, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("symbol", ["SPX", "IXIC"])
async def test_there_is_one_bar_for_each_session_of_twenty_years(symbol: str) -> None:
    table = await SampleProvider().bars(symbol, Interval.D1, *ALL)
    assert table.num_rows == 5_031
    years = datetime(1999, 1, 1, tzinfo=UTC), datetime(2019, 1, 1, tzinfo=UTC)
    expected = calendars.expected_opens("XNYS", Interval.D1, *years)
    assert gaps.find(expected, bars.opens(table), Interval.D1) == []
    assert bars.validate(table, datetime(2019, 1, 1, tzinfo=UTC)).rejected.num_rows == 0


async def test_the_first_and_the_last_close_of_the_index_are_the_published_ones() -> None:
    table = await SampleProvider().bars("SPX", Interval.D1, *ALL)
    first, last = table.slice(0, 1).to_pylist()[0], table.slice(5_030, 1).to_pylist()[0]
    assert (first["ts"], round(first["close"], 2)) == (datetime(1999, 1, 4, 14, 30, tzinfo=UTC), 1228.10)
    assert (last["ts"], round(last["close"], 2)) == (datetime(2018, 12, 31, 14, 30, tzinfo=UTC), 2506.85)


async def test_a_summer_session_opens_an_hour_earlier_in_utc() -> None:
    day = datetime(2018, 7, 2, tzinfo=UTC), datetime(2018, 7, 3, tzinfo=UTC)
    table = await SampleProvider().bars("SPX", Interval.D1, *day)
    assert table["ts"].to_pylist() == [datetime(2018, 7, 2, 13, 30, tzinfo=UTC)]


async def test_the_two_sessions_with_volume_0_are_kept_as_they_are() -> None:
    table = await SampleProvider().bars("IXIC", Interval.D1, *ALL)
    assert (table["volume"].to_numpy() == 0).sum() == 2


async def test_another_interval_is_refused() -> None:
    with pytest.raises(InputError, match="has the interval 1d only; asked for 1h"):
        await SampleProvider().bars("SPX", Interval.H1, *ALL)
