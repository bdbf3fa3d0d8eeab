"""Ray shell around the duties: one detached actor, which starts to work when it is made.

Its memory is worth nothing: killed at any moment, Ray starts it again and every duty comes back by itself.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import ray
from ray.actor import ActorHandle

from cluster import detached, logs
from cluster.backfill.actor import WorkerOptions
from cluster.backfill.gap_offers import offers
from cluster.backfill.gap_scan import WatchRules
from cluster.backfill.gap_watch import GapWatch
from cluster.backfill.scaling import Bounds
from cluster.backfill.workforce import PERIOD_S as WORKFORCE_PERIOD_S
from cluster.backfill.workforce import Workforce
from cluster.clock import SystemClock
from cluster.duties import corporate_actions
from cluster.duties.duty import Duty
from cluster.duties.loop import Duties, DutyStats
from cluster.providers import gateway_actor
from cluster.providers.lazy_gateway import LazyGateway
from cluster.storage import backfill_history, upkeep
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.database import Database, opened_at_last
from cluster.storage.upkeep import Keeping

log = logs.get(__name__)

NAMESPACE = gateway_actor.NAMESPACE
NAME = "duties"
_STATEMENT_TIMEOUT_S = 600.0  # a whole month of a thousand symbols may be looked at in one statement
_FROZEN_PERIOD_S = 60.0


@dataclass(frozen=True, slots=True)
class DutyOptions:
    """What the duties need to know; every owner of a duty adds the fields of it."""

    database_url: str = field(repr=False)
    log_level: str = "info"
    providers: tuple[str, ...] = ()
    """Who may be asked for splits and dividends, in this order."""
    workers: WorkerOptions | None = None
    """What backfill workers are started with; `None`: their number is left as it is."""
    worker_bounds: Bounds = field(default=Bounds(least=1, most=1, slots=1))
    keeping: Keeping = field(default=Keeping())
    """How long bars are kept, and in which form."""
    history_s: float = 30 * 86_400.0
    """How long finished backfill jobs are kept."""
    watch: WatchRules = field(default=WatchRules({}))
    """Which bars should be there."""
    watch_s: float = 60.0


class DutiesActor:
    """Does the duties from its construction on; to be made by `start`."""

    def __init__(self, options: DutyOptions, namespace: str) -> None:
        self._options, self._namespace = detached.kept(options), namespace
        logs.configure(self._options.log_level)
        self._database: Database | None = None
        self._duties: Duties | None = None
        self._life = self._begun()

    async def stats(self) -> list[DutyStats]:
        """What was done since the actor (re)started; empty while it waits for the database."""
        return self._duties.stats() if self._duties else []

    async def reload(self, options: DutyOptions) -> None:
        """Go by `options` from the next round of every duty on."""
        if options == self._options:
            return
        moved = options.database_url != self._options.database_url
        await detached.keep(options)
        self._options = options
        logs.configure(options.log_level)
        if moved:
            self._life.cancel()
            await asyncio.wait([self._life])
            self._life = self._begun()
        elif self._duties and self._database:
            self._duties.renew(self._composed(self._database))

    def _begun(self) -> asyncio.Task[None]:
        return detached.live(asyncio.get_running_loop().create_task(self._live(), name=NAME))

    async def _live(self) -> None:
        self._database = database = await self._connected()
        try:
            self._duties = Duties(self._composed(database), SystemClock())
            log.info("duties_started", pid=os.getpid(), duties=[each.name for each in self._duties.stats()])
            await self._duties.run()
        finally:
            self._duties = self._database = None
            await database.close()

    def _composed(self, database: Database) -> list[Duty]:
        """Every duty of this system, by its owner."""
        gateways = {name: LazyGateway(name, self._namespace) for name in self._options.providers}
        actions = partial(corporate_actions.refresh, database, gateways, SystemClock())
        keep = partial(upkeep.keep, database, SystemClock(), self._options.keeping)
        made = [
            Duty("corporate_actions", corporate_actions.PERIOD_S, actions),
            Duty("rollups", upkeep.ROLLUPS_PERIOD_S, partial(upkeep.roll, database, SystemClock())),
            Duty("storage", upkeep.STORAGE_PERIOD_S, keep),
            Duty("frozen_sessions", _FROZEN_PERIOD_S, database.end_frozen),
        ]
        return [*made, self._gap_watch(database), *self._of_backfill(database)]

    def _gap_watch(self, database: Database) -> Duty:
        gateways = {name: LazyGateway(name, self._namespace) for name in self._options.providers}
        watch = GapWatch(
            database, BackfillQueue(database), SystemClock(), self._options.watch, partial(offers, gateways)
        )
        return Duty("gaps", self._options.watch_s, watch.run)

    def _of_backfill(self, database: Database) -> list[Duty]:
        options = self._options
        prune = partial(backfill_history.prune, database, options.history_s)
        if options.workers is None:
            return [Duty("backfill_history", backfill_history.PERIOD_S, prune)]
        # New workers get the environment of this process, as those that were started with it.
        env = ray.get_runtime_context().runtime_env.get("env_vars")
        workforce = Workforce(
            database,
            options.workers,
            options.worker_bounds,
            SystemClock(),
            env=env,
            namespace=self._namespace,
        )
        return [
            Duty("backfill_history", backfill_history.PERIOD_S, prune),
            Duty("backfill_workers", WORKFORCE_PERIOD_S, workforce.adjust),
        ]

    async def _connected(self) -> Database:
        # Duties of two clusters take turns by locks of their sessions: who froze must not keep them.
        return await opened_at_last(
            lambda: Database.open(
                self._options.database_url,
                statement_timeout_s=_STATEMENT_TIMEOUT_S,
                idle_session_timeout_s=_STATEMENT_TIMEOUT_S,
                frozen_after_s=_STATEMENT_TIMEOUT_S,
            )
        )


def start(
    options: DutyOptions, *, env: Mapping[str, str] | None = None, namespace: str = NAMESPACE
) -> ActorHandle[Any]:
    """Start the duties, or find those that run; needs a connection to Ray.

    `env` is the environment of the actor's process, such as `PROMETHEUS_MULTIPROC_DIR`.
    """
    return detached.start(DutiesActor, NAME, (options, namespace), env=env, namespace=namespace)
