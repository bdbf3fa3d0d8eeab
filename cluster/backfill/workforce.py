"""Starts and drains backfill workers, as the queue needs them; the workers of this Ray cluster only."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ray
from ray.actor import ActorHandle

from cluster import logs
from cluster.backfill import actor
from cluster.backfill.actor import WorkerOptions
from cluster.backfill.scaling import Bounds, Load, Workers, decide
from cluster.clock import Clock
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.database import Database

log = logs.get(__name__)

PERIOD_S = 10.0
_GRACE_S = 30.0
_ANSWER_S = 10.0


class Workforce:
    """Looks at the queue now and then. Its memory is only since when fewer workers would be enough."""

    def __init__(
        self,
        database: Database,
        options: WorkerOptions,
        bounds: Bounds,
        clock: Clock,
        *,
        env: Mapping[str, str] | None = None,
        namespace: str = actor.NAMESPACE,
    ) -> None:
        self._queue, self._clock = BackfillQueue(database), clock
        self._options, self._bounds = options, bounds
        self._env, self._namespace = dict(env or {}), namespace
        self._workers = Workers(0)

    async def adjust(self) -> None:
        """Start what is missing, tell all others the options, drain the last ones when fewer are enough."""
        depth = (await self._queue.depth()).values()
        load = Load(
            sum(each.waiting for each in depth),
            max(each.oldest_age_s for each in depth),
            await self._queue.leased_count(),
        )
        there = await asyncio.to_thread(self._there)
        before = replace(self._workers, count=len(there))
        self._workers = decide(before, load, self._bounds, self._clock.monotonic_s())
        target = self._workers.count
        if target != len(there):
            log.info("workers_scaled", before=len(there), after=target, waiting=load.waiting)
        for index in range(target):
            if index not in there:
                await asyncio.to_thread(
                    actor.start, index, self._options, env=self._env, namespace=self._namespace
                )
        told = (worker.reload.remote(self._options) for index, worker in there.items() if index < target)
        await asyncio.wait_for(asyncio.gather(*told), _ANSWER_S)
        await asyncio.gather(*(self._retire(there[index]) for index in there if index >= target))

    def _there(self) -> dict[int, ActorHandle[Any]]:
        """The workers of this cluster by their numbers."""
        prefix = actor.actor_name(0).removesuffix("0")
        names = [
            each["name"]
            for each in ray.util.list_named_actors(all_namespaces=True)
            if each["namespace"] == self._namespace and each["name"].startswith(prefix)
        ]
        numbers = sorted(int(name.removeprefix(prefix)) for name in names)
        found = {number: actor.running([number], namespace=self._namespace) for number in numbers}
        return {number: handles[0] for number, handles in found.items() if handles}

    async def _retire(self, worker: ActorHandle[Any]) -> None:
        await actor.drain([worker], _GRACE_S, _GRACE_S + _ANSWER_S)
        await asyncio.to_thread(ray.kill, worker, no_restart=True)
