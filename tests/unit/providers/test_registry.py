"""Providers are made by name, and wrong options are named."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cluster.errors import ConfigError
from cluster.market.intervals import Interval
from cluster.providers import registry


@pytest.mark.parametrize("name", registry.names())
def test_every_known_provider_is_made_without_options(name: str) -> None:
    provider = registry.create(name, {})
    assert provider.name == name
    assert provider.instruments()


def test_an_unknown_provider_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="provider 'bloomberg' is not known; known are sample, synthetic"):
        registry.create("bloomberg", {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sed": 1}, "sed: Unexpected keyword argument"),
        ({"seed": "seven"}, "seed: Input should be a valid integer"),
        ({"holes": [{"symbol": "SYN0001"}]}, r"holes\.0\.start: Field required"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"options of provider 'synthetic': .*{message}"):
        registry.create("synthetic", options)


async def test_faults_can_be_given_as_plain_data() -> None:
    hole = {"symbol": "SYN0001", "start": "2024-03-04T00:00:00Z", "end": "2024-03-05T00:00:00Z"}
    provider = registry.create("synthetic", {"seed": 7, "holes": [hole]})
    start, end = datetime(2024, 3, 3, tzinfo=UTC), datetime(2024, 3, 6, tzinfo=UTC)
    table = await provider.bars("SYN0001", Interval.D1, start, end)
    assert [moment.day for moment in table["ts"].to_pylist()] == [3, 5]
