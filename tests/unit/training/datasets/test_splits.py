from __future__ import annotations

import numpy as np
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st

from training.datasets.splits import Spans, chronological, forward_folds, purge


def spans(count: int, horizon: int) -> Spans:
    start = np.arange(count, dtype=np.int64)
    return Spans(start, start + horizon)


def test_parts_follow_each_other_with_horizon_and_embargo_between_them() -> None:
    split = chronological(spans(100, horizon=1), np.arange(100), 0.6, 0.2, embargo=2)

    # Row 57's label is known at 58; with 2 bars of embargo that is just before the cut at 60... and so on.
    assert (split.train[0], split.train[-1]) == (0, 56)
    assert (split.calibration[0], split.calibration[-1]) == (60, 76)
    assert (split.test[0], split.test[-1]) == (80, 99)


def test_all_symbols_are_cut_at_the_same_moment() -> None:
    one = np.arange(50, dtype=np.int64)
    two = Spans(np.concatenate([one, one]), np.concatenate([one, one]) + 1)

    split = chronological(two, np.arange(100), 0.6, 0.2, embargo=1)

    assert set(two.start[split.test]) == set(range(40, 50))
    assert len(split.test) == 20


def test_forward_folds_train_on_the_past_only() -> None:
    first, second = forward_folds(spans(90, horizon=1), np.arange(90), 2, embargo=1)

    assert (first.train[-1], first.test[0], first.test[-1]) == (27, 30, 59)
    assert (second.train[-1], second.test[0], second.test[-1]) == (57, 60, 89)


@given(
    labels=st.lists(st.integers(0, 12), min_size=30, max_size=120),
    embargo=st.integers(1, 10),
    block=st.tuples(st.floats(0, 1), st.integers(1, 20)),
)
def test_no_purged_label_comes_nearer_to_the_test_block_than_the_embargo(
    labels: list[int], embargo: int, block: tuple[float, int]
) -> None:
    """Labels of random length; the test block may lie anywhere, so both of its sides are checked."""
    start = np.arange(len(labels), dtype=np.int64)
    random_spans = Spans(start, start + np.array(labels))
    begin = int(block[0] * (len(labels) - 1))
    test = start[begin : begin + block[1]]

    kept = purge(random_spans, np.setdiff1d(start, test), test, embargo)

    test_times = {t for row in test for t in range(random_spans.start[row], random_spans.end[row] + 1)}
    for row in kept:
        near = range(random_spans.start[row] - embargo, random_spans.end[row] + embargo + 1)
        assert not test_times.intersection(near)


@given(
    count=st.integers(60, 300), horizon=st.integers(1, 5), embargo=st.integers(1, 5), folds=st.integers(1, 4)
)
def test_every_fold_ends_its_training_before_its_test_begins(
    count: int, horizon: int, embargo: int, folds: int
) -> None:
    line = spans(count, horizon)

    for fold in forward_folds(line, np.arange(count), folds, embargo):
        assert line.end[fold.train].max(initial=-1) + embargo < line.start[fold.test].min()


@pytest.mark.parametrize("shuffled", [False, True])
def test_pure_noise_has_no_skill_in_purged_folds_though_it_has_in_shuffled_ones(shuffled: bool) -> None:
    """The canary of purging: overlapping labels of pure noise and slow random features (h = 20, n = 6000)."""
    horizon, count, embargo = 20, 6000, 20
    random = np.random.default_rng(5)
    features = np.cumsum(random.standard_normal((count, 5)), axis=0)
    steps = np.concatenate([random.standard_normal(count), np.zeros(horizon)])
    label = np.convolve(steps, np.ones(horizon), mode="valid")[1 : count + 1]
    rows = np.arange(count)
    if shuffled:
        order = random.permutation(rows)
        pairs = [(order[k * 2000 :], order[: k * 2000]) for k in (1, 2)]
    else:
        pairs = [(f.test, f.train) for f in forward_folds(spans(count, horizon), rows, 2, embargo)]

    answers, truths = [], []
    for test, train in pairs:
        booster = xgboost.train(
            {"max_depth": 6, "eta": 0.3, "nthread": 1}, xgboost.DMatrix(features[train], label[train]), 40
        )
        answers.append(booster.predict(xgboost.DMatrix(features[test])))
        truths.append(label[test])
    skill = float(np.corrcoef(np.concatenate(answers), np.concatenate(truths))[0, 1])

    limit = 3 * np.sqrt(horizon / count)
    assert (abs(skill) > limit) if shuffled else (abs(skill) < limit)
