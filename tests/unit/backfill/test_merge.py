"""How ranges join: the rules of enqueueing without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from cluster.storage.backfill_merge import Merge, Span, cut, merge, subtract

T = datetime(2025, 10, 8, 14, tzinfo=UTC)
LONG = timedelta(days=1)


def span(first: int, after: int) -> Span:
    return Span(T + timedelta(minutes=first), T + timedelta(minutes=after))


def _minute(moment: datetime) -> int:
    return int((moment - T).total_seconds() // 60)


def minutes(spans: list[Span]) -> set[int]:
    """The minutes after `T` in the ranges; fails when two of them overlap."""
    listed = [number for one in spans for number in range(_minute(one.start), _minute(one.end))]
    assert len(listed) == len(set(listed))
    return set(listed)


def test_what_is_covered_is_taken_out() -> None:
    covers = [span(12, 20), span(0, 3), span(2, 5), span(30, 40)]
    assert subtract(span(0, 25), covers) == [span(5, 12), span(20, 25)]
    assert subtract(span(0, 25), [span(0, 25)]) == []
    assert subtract(span(0, 25), [span(25, 30)]) == [span(0, 25)]


def test_a_range_is_cut_into_pieces_of_the_longest_length() -> None:
    assert cut(span(0, 25), timedelta(minutes=10)) == [span(0, 10), span(10, 20), span(20, 25)]
    last = Span(datetime.max.replace(tzinfo=UTC) - timedelta(hours=1), datetime.max.replace(tzinfo=UTC))
    assert cut(last, LONG) == [last]


def test_ready_jobs_that_the_new_range_joins_become_the_oldest_of_them() -> None:
    assert merge(span(5, 25), {7: span(0, 10), 3: span(20, 30)}, [], LONG) == [
        Merge(span(0, 30), (3, 7), grew=True)
    ]


def test_a_covered_range_changes_nothing() -> None:
    assert merge(span(2, 8), {7: span(0, 10)}, [], LONG) == [Merge(span(0, 10), (7,), grew=False)]


def test_only_what_a_leased_job_does_not_cover_becomes_work() -> None:
    assert merge(span(0, 30), {}, [span(10, 20)], LONG) == [
        Merge(span(0, 10), (), grew=True),
        Merge(span(20, 30), (), grew=True),
    ]
    assert merge(span(12, 18), {}, [span(10, 20)], LONG) == []


def test_jobs_that_would_become_too_long_stay_neighbours() -> None:
    assert merge(span(10, 15), {7: span(0, 10)}, [], timedelta(minutes=12)) == [
        Merge(span(0, 10), (7,), grew=False),
        Merge(span(10, 15), (), grew=True),
    ]


ranges = st.tuples(st.integers(0, 200), st.integers(1, 60)).map(lambda pair: span(pair[0], sum(pair)))


@given(st.lists(st.tuples(ranges, st.booleans()), max_size=25), st.integers(5, 80))
def test_any_sequence_of_requests_is_covered_exactly_once(
    requests: list[tuple[Span, bool]], longest_minutes: int
) -> None:
    """A model of the queue: after each request a job may be claimed, and then it never changes again."""
    longest, ready, leased = timedelta(minutes=longest_minutes), dict[int, Span](), list[Span]()
    wanted: set[int] = set()
    for number, (request, claim) in enumerate(requests):
        touching = {
            job: one for job, one in ready.items() if one.start <= request.end and one.end >= request.start
        }
        for place, one in enumerate(merge(request, touching, leased, longest)):
            for job in one.jobs:
                del ready[job]
            ready[one.jobs[0] if one.jobs else 1_000 * (number + 1) + place] = one.span
        wanted |= minutes([request])
        assert minutes([*ready.values(), *leased]) == wanted
        assert all(one.end - one.start <= longest for one in ready.values())
        if claim and ready:
            leased.append(ready.pop(min(ready)))
