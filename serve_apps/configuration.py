"""The settings of a replica while it runs: reload them for the whole cluster, and follow others' reloads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cluster import logs
from cluster.errors import ConfigError
from cluster.local.instance import write_private
from cluster.providers import check
from cluster.redaction import redact
from cluster.settings import NEEDS_RESTART, Settings, changed, digest, revealed, running_instance
from cluster.storage import audit, config_generations
from cluster.storage.audit import Author
from serve_apps.services import Services

if TYPE_CHECKING:
    from cluster.bootstrap import Reloaded

_log = logs.get(__name__)

_LOOKS_FOR_THE_SAME = 30
"""A file reaches other nodes later than the news of it: so often a replica reads again before it gives up."""
_LOOKS_LATER_S = 60.0
"""So often it does after that; until it has read the same it tells the actors nothing."""
_ENVIRONMENT = "PROMETHEUS_MULTIPROC_DIR"


@dataclass(frozen=True)
class Outcome:
    """What a reload did."""

    generation: int
    digest: str
    changed: list[str]
    """Settings that have another value now."""
    restart_needed: list[str]
    """Settings that differ in the files, and count from the next start on."""
    actors: Reloaded | None = None
    """`None` outside of Ray, where there are none."""


class Configuration:
    """Keeps `services.settings` up to date. `reread` reads the files anew; it may block."""

    def __init__(self, services: Services, reread: Callable[[], Settings]) -> None:
        self._services = services
        self._reread = reread
        self._one_at_a_time = asyncio.Lock()
        self._generation = 0
        self._looks_left = 0
        self._looked_s = services.clock.monotonic_s()
        self._untold = True
        """Whether some actor may not yet go by what was reloaded last."""

    async def reload(self, author: Author) -> Outcome:
        """Read everything anew and have the whole cluster go by it.

        `ConfigError` when something is wrong; then nothing has changed anywhere.
        """
        async with self._one_at_a_time:
            before = self._services.settings
            after, restart_needed = _running(before, await asyncio.to_thread(self._valid))
            names = changed(before, after)
            for sentence in check.not_run(after):
                _log.warning("provider_without_key", reason=sentence)
            database = await self._services.database()
            async with database.transaction() as connection:
                made = await config_generations.add(connection, digest(after))
                await audit.record(
                    connection,
                    author,
                    "config.reload",
                    str(made.generation),
                    digest=made.digest,
                    changed=names,
                    restart_needed=restart_needed,
                )
            # What fails from here on is made good by `_follow`, here and in the other replicas.
            self._generation, self._untold = made.generation, True
            self._take(after)
            outcome = Outcome(made.generation, made.digest, names, restart_needed)
            if not self._services.on_ray:
                return outcome
            await asyncio.to_thread(_announce, after)
            return replace(outcome, actors=await self._tell())

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Look for a new generation every `model_poll_s` seconds, in the background."""
        following = asyncio.create_task(self._follow(), name="configuration")
        try:
            yield
        finally:
            following.cancel()
            await asyncio.wait([following])

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._services.settings.model_poll_s)
            try:
                await self.look()
            except Exception as error:  # whatever Ray or the database raises passes; the next look goes on
                _log.warning("config_not_followed", reason=redact(f"{type(error).__name__}: {error}"))

    async def look(self) -> None:
        """Take over what another replica has reloaded, and tell the actors until every one has taken it over.

        Once is enough then: an actor that crashes begins with what it was told last.
        """
        async with self._one_at_a_time:
            newest = await config_generations.newest(await self._services.database())
            if newest is None:
                return
            if newest.generation != self._generation:
                self._generation, self._looks_left = newest.generation, _LOOKS_FOR_THE_SAME
                self._untold = True
            await self._catch_up(newest.digest)
            if self._untold and self._services.on_ray and digest(self._services.settings) == newest.digest:
                await self._tell()

    async def _catch_up(self, wanted: str) -> None:
        if digest(self._services.settings) == wanted:
            self._looks_left = 0
            return
        now_s = self._services.clock.monotonic_s()
        if not self._looks_left and now_s - self._looked_s < _LOOKS_LATER_S:
            return
        is_last, self._looks_left = self._looks_left == 1, max(0, self._looks_left - 1)
        self._looked_s = now_s
        settings, _ = _running(self._services.settings, await asyncio.to_thread(self._valid))
        if digest(settings) == wanted:
            self._looks_left = 0
            self._take(settings)
        elif is_last:  # the files of this cluster are others; later on they may be half written
            self._take(settings)
            _log.warning("config_differs", generation=self._generation, digest=digest(settings))

    async def _tell(self) -> Reloaded:
        told = await asyncio.to_thread(_tell_actors, self._services.settings)
        self._untold = bool(told.failed)
        if told.failed:
            _log.warning("actors_not_told", failed=told.failed)
        return told

    def _valid(self) -> Settings:
        read = self._reread()
        if problems := check.wrong(read):
            raise ConfigError("\n".join(problems))
        return read

    def _take(self, settings: Settings) -> None:
        names = changed(self._services.settings, settings)
        self._services.settings = settings
        if names:
            logs.configure(settings.log_level)
            _log.info("config_reloaded", generation=self._generation, changed=names)


def _running(before: Settings, read: Settings) -> tuple[Settings, list[str]]:
    """What can be taken over of what was `read`, and the names of the rest that differs."""
    rest = sorted(NEEDS_RESTART.intersection(changed(before, read)))
    return read.model_copy(update={name: getattr(before, name) for name in rest}), rest


def _announce(settings: Settings) -> None:
    """Have commands on this machine find the keys that hold now."""
    running = running_instance(settings.endpoints_file)
    if running:
        told = {name: value for name, value in revealed(settings).items() if name not in NEEDS_RESTART}
        write_private(settings.endpoints_file, {**running, **told})


def _tell_actors(settings: Settings) -> Reloaded:
    from cluster import bootstrap

    env = {_ENVIRONMENT: os.environ[_ENVIRONMENT]} if _ENVIRONMENT in os.environ else {}
    return bootstrap.reload(settings, env)
