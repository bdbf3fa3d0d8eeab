"""What is asked for, and how far behind a symbol is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

from cluster.ingest.plan import asks, lags_s, late
from cluster.ingest.slots import FINAL, MISSING, RUNNING, States, newest
from cluster.market.instants import Instants
from cluster.market.intervals import Interval

M1 = Interval.M1
NOW = datetime(2025, 10, 8, 12, 0, 0, 500_000, tzinfo=UTC)
SLOTS = newest("24/7", M1, NOW)  # 11:51 to 12:00, the last of which has just opened
ALL, NONE = [FINAL] * 9 + [MISSING], [MISSING] * 10
NEVER = np.zeros(1, "datetime64[us]")
TICK = timedelta(microseconds=1)


def at(minute: int, second: int = 0) -> datetime:
    return datetime(2025, 10, 8, 11, 0, second, tzinfo=UTC) + timedelta(minutes=minute)


def stored(*rows: list[int]) -> States:
    return np.array(rows, dtype=np.int8)


def spans(
    states: States,
    answered: Instants = NEVER,
    *,
    running: bool = False,
    grace_s: float = 0.0,
    alone: bool = False,
) -> list[tuple[list[int], datetime, datetime]]:
    answered = np.broadcast_to(answered, len(states))
    found = asks(
        SLOTS, states, answered, NOW, grace_s, wants_running=running, alone=np.full(len(states), alone)
    )
    return [(each.symbols.tolist(), each.start, each.end) for each in found]


def test_the_bar_that_has_just_closed_is_asked_for_with_two_before_it() -> None:
    before = [FINAL] * 8 + [MISSING, MISSING]
    assert spans(stored(before)) == [([0], at(57), at(60))]


def test_a_symbol_that_has_everything_is_not_asked_for() -> None:
    assert spans(stored(ALL)) == []


def test_of_a_new_symbol_the_last_nine_minutes_are_asked_for() -> None:
    assert spans(stored(NONE)) == [([0], at(51), at(60))]


def test_symbols_that_begin_with_the_same_bar_are_asked_for_together_and_the_oldest_first() -> None:
    newest_missing, hole = [FINAL] * 8 + [MISSING] * 2, [FINAL] * 4 + [MISSING] + [FINAL] * 4 + [MISSING]
    found = spans(stored(newest_missing, hole, newest_missing, ALL))
    assert found == [([1], at(53), at(60)), ([0, 2], at(57), at(60))]


def test_a_hole_that_a_provider_was_asked_for_in_time_is_left_to_the_gap_finder() -> None:
    hole = [FINAL] * 4 + [MISSING] + [FINAL] * 3 + [MISSING] * 2
    assert spans(stored(hole), np.array(["2025-10-08T11:58"], "datetime64[us]")) == [([0], at(57), at(60))]
    hole[8] = FINAL
    assert spans(stored(hole), np.array(["2025-10-08T11:59"], "datetime64[us]")) == []


def test_a_bar_that_was_read_too_early_is_read_again_whatever_was_answered() -> None:
    early = [FINAL] * 8 + [RUNNING, MISSING]
    assert spans(stored(early), np.array(["2025-10-08T11:59"], "datetime64[us]")) == [([0], at(57), at(60))]


def test_a_bar_is_not_asked_for_before_its_grace_has_passed() -> None:
    before = [FINAL] * 8 + [MISSING, MISSING]
    assert spans(stored(before), grace_s=60.0) == []
    before[7] = MISSING
    assert spans(stored(before), grace_s=60.0) == [([0], at(56), at(59))]


def test_the_bar_that_runs_is_asked_for_only_where_it_is_wanted() -> None:
    assert spans(stored(ALL), running=True) == [([0], at(58), NOW + TICK)]


def test_what_others_gave_is_not_read_again_from_another_provider() -> None:
    before = [FINAL] * 8 + [MISSING, MISSING]
    assert spans(stored(before), alone=True) == [([0], at(59), at(60))]


def test_nothing_is_asked_for_while_a_market_is_closed_and_collected() -> None:
    closed = newest("XNYS", M1, datetime(2025, 11, 28, 18, 30, tzinfo=UTC))  # a half day
    full = np.full((1, len(closed)), FINAL, np.int8)
    now = datetime(2025, 11, 28, 18, 30, tzinfo=UTC)
    assert asks(closed, full, NEVER, now, 60.0, wants_running=True) == []


def lag(before: list[int], after: list[int], lacking_since: str = "NaT") -> float | None:
    since = np.array([lacking_since], "datetime64[us]")
    seconds, news = lags_s(SLOTS, stored(before), stored(after), since, NOW, 0.0)
    return float(seconds[0]) if news[0] else None


def test_the_lag_of_a_bar_is_counted_from_its_close() -> None:
    before = [FINAL] * 8 + [MISSING, MISSING]
    assert lag(before, ALL) == 0.5


def test_a_symbol_that_lacks_bars_is_behind_since_the_close_of_the_first() -> None:
    behind = [FINAL] * 6 + [MISSING] * 4
    assert lag(behind, behind) == 120.5  # 11:57 closed at 11:58


def test_a_symbol_without_recent_bars_is_behind_since_the_first_that_it_lacks_however_long_ago() -> None:
    assert lag(NONE, NONE, "2025-10-08T09:00") == 10_800.5
    assert lag(NONE, NONE, "2025-10-08T12:00") == 0.5
    assert lag(NONE, NONE, "2025-10-08T12:01") is None  # it lacks nothing yet
    assert lag(NONE, NONE) is None
    assert lag(NONE, ALL, "2025-10-08T09:00") == 0.5  # that was made up for; the hole is the gap finder's


def test_a_hole_that_was_passed_is_no_lag() -> None:
    hole = [FINAL] * 4 + [MISSING] + [FINAL] * 3 + [MISSING, MISSING]
    assert lag(hole, [*hole[:8], FINAL, MISSING]) == 0.5


def test_a_bar_that_was_there_before_is_no_news() -> None:
    assert lag(ALL, ALL) is None


def test_a_final_bar_is_late_when_a_later_one_was_there_before() -> None:
    before = stored([FINAL] * 4 + [MISSING] + [FINAL] * 3 + [MISSING] * 2)
    symbol, final = np.zeros(3, np.intp), np.array([True, True, False])
    ts = np.array(["2025-10-08T11:55", "2025-10-08T11:59", "2025-10-08T12:00"], "datetime64[us]")
    assert late(SLOTS, before, symbol, ts, final) == 1
