"""Training tasks side by side on Ray: one CPU a task, the dataset in the object store once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import ray

from training.datasets.assemble import Dataset
from training.models.members import FittedMember, MemberTask


def on_ray(
    function: Callable[[Dataset, MemberTask], FittedMember], dataset: Dataset, tasks: Sequence[MemberTask]
) -> Iterator[tuple[int, FittedMember]]:
    """`training.train.MapTasks` on the connected Ray cluster; a lost worker's task runs again.

    A task's own error is raised as it is, when its turn comes; the rest is cancelled.
    """
    remote = ray.remote(num_cpus=1, max_retries=2)(function)
    shared = ray.put(dataset)
    pending = {remote.remote(shared, task): number for number, task in enumerate(tasks)}
    try:
        while pending:
            [ready], _ = ray.wait(list(pending), num_returns=1)
            yield pending.pop(ready), ray.get(ready)
    finally:
        for reference in pending:
            ray.cancel(reference)
