"""The gaps of one symbol after a look; minutes count from `T`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

from cluster.backfill.gap_ledger import Ask, Facts, Look, settle
from cluster.market.gap_classes import Answer, GapClass
from cluster.market.intervals import Interval
from cluster.storage.backfill_merge import Span
from cluster.storage.gap_state import GapRow

T = datetime(2025, 10, 8, 14, tzinfo=UTC)
YEAR = 365 * 24 * 60
GRID = np.datetime64("2025-10-08T14:00", "us") + np.arange(YEAR) * np.timedelta64(1, "m")
NOW = T + timedelta(minutes=YEAR)


def minute(number: int) -> datetime:
    return T + timedelta(minutes=number)


def span(first: int, after: int) -> Span:
    return Span(minute(first), minute(after))


def row(first: int, after: int, cause: GapClass) -> GapRow:
    later = NOW + timedelta(days=1)
    return GapRow(minute(first), minute(after), after - first, cause, "", T, T, 1, later)


def look(first: int, after: int, *missing: tuple[int, int]) -> Look:
    return Look(first, after, np.array(missing, dtype=np.int64).reshape(-1, 2))


def test_an_old_gap_stays_as_it_was_when_new_minutes_are_missing_a_year_later() -> None:
    facts = Facts(answers=[(span(3, 5), Answer(name, "provider_hole", 1, NOW)) for name in ("a", "b")])
    new = look(YEAR - 4, YEAR - 1, (YEAR - 3, YEAR - 2))
    ledger = settle(GRID, YEAR - 1, Interval.M1, [row(3, 5, "no_trades")], [new], facts, NOW)
    assert [(each.start, each.end, each.cause) for each in ledger.rows] == [
        (minute(3), minute(5), "no_trades"),
        (minute(YEAR - 3), minute(YEAR - 1), "not_fetched"),
    ]
    assert ledger.asks == [Ask(span(YEAR - 3, YEAR - 1), None)]
    assert ledger.found == 1


def test_a_look_far_from_a_gap_leaves_it_and_one_at_it_ends_it() -> None:
    known = [row(100, 103, "no_data"), row(200, 201, "no_data")]
    far = settle(GRID, YEAR, Interval.M1, known, [look(101, 102), look(150, 190)], Facts(), NOW)
    assert [(each.start, each.end) for each in far.rows] == [
        (minute(100), minute(101)), (minute(102), minute(103)), (minute(200), minute(201)),
    ]  # fmt: skip
    whole = settle(GRID, YEAR, Interval.M1, known, [look(0, YEAR)], Facts(), NOW)
    assert whole.rows == []


def test_gaps_that_a_single_bar_parts_stay_two() -> None:
    ledger = settle(GRID, YEAR, Interval.M1, [], [look(0, 10, (2, 3), (5, 6))], Facts(), NOW)
    assert [(each.start, each.end) for each in ledger.rows] == [
        (minute(2), minute(4)), (minute(5), minute(7)),
    ]  # fmt: skip
    assert ledger.asks == [Ask(span(2, 4), None), Ask(span(5, 7), None)]


def test_who_gave_up_when_asked_by_name_is_not_in_the_way_of_the_next() -> None:
    gap = span(50, 51)
    facts = Facts(
        answers=[(gap, Answer("a", "no_data", 1, NOW))],
        failed=[(gap, "b")],
        able=lambda _: {"a", "b", "c"},
    )
    [ask] = settle(GRID, YEAR, Interval.M1, [], [look(50, 51, (50, 50))], facts, NOW).asks
    assert (ask.span, ask.provider) == (gap, "c")
    alone = Facts(answers=facts.answers, failed=facts.failed, able=lambda _: {"a", "b"})
    assert settle(GRID, YEAR, Interval.M1, [], [look(50, 51, (50, 50))], alone, NOW).asks == []


def test_while_a_provider_is_silent_what_nobody_else_offers_stays_what_it_was_and_is_not_asked_for() -> None:
    early = Facts(able=lambda _: None, is_early=True)
    known = [row(100, 102, "unfillable")]
    ledger = settle(GRID, YEAR, Interval.M1, known, [look(0, YEAR, (100, 101), (300, 300))], early, NOW)
    assert [(each.start, each.cause, each.tries) for each in ledger.rows] == [
        (minute(100), "unfillable", 1),
        (minute(300), "not_fetched", 0),
    ]
    assert ledger.asks == []
    assert {each.next_check_at for each in ledger.rows} == {NOW + timedelta(minutes=5)}
    offered = Facts(able=lambda _: {"a"}, is_early=True)
    [ask] = settle(GRID, YEAR, Interval.M1, [], [look(0, YEAR, (300, 300))], offered, NOW).asks
    assert ask.span == span(300, 301)
