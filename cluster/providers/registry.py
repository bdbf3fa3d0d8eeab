"""Providers by name, made from the plain options of the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pydantic import ValidationError, validate_call

from cluster.errors import ConfigError
from cluster.providers.protocol import BarProvider
from cluster.providers.sample import SampleProvider
from cluster.providers.synthetic import Hole, Outage, Revision, SyntheticProvider


@validate_call
def _sample() -> BarProvider:
    return SampleProvider()


@validate_call
def _synthetic(
    *,
    seed: int = 0,
    symbols: int = 10,
    holes: tuple[Hole, ...] = (),
    revisions: tuple[Revision, ...] = (),
    outages: tuple[Outage, ...] = (),
    latency_s: float = 0.0,
) -> BarProvider:
    return SyntheticProvider(
        seed=seed, symbols=symbols, holes=holes, revisions=revisions, outages=outages, latency_s=latency_s
    )


_FACTORIES: dict[str, Callable[..., BarProvider]] = {"sample": _sample, "synthetic": _synthetic}


def names() -> list[str]:
    """The providers that can be created."""
    return sorted(_FACTORIES)


def create(name: str, options: Mapping[str, object]) -> BarProvider:
    """The provider `name`; raises `ConfigError` for an unknown name and for options that do not fit."""
    factory = _FACTORIES.get(name)
    if factory is None:
        raise ConfigError(f"provider {name!r} is not known; known are {', '.join(names())}")
    try:
        return factory(**options)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"options of provider {name!r}: {wrong}") from error
