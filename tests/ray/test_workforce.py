"""Workers that come, change and go on a real Ray."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import ray

from cluster.backfill import actor
from cluster.backfill.actor import WorkerOptions
from cluster.backfill.scaling import Bounds
from cluster.backfill.workforce import Workforce
from cluster.clock import SystemClock
from cluster.storage.database import Database

pytestmark = [pytest.mark.ray, pytest.mark.postgres, pytest.mark.usefixtures("ray_cluster")]

_WITHIN_S = 240.0


def names(namespace: str) -> list[str]:
    found: list[dict[str, str]] = ray.util.list_named_actors(all_namespaces=True)
    return sorted(each["name"] for each in found if each["namespace"] == namespace)


async def test_workers_are_started_told_new_options_and_drained(database_url: str) -> None:
    namespace = f"test-{uuid.uuid4().hex}"
    options = WorkerOptions(database_url=database_url, providers=(), poll_s=0.1)
    database = await Database.open(database_url, max_size=2)

    async def adjusted(count: int, how: WorkerOptions) -> list[str]:
        bounds = Bounds(count, count, slots=8)
        await Workforce(database, how, bounds, SystemClock(), namespace=namespace).adjust()
        return names(namespace)

    try:
        async with asyncio.timeout(_WITHIN_S):
            assert await adjusted(2, options) == ["backfill:0", "backfill:1"]
            worker: Any = ray.get_actor("backfill:0", namespace=namespace)
            while (before := await worker.stats.remote()) is None:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.1)
            await worker.reload.remote(options)
            assert (await worker.stats.remote()).draining is False
            await adjusted(2, replace(options, batch=3))
            while (after := await worker.stats.remote()).draining:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.1)
            assert before.name == after.name == "backfill:0"
            assert await adjusted(1, options) == ["backfill:0"]
            assert await adjusted(0, options) == []
    finally:
        for handle in actor.running(range(2), namespace=namespace):
            with suppress(ValueError):
                ray.kill(handle, no_restart=True)
        await database.close()
