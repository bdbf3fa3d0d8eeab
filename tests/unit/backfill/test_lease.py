"""Backoff and the worker's own count of its lease."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.backfill.lease import Tenure, backoff_s


@pytest.mark.parametrize(
    ("attempt", "draw", "wait_s"),
    [
        (1, 0.0, 0.0),  # full jitter starts at nothing
        (1, 0.5, 2.0),  # half of 2 x 2
        (2, 0.5, 4.0),  # half of 2 x 4
        (8, 0.5, 256.0),  # half of 2 x 256
        (9, 0.5, 300.0),  # 2 x 512 is above the cap of 600
        (10_000, 0.5, 300.0),  # no overflow
    ],
)
def test_the_wait_doubles_up_to_the_cap(attempt: int, draw: float, wait_s: float) -> None:
    assert backoff_s(attempt, draw) == wait_s


@given(st.integers(1, 100), st.floats(0, 1, exclude_max=True))
def test_the_wait_is_proportional_to_the_draw(attempt: int, draw: float) -> None:
    """So a uniform draw gives a uniform wait between nothing and the bound."""
    bound_s = 2 * backoff_s(attempt, 0.5)
    assert backoff_s(attempt, draw) == pytest.approx(draw * bound_s)
    assert 0 <= backoff_s(attempt, draw) <= 600


@pytest.mark.parametrize(("attempt", "bound_s"), [(1, 4.0), (4, 32.0), (12, 600.0)])
def test_the_waits_of_many_are_spread_evenly(attempt: int, bound_s: float) -> None:
    """Chi-square of ten equal parts; 27.88 is exceeded by one true uniform sample of a thousand."""
    draw, counts, each = Random(attempt), [0] * 10, 1_000
    for _ in range(10 * each):
        counts[int(backoff_s(attempt, draw.random()) / bound_s * 10)] += 1
    assert sum((count - each) ** 2 / each for count in counts) < 27.88


def test_two_heartbeats_may_fail_before_the_work_stops() -> None:
    tenure = Tenure(renewed_at_s=100, lease_s=60)
    assert tenure.beat_at_s == 120
    assert tenure.stop_at_s == 154


def test_work_stops_before_the_database_lets_the_lease_go() -> None:
    """The database counts from when it got the claim, which is after it was sent."""
    assert Tenure(renewed_at_s=100, lease_s=60).stop_at_s < 100 + 60


def test_an_accepted_heartbeat_counts_from_when_it_was_sent() -> None:
    tenure = Tenure(100, 60).renewed(121)
    assert (tenure.beat_at_s, tenure.stop_at_s) == (141, 175)


def test_an_old_heartbeat_that_answers_late_shortens_nothing() -> None:
    assert Tenure(100, 60).renewed(90) == Tenure(100, 60)
