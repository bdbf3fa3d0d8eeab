"""The health score and the percentiles, with values worked out by hand."""

from __future__ import annotations

import pytest

from cluster.providers.health import Health, HealthPolicy

POLICY = HealthPolicy(window_s=100.0, calls=10, latency_target_ms=1_000.0, freshness_target_s=50.0)


def health(*calls: tuple[float, float, bool]) -> Health:
    """A `Health` that has seen calls of (second, latency in ms, good)."""
    seen = Health(POLICY)
    for now_s, latency_ms, good in calls:
        seen.record(good=good, latency_ms=latency_ms, now_s=now_s)
    return seen


def test_without_calls_nothing_speaks_against_the_provider() -> None:
    idle = health()
    assert (idle.score(0.0), idle.error_rate(0.0), idle.latency_ms(0.5, 0.0)) == (1.0, 0.0, None)


@pytest.mark.parametrize(
    ("calls", "score"),
    [
        ([(0.0, 200.0, True)], 1.0),
        ([(0.0, 4_000.0, True)], 0.6 + 0.2 * 0.25 + 0.2),  # four times slower than the target
        (
            [(0.0, 200.0, True), (10.0, 200.0, False)],
            0.6 * 0.5 + 0.2 + 0.2 * 0.8,
        ),  # 10 of 50 s without success
        ([(0.0, 200.0, True), (60.0, 200.0, False)], 0.6 * 0.5 + 0.2),  # stale
        ([(0.0, 200.0, False)], 0.0),
    ],
)
def test_the_score_weighs_success_latency_and_freshness(
    calls: list[tuple[float, float, bool]], score: float
) -> None:
    assert health(*calls).score(60.0) == pytest.approx(score)


def test_percentiles_are_nearest_ranks_of_the_good_calls() -> None:
    seen = health(*((float(i), 100.0 * i, True) for i in range(1, 10)), (10.0, 9_999.0, False))
    assert seen.latency_ms(0.50, 10.0) == 500.0
    assert seen.latency_ms(0.95, 10.0) == 900.0
    assert seen.error_rate(10.0) == pytest.approx(0.1)


def test_old_calls_are_forgotten() -> None:
    seen = health((0.0, 100.0, False), (50.0, 100.0, True))
    assert seen.error_rate(99.9) == 0.5
    assert seen.error_rate(100.0) == 0.0
    assert seen.score(150.0) == 1.0


def test_only_the_last_calls_are_remembered() -> None:
    seen = health(*((0.0, 100.0, False) for _ in range(5)), *((1.0, 100.0, True) for _ in range(10)))
    assert seen.error_rate(1.0) == 0.0


def test_being_idle_after_a_success_does_not_make_it_stale() -> None:
    assert health((0.0, 100.0, True)).score(90.0) == 1.0
