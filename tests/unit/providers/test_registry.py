"""Providers are made by name, and wrong options are named."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cluster.errors import ConfigError
from cluster.market.intervals import Interval
from cluster.providers import registry


@pytest.mark.parametrize("name", ["sample", "synthetic"])
def test_every_built_in_provider_is_made_without_options(name: str) -> None:
    provider = registry.create(name, {})
    assert provider.name == name
    assert provider.instruments()


def test_an_unknown_provider_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"provider 'bloomberg' is not known; known are alpha_vantage, .*, yahoo"
    ):
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


@pytest.mark.parametrize("name", ["alpha_vantage", "finnhub"])
def test_a_provider_that_needs_a_key_is_not_made_without_one(name: str) -> None:
    with pytest.raises(ConfigError, match=f"provider '{name}' needs a key: set {name.upper()}_API_KEY"):
        registry.create(name, {"base_url": "http://127.0.0.1:1"})


@pytest.mark.parametrize("name", ["binance", "yahoo", "alpha_vantage", "finnhub"])
def test_a_provider_of_the_internet_is_made_with_its_address_and_key(name: str) -> None:
    pytest.importorskip(f"cluster.providers.{name}")
    options = {"base_url": "http://127.0.0.1:1/x", "api_key": "k", "budget": [{"limit": 5, "seconds": 1}]}
    assert registry.create(name, options).name == name


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="options of provider 'binance': base_url: Input should be a valid URL"
    ):
        registry.create("binance", {"base_url": "nowhere", "api_key": "s3cr3t"})
