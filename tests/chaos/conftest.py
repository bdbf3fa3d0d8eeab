"""One small Ray cluster for the tests that kill processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """A cluster of this machine; one that the test run has already is used and left running."""
    mine = not ray.is_initialized()
    if mine:
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    if mine:
        ray.shutdown()
