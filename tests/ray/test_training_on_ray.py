from __future__ import annotations

import pytest

from tests.unit.training import samples
from training import train
from training.parallel import on_ray

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def test_training_side_by_side_gives_the_same_bytes_as_one_after_the_other() -> None:
    dataset = samples.dataset()

    assert (
        train.fit(dataset, samples.TINY, map_tasks=on_ray).manifest
        == train.fit(dataset, samples.TINY).manifest
    )


def test_the_error_of_a_task_reaches_the_caller() -> None:
    transformer = samples.TINY.transformer.model_copy(update={"patch": 5})

    with pytest.raises(ValueError, match="multiple of patch 5"):
        train.fit(
            samples.dataset(), samples.TINY.model_copy(update={"transformer": transformer}), map_tasks=on_ray
        )
