"""`finsight status`: what of an instance runs, and what it holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import httpx
from asyncpg import PostgresError

from cluster import bootstrap
from cluster.errors import FinSightError, NotRunning
from cluster.local.instance import Instance
from cluster.local.ray_head import RayHead
from cluster.redaction import redact
from cluster.settings import Settings, hide_password
from cluster.storage.database import Database

State = Literal["up", "degraded", "down"]
_TIMEOUT_S = 10.0

_CONTENTS = """
SELECT (SELECT count(*) FROM symbol_universe WHERE active) AS symbols,
       (SELECT count(*) FROM candles_daily) AS daily_bars,
       (SELECT max(ts) FROM candles_daily) AS last_daily_bar,
       (SELECT count(*) FROM feature_engineered_data) AS feature_rows,
       (SELECT count(*) FROM predictions) AS predictions,
       (SELECT count(*) FROM backfill_jobs WHERE state IN ('ready', 'leased')) AS backfill_jobs_open,
       (SELECT count(*) FROM backfill_jobs WHERE state = 'dead') AS backfill_jobs_dead
"""


@dataclass(frozen=True)
class Part:
    """One part of the system."""

    name: str
    state: State
    where: str | None = None
    """Its address, without passwords."""
    detail: str | None = None
    """What is the matter, or what else is worth knowing."""


@dataclass(frozen=True)
class Status:
    """All parts, and what is stored (None while the database is down)."""

    home: str
    parts: list[Part]
    contents: dict[str, Any] | None

    @property
    def ok(self) -> bool:
        """Whether every part is up."""
        return all(part.state == "up" for part in self.parts)


def status(settings: Settings) -> Status:
    """Look at every part, all at once; takes as long as the slowest, at most some ten seconds."""
    instance = Instance(settings.home)
    ray = RayHead(instance, settings)
    looks: list[Callable[[], Iterable[Part]]] = [
        lambda: [_database(settings)],
        lambda: [_redis(settings)],
        lambda: [_ray(ray, settings)],
        lambda: _actors(ray, settings),
        lambda: [_mlflow(settings)],
        lambda: _api(ray, settings),
    ]
    with ThreadPoolExecutor(len(looks) + 1) as pool:
        contents = pool.submit(_contents, settings)
        found = list(pool.map(lambda look: list(look()), looks))
        return Status(str(settings.home), [part for parts in found for part in parts], contents.result())


def _database(settings: Settings) -> Part:
    return _part("postgres", settings.database_url, lambda: asyncio.run(_ask(settings, "SELECT 1")))


def _redis(settings: Settings) -> Part:
    def ping() -> None:
        import redis

        with redis.Redis.from_url(settings.require_redis_url(), socket_timeout=_TIMEOUT_S) as client:
            client.ping()

    return _part("redis", settings.redis_url, ping)


def _ray(ray: RayHead, settings: Settings) -> Part:
    where = settings.url("dashboard")
    if not ray.running():
        return Part("ray", "down", where)
    return Part("ray", "up" if ray.answers() else "degraded", where)


def _mlflow(settings: Settings) -> Part:
    def ask() -> None:
        url = f"{settings.require_mlflow_tracking_uri()}/health"
        httpx.get(url, timeout=_TIMEOUT_S, trust_env=False).raise_for_status()

    return _part("mlflow", settings.mlflow_tracking_uri, ask)


def _actors(ray: RayHead, settings: Settings) -> list[Part]:
    try:
        found = ray.actors() if ray.running() else {}
    except FinSightError:
        found = {}
    parts = []
    for name in bootstrap.actor_names(settings):
        state = found.get(name, "not there")
        known: State = "up" if state == "ALIVE" else "down" if name not in found else "degraded"
        parts.append(Part(name, known, detail=None if known == "up" else state))
    return parts


def _api(ray: RayHead, settings: Settings) -> list[Part]:
    where = settings.url("api")
    try:
        if not ray.running():  # whoever answers at our address then is not ours
            raise NotRunning("Ray does not run")
        answer = httpx.get(f"{where}/health/detailed", timeout=_TIMEOUT_S, trust_env=False)
        dependencies: Mapping[str, Any] = answer.json()["data"]["dependencies"]
        model = _model(settings)
    except (httpx.HTTPError, FinSightError) as error:
        return _no_api(where, str(error))
    except (ValueError, KeyError):
        return _no_api(where, f"its answer has status {answer.status_code}")
    troubles = [
        f"{name} {each['state']}" for name, each in dependencies.items() if each["state"] != "connected"
    ]
    state: State = "up" if not troubles else "degraded"
    return [Part("api", state, where, ", ".join(troubles) or None), model]


def _no_api(where: str, why: str) -> list[Part]:
    return [Part("api", "down", where, why), Part("model", "down", detail="the API does not answer")]


def _model(settings: Settings) -> Part:
    if settings.model_dir is not None:
        return Part("model", "up", detail=f"the bundle in {settings.model_dir}")
    name = settings.model_name
    answer = httpx.get(f"{settings.url('api')}/models/{name}", timeout=_TIMEOUT_S, trust_env=False)
    if answer.status_code != httpx.codes.OK:
        return Part("model", "down", detail=answer.json().get("detail", "no answer"))
    aliases = answer.json().get("aliases", {})
    champion = aliases.get("champion")
    if champion is None:
        return Part("model", "down", detail=f"{name} has no champion; `finsight evaluate` promotes one")
    return Part("model", "up", detail=f"{name} version {champion}")


def _part(name: str, where: str | None, ask: Callable[[], object]) -> Part:
    if where is None:
        return Part(name, "down", detail="not started")
    try:
        ask()
    except Exception as error:  # whatever a client raises means the same here
        return Part(name, "down", hide_password(where), redact(str(error)) or type(error).__name__)
    return Part(name, "up", hide_password(where))


def _contents(settings: Settings) -> dict[str, Any] | None:
    try:
        return dict(asyncio.run(_ask(settings, _CONTENTS)))
    except (FinSightError, PostgresError):  # out of reach, or not migrated yet
        return None


async def _ask(settings: Settings, query: str) -> Any:
    database = await Database.open(settings.require_database_url(), max_size=1)
    try:
        async with database.connection() as connection:
            return await connection.fetchrow(query)
    finally:
        await database.close()
