"""Ray shell around a collector: one detached actor a shard of the symbols, which works from its start on.

Its memory is worth nothing: killed at any moment, Ray starts it again and it reads from the database what is
still to be collected.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import asyncpg
from ray.actor import ActorHandle
from redis.asyncio import Redis

from cluster import detached, logs
from cluster.clock import SystemClock
from cluster.errors import StorageError
from cluster.ingest.cadence import Cadence
from cluster.ingest.claims import Claims, scope_of
from cluster.ingest.collector import Collector
from cluster.ingest.sweep import Sweeper
from cluster.providers import gateway_actor
from cluster.providers.lazy_gateway import LazyGateway
from cluster.providers.router import Rule
from cluster.redaction import redact
from cluster.storage import sweeps
from cluster.storage.database import RECONNECT_S, Database, opened_at_last

log = logs.get(__name__)

NAMESPACE = gateway_actor.NAMESPACE
_CONNECTIONS = 4  # batches of two providers are written while the next are read
_RENEWAL_S = 15.0  # who reloads does not wait longer than 20 s


@dataclass(frozen=True, slots=True)
class CollectorOptions:
    """What a collector needs to know."""

    database_url: str = field(repr=False)
    providers: tuple[str, ...]
    cadences: tuple[Cadence, ...]
    shards: int = 1
    source_rule: Rule = "announce"
    batch: int = 500
    """Most symbols in one question to a provider, and in one transaction."""
    claims_url: str | None = field(default=None, repr=False)
    """The Redis over which clusters on one database share the looks; `None`: this one does them all."""
    locally: bool = True
    """Whether to look while that Redis is away."""
    log_level: str = "info"


class CollectorActor:
    """Collects from its construction until `drain`; to be made by `start`."""

    def __init__(self, shard: int, options: CollectorOptions, namespace: str) -> None:
        self._shard, self._namespace = shard, namespace
        self._collector: Collector | None = None
        self._renewing = asyncio.Lock()
        self._begin(detached.kept(options))

    async def reload(self, options: CollectorOptions) -> None:
        """Go by `options` when the looks that have begun are over; those that are the same change nothing.

        A look that takes longer than 15 s is cut off; what it has not written the next one reads.
        """
        async with self._renewing:
            if options != self._options:
                await detached.keep(options)
                await self._ended(_RENEWAL_S)
                self._begin(options)

    async def drain(self, grace_s: float = 30.0) -> None:
        """Begin no look any more; returns when those that have begun are over, or cut off after `grace_s`."""
        async with self._renewing:
            await self._ended(grace_s)

    def _begin(self, options: CollectorOptions) -> None:
        logs.configure(options.log_level)
        self._options = options
        life = asyncio.get_running_loop().create_task(self._live(), name=actor_name(self._shard))
        self._life = detached.live(life)

    async def _ended(self, grace_s: float) -> None:
        if self._collector is not None:
            self._collector.end()
            await asyncio.wait([self._life], timeout=grace_s)
        self._life.cancel()
        await asyncio.wait([self._life])

    async def _live(self) -> None:
        claims = None
        database = await self._connected()
        try:
            claims = await self._prepared(database)
            self._collector = self._collector_on(database, claims)
            log.info("collector_started", shard=self._shard, pid=os.getpid())
            await self._collector.run()
        finally:
            self._collector = None
            if claims is not None:
                await claims.close()
            await database.close()

    async def _connected(self) -> Database:
        return await opened_at_last(lambda: Database.open(self._options.database_url, max_size=_CONNECTIONS))

    async def _prepared(self, database: Database) -> Claims | None:
        """The claims, if there are any; whatever the database says, it is asked until it answers."""
        options = self._options
        collected = [(each.tier, each.interval) for each in options.cadences]
        while True:
            try:
                await sweeps.forget_others(database, self._shard, options.shards, collected)
                if not options.claims_url:
                    return None
                scope = await scope_of(database, self._shard, options.shards)
                return Claims(Redis.from_url(options.claims_url), scope)
            except (StorageError, asyncpg.PostgresError) as error:
                log.warning("database_not_ready", collector=self._shard, reason=redact(str(error)))
                await asyncio.sleep(RECONNECT_S)

    def _collector_on(self, database: Database, claims: Claims | None) -> Collector:
        options, clock = self._options, SystemClock()
        sweeper = Sweeper(
            database,
            {name: LazyGateway(name, self._namespace) for name in options.providers},
            clock,
            options.source_rule,
            shard=self._shard,
            shards=options.shards,
            batch=options.batch,
        )
        record = partial(sweeps.record, database)
        return Collector(sweeper, record, options.cadences, clock, claims, locally=options.locally)


def actor_name(shard: int) -> str:
    """The name of a collector within the namespace."""
    return f"collector:{shard}"


def start(
    shard: int,
    options: CollectorOptions,
    *,
    env: Mapping[str, str] | None = None,
    namespace: str = NAMESPACE,
) -> ActorHandle[Any]:
    """Start the collector of a shard, or find the one that runs; needs a connection to Ray.

    `env` is the environment of the actor's process, such as `PROMETHEUS_MULTIPROC_DIR`.
    """
    arguments = (shard, options, namespace)
    return detached.start(CollectorActor, actor_name(shard), arguments, env=env, namespace=namespace)
