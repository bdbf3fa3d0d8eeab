"""Which bars are expected, when they close, and when they are final."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from cluster.ingest.slots import FINAL, MISSING, RUNNING, newest, settled, states
from cluster.market import bars
from cluster.market.instants import Instants
from cluster.market.intervals import Interval

M1, M30, H1, D1 = Interval.M1, Interval.M30, Interval.H1, Interval.D1


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def instants(*texts: str) -> Instants:
    return np.array(texts, dtype="datetime64[us]")


def times(array: Instants) -> list[str]:
    return [str(each)[:16] for each in array]


def table(ts: Instants, interval: Interval = M1, *, final: bool = True) -> pa.Table:
    ones = np.ones(len(ts))
    return bars.from_columns("A", interval, ts, ones, ones, ones, ones, ones, source="s", is_final=final)


def test_the_last_bars_of_a_half_day_end_at_one() -> None:
    slots = newest("XNYS", M30, utc("2025-11-28T20:00"))  # closed at 18:00 UTC
    assert times(slots.opens[-2:]) == ["2025-11-28T17:00", "2025-11-28T17:30"]
    assert times(slots.closes[-2:]) == ["2025-11-28T17:30", "2025-11-28T18:00"]


def test_the_last_hour_of_new_york_is_cut_by_the_close() -> None:
    slots = newest("XNYS", H1, utc("2025-10-08T20:30"))
    assert times(slots.opens[-2:]) == ["2025-10-08T18:30", "2025-10-08T19:30"]
    assert times(slots.closes[-2:]) == ["2025-10-08T19:30", "2025-10-08T20:00"]


def test_the_hour_before_the_lunch_of_tokyo_is_cut_by_it() -> None:
    slots = newest("XTKS", H1, utc("2025-12-01T03:31"))  # 11:30 to 12:30 in Tokyo, 02:30 to 03:30 UTC
    assert times(slots.opens[-2:]) == ["2025-12-01T02:00", "2025-12-01T03:30"]
    assert times(slots.closes[-2:]) == ["2025-12-01T02:30", "2025-12-01T04:30"]


def test_new_york_opens_an_hour_earlier_by_utc_when_its_clocks_change() -> None:
    before, after = newest("XNYS", M1, utc("2025-03-07T14:30")), newest("XNYS", M1, utc("2025-03-10T13:30"))
    assert times(before.opens[-1:]) == ["2025-03-07T14:30"]
    assert times(after.opens[-2:]) == ["2025-03-07T20:59", "2025-03-10T13:30"]


def test_a_daily_bar_closes_with_its_session() -> None:
    slots = newest("XNYS", D1, utc("2025-11-28T15:00"))
    assert times(slots.opens[-2:]) == ["2025-11-26T14:30", "2025-11-28T14:30"]  # Thanksgiving in between
    assert times(slots.closes[-2:]) == ["2025-11-26T21:00", "2025-11-28T18:00"]
    assert slots.due(utc("2025-11-28T18:00:59"), 60.0)[-2:].tolist() == [True, False]
    assert slots.due(utc("2025-11-28T18:01:00"), 60.0)[-2:].tolist() == [True, True]


def test_nothing_is_looked_after_where_the_market_has_been_closed_for_long() -> None:
    assert len(newest("XNYS", M1, utc("2025-10-08T12:00"))) == 10  # yesterday's
    assert len(newest("XSHG", M1, utc("2025-10-08T12:00"))) == 0  # Golden Week began on 1 October


def test_what_is_stored_is_told_by_symbol_and_bar() -> None:
    slots = newest("24/7", M1, utc("2025-10-08T12:00:30"))
    symbol, ts = np.array([1, 1, 0]), instants("2025-10-08T11:58", "2025-10-08T12:00", "2025-10-08T11:58:30")
    found = states(slots, 2, symbol, ts, np.array([True, False, True]))
    assert found[0].tolist() == [MISSING] * 10  # 11:58:30 is no minute
    assert found[1].tolist() == [MISSING] * 7 + [FINAL, MISSING, RUNNING]


def test_a_bar_is_final_only_when_the_grace_had_passed_before_it_was_asked_for() -> None:
    slots = newest("24/7", M1, utc("2025-10-08T12:00:30"))
    given_ = table(instants("2025-10-08T11:58", "2025-10-08T11:59", "2025-10-08T12:00"))
    for asked_at, final in (("12:00:02", [True, False, False]), ("12:00:03", [True, True, False])):
        seen = settled(given_, slots, utc(f"2025-10-08T{asked_at}"), 3.0)
        assert seen["is_final"].to_pylist() == final


def test_what_a_provider_calls_running_is_never_called_final() -> None:
    slots = newest("24/7", M1, utc("2025-10-08T12:00:30"))
    given_ = table(instants("2025-10-08T11:50"), final=False)
    assert settled(given_, slots, utc("2025-10-08T12:00"), 0.0)["is_final"].to_pylist() == [False]


def test_a_bar_outside_of_the_sessions_lasts_its_whole_interval() -> None:
    slots = newest("XNYS", M30, utc("2025-10-08T20:05"))
    given_ = table(instants("2025-10-08T20:00"), M30)
    assert settled(given_, slots, utc("2025-10-08T20:29"), 0.0)["is_final"].to_pylist() == [False]
    assert settled(given_, slots, utc("2025-10-08T20:30"), 0.0)["is_final"].to_pylist() == [True]


@given(
    calendar=st.sampled_from(["24/7", "XNYS", "XTKS"]),
    interval=st.sampled_from(list(Interval)),
    past_min=st.integers(0, 14 * 1_440),
    grace_s=st.sampled_from([0.0, 3.0, 60.0]),
)
def test_no_bar_is_due_before_its_close_and_grace(
    calendar: str, interval: Interval, past_min: int, grace_s: float
) -> None:
    now = datetime.fromtimestamp(utc("2025-11-20T00:00").timestamp() + past_min * 60 + 1, UTC)
    slots, moment = newest(calendar, interval, now), np.datetime64(now.replace(tzinfo=None), "us")
    assert np.all(slots.opens <= moment)
    assert np.all(slots.opens < slots.closes)
    ends = slots.closes[slots.due(now, grace_s)] + np.timedelta64(int(grace_s), "s")
    assert np.all(ends <= moment)
