"""The time of these tests."""

from __future__ import annotations

import pytest

from cluster.clock import FakeClock
from tests.integration.providers.keyed.service_calls import NOW


@pytest.fixture
def clock() -> FakeClock:
    """Stands still, on a Monday before the open."""
    return FakeClock(NOW)
