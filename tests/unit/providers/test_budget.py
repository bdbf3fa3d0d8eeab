"""The budget never grants more than a window allows, and says when to come back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ConfigError
from cluster.providers.budget import Budget, Window, WindowLeft, used_of


def test_without_windows_everything_is_granted() -> None:
    assert Budget().reserve(1_000_000, now_s=0.0) is None
    assert Budget().left(0.0) == []


def test_a_full_window_answers_the_second_at_which_the_oldest_grant_is_forgotten() -> None:
    budget = Budget((Window(limit=2, seconds=60),))
    assert budget.reserve(1, 0.0) is None
    assert budget.reserve(1, 10.0) is None
    assert budget.reserve(1, 20.0) == 60.0
    assert budget.reserve(1, 60.0) is None
    assert budget.reserve(1, 60.0) == 70.0


def test_the_window_slides_so_that_no_burst_fits_around_its_edge() -> None:
    budget = Budget((Window(limit=3, seconds=60),))
    assert [budget.reserve(1, at_s) for at_s in (57.0, 58.0, 59.0)] == [None, None, None]
    assert budget.reserve(1, 61.0) == 117.0  # a counter that starts anew each minute would grant it


def test_a_heavy_call_waits_until_enough_light_ones_are_forgotten() -> None:
    budget = Budget((Window(limit=10, seconds=60),))
    for at_s in range(8):
        budget.reserve(1, float(at_s))
    assert budget.reserve(5, 8.0) == 62.0  # needs 3 back: those of seconds 0, 1 and 2


def test_every_window_must_have_room() -> None:
    budget = Budget((Window(limit=5, seconds=1), Window(limit=6, seconds=86_400)))
    assert budget.reserve(5, 0.0) is None
    assert budget.reserve(2, 0.5) == 86_400.0
    assert budget.left(0.5) == [WindowLeft(5, 1, 0), WindowLeft(6, 86_400, 1)]
    assert budget.left(1.0) == [WindowLeft(5, 1, 5), WindowLeft(6, 86_400, 1)]


def test_a_refused_call_takes_nothing_out_of_any_window() -> None:
    budget = Budget((Window(limit=1, seconds=10), Window(limit=100, seconds=100)))
    budget.reserve(1, 0.0)
    for _ in range(50):
        budget.reserve(1, 1.0)
    assert budget.left(1.0)[1].left == 99


def test_a_budget_that_the_provider_closed_stays_closed_until_then() -> None:
    budget = Budget((Window(limit=5, seconds=1),))
    budget.close_until(30.0)
    budget.close_until(20.0)  # an earlier moment does not open it
    assert budget.reserve(1, 29.0) == 30.0
    assert budget.left(29.0)[0].left == 0
    assert budget.reserve(1, 30.0) is None


def test_what_the_provider_counts_beyond_ours_is_taken_over() -> None:
    budget = Budget((Window(limit=10, seconds=60), Window(limit=100, seconds=86_400)))
    budget.reserve(2, 0.0)
    budget.correct({"1m": 9}, 5.0)  # 7 are of somebody else
    assert [window.left for window in budget.left(5.0)] == [1, 98]
    assert budget.reserve(2, 5.0) == 60.0  # our own 2 leave first
    assert budget.reserve(4, 60.0) == 65.0
    assert budget.reserve(4, 65.0) is None


def test_a_smaller_count_of_the_provider_gives_nothing_back() -> None:
    budget = Budget((Window(limit=10, seconds=60),))
    budget.reserve(8, 50.0)
    budget.correct({"1m": 1}, 61.0)  # its minute began anew, ours slides
    assert budget.left(61.0)[0].left == 2


def test_a_count_above_the_limit_leaves_nothing() -> None:
    budget = Budget((Window(limit=10, seconds=60),))
    budget.correct({"1m": 25}, 0.0)
    assert budget.left(0.0)[0].left == 0
    assert budget.reserve(1, 0.0) == 60.0


@pytest.mark.parametrize(
    ("usage", "seconds", "used"),
    [
        ({"1m": 37}, 60, 37),
        ({"5m": 3, "1s": 2}, 1, 2),
        ({"5m": 3}, 300, 3),
        ({"2h": 4}, 7_200, 4),
        ({"1d": 9}, 86_400, 9),
        ({"60s": 9}, 60, 9),
        ({"1m": 37}, 61, 0),
        ({"1M": 37, "": 1, "m": 2, "-1m": 3}, 60, 0),
    ],
)
def test_a_window_is_known_by_its_length(usage: dict[str, int], seconds: int, used: int) -> None:
    assert used_of(Window(limit=1, seconds=seconds), usage) == used


def test_a_weight_that_can_never_fit_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="a call of weight 6 never fits"):
        Budget((Window(limit=5, seconds=1),)).reserve(6, 0.0)


@pytest.mark.parametrize("window", [Window(limit=0, seconds=1), Window(limit=1, seconds=0)])
def test_an_impossible_window_is_a_configuration_error(window: Window) -> None:
    with pytest.raises(ConfigError, match="must have limit >= 1"):
        Budget((window,))


WINDOWS = st.lists(
    st.builds(Window, limit=st.integers(5, 20), seconds=st.integers(1, 30)), min_size=1, max_size=3
)
CALLS = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), max_size=60)


@given(windows=WINDOWS, calls=CALLS)
def test_no_stretch_of_time_ever_holds_more_than_its_window_allows(
    windows: list[Window], calls: list[tuple[int, int]]
) -> None:
    budget, now_s = Budget(tuple(windows)), 0.0
    granted: list[tuple[float, int]] = []
    for pause_s, weight in calls:
        now_s += pause_s
        if budget.reserve(weight, now_s) is None:
            granted.append((now_s, weight))
    for window in windows:
        for start_s, _ in granted:
            used = sum(weight for at_s, weight in granted if start_s <= at_s < start_s + window.seconds)
            assert used <= window.limit


@given(windows=WINDOWS, calls=CALLS)
def test_the_answered_second_is_the_first_at_which_the_call_fits(
    windows: list[Window], calls: list[tuple[int, int]]
) -> None:
    budget, now_s = Budget(tuple(windows)), 0.0
    for pause_s, weight in calls:
        now_s += pause_s
        retry_at_s = budget.reserve(weight, now_s)
        if retry_at_s is not None:
            assert budget.reserve(weight, retry_at_s - 0.5) == retry_at_s
            assert budget.reserve(weight, retry_at_s) is None
            now_s = retry_at_s
