"""Providers by name, made from the plain options of the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from pydantic import HttpUrl, ValidationError, validate_call

from cluster.errors import ConfigError
from cluster.providers import plans
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
    running_bar: bool = False,
) -> BarProvider:
    return SyntheticProvider(
        seed=seed,
        symbols=symbols,
        holes=holes,
        revisions=revisions,
        outages=outages,
        latency_s=latency_s,
        running_bar=running_bar,
    )


def _client(name: str, made_by: str, base_url: HttpUrl | None, **options: object) -> BarProvider:
    """The client of a service of the internet; its module is imported only when it is wanted."""
    if base_url is not None:
        options["base_url"] = str(base_url)
    client: BarProvider = getattr(import_module(f"cluster.providers.{name}"), made_by)(**options)
    return client


def _required_key(name: str, api_key: str) -> str:
    if not api_key:
        raise ConfigError(f"provider {name!r} needs a key: set {name.upper()}_API_KEY")
    return api_key


@validate_call
def _binance(*, base_url: HttpUrl | None = None, api_key: str = "") -> BarProvider:
    return _client("binance", "BinanceProvider", base_url, api_key=api_key)


@validate_call
def _yahoo(*, base_url: HttpUrl | None = None, api_key: str = "") -> BarProvider:
    return _client("yahoo", "YahooProvider", base_url, api_key=api_key)


@validate_call
def _alpha_vantage(
    *, base_url: HttpUrl | None = None, api_key: str = "", premium: bool = False
) -> BarProvider:
    key = _required_key("alpha_vantage", api_key)
    return _client("alpha_vantage", "AlphaVantageProvider", base_url, api_key=key, premium=premium)


@validate_call
def _finnhub(*, base_url: HttpUrl | None = None, api_key: str = "") -> BarProvider:
    return _client("finnhub", "FinnhubProvider", base_url, api_key=_required_key("finnhub", api_key))


_FACTORIES: dict[str, Callable[..., BarProvider]] = {
    "sample": _sample,
    "synthetic": _synthetic,
    "binance": _binance,
    "yahoo": _yahoo,
    "alpha_vantage": _alpha_vantage,
    "finnhub": _finnhub,
}


def names() -> list[str]:
    """The providers that can be created."""
    return sorted(_FACTORIES)


def create(name: str, options: Mapping[str, object]) -> BarProvider:
    """The provider `name`; raises `ConfigError` for an unknown name and for options that do not fit.

    The options of `plans.policy` are the gateway's and are passed over.
    """
    factory = _FACTORIES.get(name)
    if factory is None:
        raise ConfigError(f"provider {name!r} is not known; known are {', '.join(names())}")
    try:
        return factory(**{key: value for key, value in options.items() if key not in plans.OPTIONS})
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"options of provider {name!r}: {wrong}") from error
