"""How many workers the queue needs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster import bootstrap, settings
from cluster.backfill.scaling import Bounds, Load, Workers, decide

BOUNDS = Bounds(least=1, most=4, slots=10, age_s=60, calm_s=300)
QUIET = Load(waiting=0, oldest_age_s=0, running=0)


def busy(waiting: int, running: int, age_s: float = 0) -> Load:
    return Load(waiting, age_s, running)


def test_a_long_queue_starts_as_many_workers_as_have_work_for_four_rounds() -> None:
    assert decide(Workers(1), busy(30, 10), BOUNDS, 0) == Workers(1)
    assert decide(Workers(1), busy(31, 10), BOUNDS, 0) == Workers(2)
    assert decide(Workers(1), busy(10_000, 10), BOUNDS, 0) == Workers(4)


def test_a_short_queue_that_gets_old_starts_one_more() -> None:
    assert decide(Workers(1), busy(1, 10, age_s=60), BOUNDS, 0) == Workers(1)
    assert decide(Workers(1), busy(1, 10, age_s=61), BOUNDS, 0) == Workers(2)


def test_workers_that_wait_for_a_limit_get_no_company() -> None:
    assert decide(Workers(1), busy(10_000, 4, age_s=9_999), BOUNDS, 0) == Workers(1)
    assert decide(Workers(1), busy(10_000, 5, age_s=9_999), BOUNDS, 0) == Workers(4)


def test_one_worker_goes_after_each_calm_time_and_a_new_load_begins_it_anew() -> None:
    workers = decide(Workers(3), QUIET, BOUNDS, 0)
    assert workers == Workers(3, calm_since_s=0)
    assert decide(workers, QUIET, BOUNDS, 299) == workers
    assert decide(workers, busy(100, 30), BOUNDS, 299) == Workers(4)
    workers = decide(workers, QUIET, BOUNDS, 300)
    assert workers == Workers(2, calm_since_s=300)
    assert decide(workers, QUIET, BOUNDS, 599) == workers
    workers = decide(workers, QUIET, BOUNDS, 600)
    assert workers == Workers(1, calm_since_s=600)
    assert decide(workers, QUIET, BOUNDS, 900) == Workers(1)


def test_missing_workers_are_started_and_too_many_go_at_once() -> None:
    assert decide(Workers(0), QUIET, BOUNDS, 0) == Workers(1)
    assert decide(Workers(7), QUIET, BOUNDS, 0) == Workers(4)


def test_a_system_may_have_no_worker_until_there_is_a_job() -> None:
    bounds = Bounds(least=0, most=4, slots=10)
    assert decide(Workers(0), QUIET, bounds, 0) == Workers(0)
    assert decide(Workers(0), busy(1, 0), bounds, 0) == Workers(1)


def test_there_are_not_more_workers_than_the_tiers_allow_jobs() -> None:
    assert Bounds.of(1, 8, 32, [8, 4, 4, 2]).most == 1
    assert Bounds.of(1, 8, 8, [8, 4, 4, 2]).most == 3
    assert Bounds.of(1, 8, 8, [8, 4, 4, None]).most == 8
    assert Bounds.of(2, 8, 32, [8, 4, 4, 2]).most == 2


def test_as_shipped_all_workers_that_may_run_have_as_many_jobs_as_they_can_run() -> None:
    shipped = settings.load(instance=False, environ={"DATABASE_URL": "postgresql://localhost/finsight"})
    options = bootstrap.duty_options(shipped)
    assert options.workers is not None
    assert options.worker_bounds.most == shipped.backfill_workers_max == 2
    assert sum(shipped.backfill_limits.values()) >= 2 * options.workers.concurrency


@given(
    st.integers(0, 9), st.none() | st.floats(0, 100), st.integers(0, 10_000), st.floats(0, 1e6),
    st.integers(0, 200), st.integers(0, 3), st.integers(0, 3),
)  # fmt: skip
def test_the_number_stays_within_its_bounds(
    count: int, calm: float | None, waiting: int, age_s: float, running: int, least: int, more: int
) -> None:
    bounds = Bounds(least, least + more, slots=10)
    after = decide(Workers(count, calm), Load(waiting, age_s, running), bounds, 1_000)
    assert bounds.least <= after.count <= bounds.most or after.count == count - 1
