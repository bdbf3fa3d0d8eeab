"""When is looked, and how late a bar can be by that."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.ingest.cadence import Cadence
from cluster.market.intervals import Interval

M1, M5, H1, D1 = Interval.M1, Interval.M5, Interval.H1, Interval.D1
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def test_a_look_comes_half_a_second_after_the_minute() -> None:
    cadence = Cadence("T1", M1, 60.0)
    phase_s = cadence.phase_s([0.0])
    number = cadence.number(NOON, phase_s)
    assert cadence.moment(number, phase_s) == NOON - timedelta(seconds=59.5)
    assert cadence.moment(number + 1, phase_s) == NOON + timedelta(seconds=0.5)
    assert cadence.number(NOON + timedelta(seconds=0.5), phase_s) == number + 1


def test_a_look_waits_until_the_bars_of_every_provider_are_final() -> None:
    cadence = Cadence("T0", M1, 30.0)
    assert cadence.phase_s([0.0, 3.0]) == 3.5
    assert cadence.phase_s([60.0]) == 0.5  # a minute later is the same place on the grid
    assert cadence.phase_s([3.0, 60.0]) == 3.5
    assert cadence.phase_s([]) == 0.5


@pytest.mark.parametrize(
    ("cadence", "graces_s", "expected"),
    [
        (Cadence("T1", M1, 60.0), [0.0], 0.5),
        (Cadence("T0", M1, 30.0), [3.0], 3.5),
        (Cadence("T0", M1, 30.0), [3.0, 60.0], 63.5),
        (Cadence("T2", M5, 300.0), [60.0], 60.5),
        (Cadence("T2", M5, 240.0), [0.0], 240.0),  # off the grid of the bars
        (Cadence("T3", H1, 900.0), [0.0], 0.5),
        (Cadence("T3", H1, 3_600.0), [0.0], 3_600.0),  # the hours of New York end at half past
        (Cadence("T3", D1, 3_600.0), [60.0], 3_660.0),
    ],
)
def test_the_expected_lag_is_that_of_the_provider_whose_bars_are_final_last(
    cadence: Cadence, graces_s: list[float], expected: float
) -> None:
    assert cadence.expected_lag_s(graces_s) == pytest.approx(expected)


def test_who_looks_more_often_than_bars_close_wants_the_one_that_runs() -> None:
    assert Cadence("T0", M1, 30.0).wants_running
    assert not Cadence("T1", M1, 60.0).wants_running
    assert Cadence("T1", D1, 3_600.0).wants_running


@given(
    cadence_s=st.sampled_from([1.0, 15.0, 30.0, 60.0, 300.0, 3_600.0]),
    graces_s=st.lists(st.sampled_from([0.0, 3.0, 60.0, 90.0]), max_size=3),
    past_s=st.floats(0, 10_000),
)
def test_the_next_look_is_within_one_cadence(cadence_s: float, graces_s: list[float], past_s: float) -> None:
    cadence = Cadence("T1", M1, cadence_s)
    phase_s, now = cadence.phase_s(graces_s), NOON + timedelta(seconds=past_s)
    number = cadence.number(now, phase_s)
    assert cadence.moment(number, phase_s) <= now < cadence.moment(number + 1, phase_s)
