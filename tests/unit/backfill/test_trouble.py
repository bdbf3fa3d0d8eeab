"""How long a worker leaves a database alone that is in trouble."""

from __future__ import annotations

import pytest

from cluster.backfill.trouble import Trouble


def failed(times: int) -> Trouble:
    """After so many failures, each after a pause."""
    trouble = Trouble(first_pause_s=1.0)
    for _ in range(times):
        trouble.failed()
        trouble.paused()
    return trouble


@pytest.mark.parametrize(("times", "longest_s"), [(1, 1.0), (2, 2.0), (4, 8.0), (5, 15.0), (2_000, 15.0)])
def test_the_pause_doubles_up_to_a_bound(times: int, longest_s: float) -> None:
    assert failed(times).pause_s(1.0) == longest_s
    assert failed(times).pause_s(0.0) == longest_s / 2


def test_jobs_that_fail_together_count_once() -> None:
    trouble = Trouble(first_pause_s=1.0)
    for _ in range(16):
        trouble.failed()
    assert (trouble.failures, trouble.is_new) == (1, True)
    trouble.paused()
    trouble.failed()
    assert (trouble.failures, trouble.is_new) == (2, True)


def test_a_job_that_is_stored_ends_it() -> None:
    trouble = failed(5)
    assert trouble.ended() == 5
    assert (trouble.failures, trouble.ended()) == (0, 0)
    trouble.failed()
    assert trouble.pause_s(1.0) == 1.0
