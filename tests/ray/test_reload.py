"""Other settings for actors that run: they go by them from the next call on, and drop nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
from ray.experimental.internal_kv import _internal_kv_put

from cluster import bootstrap, detached
from cluster.bootstrap import Reloaded
from cluster.errors import NotRunning, RateLimited
from cluster.market.intervals import Interval
from cluster.providers.gateway_actor import RemoteGateway, connect
from cluster.providers.synthetic import SyntheticProvider
from cluster.settings import Settings, load

pytestmark = [pytest.mark.ray, pytest.mark.postgres, pytest.mark.usefixtures("ray_cluster")]

START, END = datetime(2024, 3, 4, tzinfo=UTC), datetime(2024, 3, 5, tzinfo=UTC)
SLOW = {"seed": 7, "latency_s": 3.0, "budget": [{"limit": 100, "seconds": 3_600}]}
"""Answers late, so that a call is under way when something happens."""


@pytest.fixture
def namespace() -> Iterator[str]:
    """A namespace of its own, whose actors end with the test."""
    name = f"test-{uuid.uuid4().hex}"
    yield name
    for each in ray.util.list_named_actors(all_namespaces=True):
        if each["namespace"] == name:
            with contextlib.suppress(ValueError):
                ray.kill(ray.get_actor(each["name"], namespace=name), no_restart=True)


def settings(database_url: str, home: Path, **values: Any) -> Settings:
    """Settings of a cluster that has gateways and whatever `values` ask for."""
    given = {"backfill_workers": 0, "local_sweep_enabled": False, "provider_timeout_s": 120.0, **values}
    return load(instance=False, environ={}, home=home, database_url=database_url, **given)


async def told(wanted: Settings, namespace: str) -> Reloaded:
    """Reload as a replica does, in a thread."""
    return await asyncio.to_thread(bootstrap.reload, wanted, {}, timeout_s=120, namespace=namespace)


def gateway(namespace: str, provider: str = "synthetic") -> RemoteGateway:
    return connect(provider, namespace=namespace, timeout_s=120)


async def under_way(gateway: RemoteGateway) -> asyncio.Task[pa.Table]:
    """A call that the slow provider has begun to answer."""
    call = asyncio.create_task(gateway.fetch("SYN0001", Interval.H1, START, END))
    while (await gateway.stats()).budget_left[0].left != 99:
        pass
    return call


def kill(name: str, namespace: str) -> None:
    """SIGKILL to the process of an actor."""
    handle: Any = ray.get_actor(name, namespace=namespace)
    os.kill(ray.get(handle.__ray_call__.remote(lambda _: os.getpid()), timeout=120), signal.SIGKILL)


def goes_by(name: str, namespace: str) -> Any:
    """The options of an actor, as soon as it lives again."""
    handle: Any = ray.get_actor(name, namespace=namespace)
    return ray.get(handle.__ray_call__.remote(lambda actor: actor._options), timeout=120)


async def bars_of(seed: int) -> pa.Table:
    return await SyntheticProvider(seed=seed).bars("SYN0001", Interval.H1, START, END)


async def test_a_gateway_goes_by_new_options_and_ends_what_it_has_begun(
    namespace: str, database_url: str, tmp_path: Path
) -> None:
    first = settings(database_url, tmp_path, providers={"synthetic": SLOW})
    bootstrap.start_actors(first, {}, namespace=namespace)
    begun = await under_way(gateway(namespace))

    options = {"seed": 8, "budget": [{"limit": 2, "seconds": 3_600}]}
    done = await told(settings(database_url, tmp_path, providers={"synthetic": options}), namespace)

    assert (done.failed, done.stopped) == ({}, [])
    assert "gateway:synthetic" in done.reloaded
    assert not begun.done()
    assert (await begun).equals(await bars_of(7))
    fresh = gateway(namespace)
    assert (await fresh.fetch("SYN0001", Interval.H1, START, END)).equals(await bars_of(8))
    with pytest.raises(RateLimited):  # the first call counts in the budget of two
        await fresh.fetch("SYN0001", Interval.H1, START, END)


async def test_a_new_provider_gets_a_gateway_and_a_removed_one_ends_after_its_calls(
    namespace: str, database_url: str, tmp_path: Path
) -> None:
    first = settings(database_url, tmp_path, providers={"synthetic": SLOW})
    bootstrap.start_actors(first, {}, namespace=namespace)
    begun = await under_way(gateway(namespace))

    done = await told(settings(database_url, tmp_path, providers={"sample": {}}), namespace)

    assert (done.started, done.stopped) == (["gateway:sample"], ["gateway:synthetic"])
    assert (await begun).equals(await bars_of(7))
    assert (await gateway(namespace, "sample").stats()).state == "CLOSED"
    with pytest.raises(NotRunning):
        gateway(namespace)


async def test_the_same_settings_change_nothing_and_a_crashed_actor_begins_with_the_last_it_was_told(
    namespace: str, database_url: str, tmp_path: Path
) -> None:
    first = settings(database_url, tmp_path, providers={"synthetic": {"seed": 7}}, backfill_workers=1)
    changed = {"providers": {"synthetic": {"seed": 8}}, "backfill_batch_size": first.backfill_batch_size + 1}
    second = settings(database_url, tmp_path, backfill_workers=1, **changed)
    names = bootstrap.start_actors(first, {}, namespace=namespace)
    assert set(names) == {"gateway:synthetic", "backfill:0", "duties"}
    assert set((await told(second, namespace)).reloaded) == set(names)
    found = gateway(namespace)
    await found.fetch("SYN0001", Interval.H1, START, END)

    assert set((await told(second, namespace)).reloaded) == set(names)
    assert (await found.stats()).outcomes == {"bars": 1}

    for name in names:
        kill(name, namespace)
    assert (await found.fetch("SYN0001", Interval.H1, START, END)).equals(await bars_of(8))
    assert goes_by("backfill:0", namespace) == bootstrap.worker_options(second)
    assert goes_by("duties", namespace) == bootstrap.duty_options(second)


async def test_a_crashed_actor_that_cannot_read_what_it_was_told_begins_with_its_first_options(
    namespace: str, database_url: str, tmp_path: Path
) -> None:
    first = settings(database_url, tmp_path, providers={"synthetic": {"seed": 7}})
    bootstrap.start_actors(first, {}, namespace=namespace)
    await told(settings(database_url, tmp_path, providers={"synthetic": {"seed": 8}}), namespace)
    handle: Any = ray.get_actor("gateway:synthetic", namespace=namespace)
    put = handle.__ray_call__.remote(
        lambda _: _internal_kv_put(detached._key(), b"unreadable", namespace=detached._TOLD)
    )
    ray.get(put, timeout=120)

    kill("gateway:synthetic", namespace)

    assert (await gateway(namespace).fetch("SYN0001", Interval.H1, START, END)).equals(await bars_of(7))


async def test_an_actor_that_is_made_anew_goes_by_its_own_arguments(
    namespace: str, database_url: str, tmp_path: Path
) -> None:
    first = settings(database_url, tmp_path, providers={"synthetic": {"seed": 7}})
    bootstrap.start_actors(first, {}, namespace=namespace)
    await told(settings(database_url, tmp_path, providers={"synthetic": {"seed": 8}}), namespace)
    ray.kill(ray.get_actor("gateway:synthetic", namespace=namespace), no_restart=True)

    bootstrap.start_actors(first, {}, namespace=namespace)

    assert (await gateway(namespace).fetch("SYN0001", Interval.H1, START, END)).equals(await bars_of(7))
