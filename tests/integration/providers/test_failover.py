"""Two real clients against two services on loopback: a key that is not accepted moves the traffic."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cluster import metrics
from cluster.clock import FakeClock
from cluster.errors import Unauthorized
from cluster.market.intervals import Interval
from cluster.providers import plans
from cluster.providers.alpha_vantage import AlphaVantageProvider
from cluster.providers.finnhub import FinnhubProvider
from cluster.providers.gateway import Gateway
from cluster.providers.protocol import BarProvider
from cluster.providers.router import Router, Want
from cluster.providers.stats import SetAside
from tests.services import alpha_vantage, finnhub
from tests.services.alpha_vantage import AlphaVantage
from tests.services.finnhub import Finnhub

OPEN = datetime(2024, 6, 3, 13, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
WANT = Want("MSFT", Interval.M15, OPEN, OPEN + HOUR, asset_type="equity")


def selected(provider: str) -> float:
    return metrics.REGISTRY.get_sample_value("provider_selected_total", {"provider": provider}) or 0.0


async def test_a_key_that_is_not_accepted_moves_the_traffic_until_it_is() -> None:
    clock = FakeClock(datetime(2024, 6, 10, 12, tzinfo=UTC))
    first, second = Finnhub(now=clock.now, key="the-right-one"), AlphaVantage(now=clock.now, key="k3y0ft3sts")
    first.fill("MSFT", "15", OPEN, OPEN + HOUR)
    second.fill("MSFT", "15min", "2024-06-03")
    began = clock.now()
    with finnhub.running(first) as first_url, alpha_vantage.running(second) as second_url:
        clients: list[FinnhubProvider | AlphaVantageProvider] = [
            FinnhubProvider(first_url, "a-wrong-one", clock.now),
            AlphaVantageProvider(second_url, "k3y0ft3sts", clock.now),
        ]
        gateways = {one.name: _gateway(one, clock) for one in clients}
        router = Router(gateways, clock, fresh_s=0.0)

        async def served_by() -> str:
            provider, table = await router.fetch(
                WANT, lambda source: source.fetch(WANT.symbol, WANT.interval, WANT.start, WANT.end)
            )
            assert table["source"].unique().to_pylist() == [provider]
            assert table.num_rows == 4
            clock.advance(2)
            return provider

        before = {name: selected(name) for name in gateways}
        assert [await served_by() for _ in range(3)] == ["alpha_vantage"] * 3
        assert {name: selected(name) - before[name] for name in gateways} == {
            "finnhub": 1,
            "alpha_vantage": 3,
        }
        stats = gateways["finnhub"].stats()
        assert (stats.state, stats.health_score, stats.outcomes) == ("OPEN", 0.0, {"unauthorized": 1})
        assert stats.set_aside == SetAside("unauthorized", began + timedelta(hours=1))
        assert "FINNHUB_API_KEY" in str(stats.last_error)
        assert "a-wrong-one" not in str(stats)
        with pytest.raises(Unauthorized) as refusal:  # who names the provider waits, and asks it nothing
            await gateways["finnhub"].fetch(WANT.symbol, WANT.interval, WANT.start, WANT.end)
        assert refusal.value.retry_at == began + timedelta(hours=1)
        assert len(first.asked) == 1

        first.key = "a-wrong-one"  # the key is accepted after all; that is tried after an hour
        clock.advance(3_600)
        assert await served_by() == "finnhub"
        stats = gateways["finnhub"].stats()
        assert (stats.state, stats.set_aside, stats.health_score) == ("CLOSED", None, 1.0)
        for one in clients:
            await one.close()


def _gateway(provider: BarProvider, clock: FakeClock) -> Gateway:
    async def sleep(seconds: float) -> None:
        clock.advance(seconds)

    return Gateway(provider, clock, plans.policy(provider.name, {}), sleep=sleep)
