"""The gateway as a Ray actor: the same answers and errors from another process, and healing after a kill."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
from redis.asyncio import Redis

from cluster import metrics
from cluster.errors import ConfigError, InvalidSymbol, NotRunning, ProviderDown, RateLimited
from cluster.market.intervals import Interval
from cluster.providers import gateway_actor
from cluster.providers.budget import Window
from cluster.providers.gateway import GatewayPolicy
from cluster.providers.gateway_actor import RemoteGateway, actor_name, connect
from cluster.providers.synthetic import SyntheticProvider

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

PATIENT = GatewayPolicy(timeout_s=240.0)
"""So that a test on a busy machine is slow, and nothing else; each test also ends by pytest's own timeout."""

START, END = datetime(2024, 3, 4, tzinfo=UTC), datetime(2024, 3, 5, tzinfo=UTC)


@pytest.fixture
def namespace() -> Iterator[str]:
    """A namespace of its own, so that no two tests meet each other's actors."""
    name = f"test-{uuid.uuid4().hex}"
    yield name
    with contextlib.suppress(ValueError):
        ray.kill(ray.get_actor(actor_name("synthetic"), namespace=name), no_restart=True)


def start(
    namespace: str,
    options: Mapping[str, object] | None = None,
    policy: GatewayPolicy = PATIENT,
    env: Mapping[str, str] | None = None,
) -> RemoteGateway:
    """A synthetic gateway and a handle that waits as long as it does."""
    gateway_actor.start("synthetic", options or {}, policy, env=env, namespace=namespace)
    return connect("synthetic", namespace=namespace, timeout_s=policy.timeout_s)


def process_id(namespace: str) -> int:
    """The operating system's id of the process of the synthetic gateway."""
    handle: Any = ray.get_actor(actor_name("synthetic"), namespace=namespace)
    pid: int = ray.get(handle.__ray_call__.remote(lambda _: os.getpid()), timeout=240)
    return pid


async def test_bars_come_out_of_the_actor_as_they_are(namespace: str) -> None:
    gateway = start(namespace, {"seed": 7})
    table = await gateway.fetch("SYN0001", Interval.M1, START, END)
    assert table.equals(await SyntheticProvider(seed=7).bars("SYN0001", Interval.M1, START, END))
    stats = await gateway.stats()
    assert (stats.provider, stats.state, stats.outcomes) == ("synthetic", "CLOSED", {"bars": 1})


async def test_a_second_start_finds_the_gateway_that_runs(namespace: str) -> None:
    start(namespace, {"seed": 7})
    await start(namespace, {"seed": 8}).fetch("SYN0001", Interval.D1, START, END)
    assert (await connect("synthetic", namespace=namespace).stats()).outcomes == {"bars": 1}


async def test_errors_keep_their_type_and_facts(namespace: str) -> None:
    policy = replace(PATIENT, budget=(Window(limit=1, seconds=3_600),))
    gateway = start(namespace, policy=policy)
    with pytest.raises(InvalidSymbol, match="asked for 'AAPL'") as refusal:
        await gateway.fetch("AAPL", Interval.M1, START, END)
    assert type(refusal.value) is InvalidSymbol
    with pytest.raises(RateLimited) as limit:
        await gateway.fetch("SYN0001", Interval.M1, START, END)
    assert limit.value.retry_at > datetime.now(UTC)


async def test_a_killed_gateway_answers_again(namespace: str) -> None:
    gateway = start(namespace, {"seed": 7})
    before = await gateway.fetch("SYN0001", Interval.H1, START, END)
    killed = process_id(namespace)
    os.kill(killed, signal.SIGKILL)
    assert (await gateway.fetch("SYN0001", Interval.H1, START, END)).equals(before)
    assert process_id(namespace) != killed


async def test_the_calls_of_the_actor_are_on_the_page_of_its_node(
    namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    gateway = start(namespace, env=folder)
    await gateway.fetch("SYN0001", Interval.D1, START, END)
    monkeypatch.setenv(*folder.popitem())
    assert b'provider_selected_total{provider="synthetic"} 1.0' in metrics.render_page([])


async def test_an_actor_that_does_not_answer_in_time_is_a_provider_that_is_down(namespace: str) -> None:
    start(namespace, {"latency_s": 60.0})
    gateway = connect("synthetic", namespace=namespace, timeout_s=0.2)
    with pytest.raises(ProviderDown, match=r"the gateway of provider synthetic did not answer within 0\.2 s"):
        await gateway.fetch("SYN0001", Interval.M1, START, END)


async def test_an_actor_that_was_ended_is_a_provider_that_is_down(namespace: str) -> None:
    gateway = start(namespace)
    await gateway.stats()
    ray.kill(ray.get_actor(actor_name("synthetic"), namespace=namespace), no_restart=True)
    with pytest.raises(ProviderDown, match="the gateway of provider synthetic is out of reach"):
        await gateway.fetch("SYN0001", Interval.M1, START, END)


async def test_a_million_bars_travel_in_one_call(namespace: str) -> None:
    gateway = start(namespace)
    end = datetime(2026, 3, 5, tzinfo=UTC)
    table = await gateway.fetch("SYN0001", Interval.M1, START, end)
    assert table.num_rows == 731 * 1_440  # more than one page


async def test_other_processes_can_use_the_gateway(namespace: str) -> None:
    gateway = start(namespace)

    @ray.remote(num_cpus=0)
    def rows(gateway: RemoteGateway) -> int:
        import asyncio

        return len(asyncio.run(gateway.fetch("SYN0001", Interval.M1, START, END)))

    assert ray.get(rows.remote(gateway), timeout=240) == 1_440


def test_a_gateway_that_was_never_started_is_not_running(namespace: str) -> None:
    with pytest.raises(NotRunning, match="finsight up"):
        connect("synthetic", namespace=namespace)


def test_wrong_options_are_refused_before_an_actor_is_made(namespace: str) -> None:
    with pytest.raises(ConfigError, match="sed"):
        start(namespace, {"sed": 1})
    with pytest.raises(NotRunning):
        connect("synthetic", namespace=namespace)


@pytest.mark.valkey
async def test_two_clusters_share_one_budget_exactly_and_a_kill_does_not_renew_it(
    namespace: str, valkey_url: str
) -> None:
    budget = {"budget": [{"limit": 7, "seconds": 3_600}]}
    clusters = [namespace, f"{namespace}-other"]

    def gateway(cluster: str) -> RemoteGateway:
        policy = replace(PATIENT, budget=(Window(limit=7, seconds=3_600),))
        gateway_actor.start("synthetic", budget, policy, shared_budget_url=valkey_url, namespace=cluster)
        return connect("synthetic", namespace=cluster, timeout_s=PATIENT.timeout_s)

    async def calls(gateways: list[RemoteGateway]) -> int:
        asked = (one.fetch("SYN0001", Interval.D1, START, END) for one in gateways for _ in range(6))
        ends = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(end) for end in ends} <= {pa.Table, RateLimited}
        return sum(isinstance(end, pa.Table) for end in ends)

    try:
        assert await calls([gateway(cluster) for cluster in clusters]) == 7
        ray.kill(ray.get_actor(actor_name("synthetic"), namespace=clusters[1]), no_restart=True)
        again = gateway(clusters[1])
        assert await calls([again]) == 0
        assert [window.left for window in (await again.stats()).budget_left] == [0]
    finally:
        ray.kill(ray.get_actor(actor_name("synthetic"), namespace=clusters[1]), no_restart=True)
        async with Redis.from_url(valkey_url) as client:
            await client.delete(*await client.keys("finsight:budget:{synthetic}:*"))
