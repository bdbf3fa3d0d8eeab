"""Looks at everything the service depends on, all at once and each with a time-out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

import httpx
import redis.asyncio

from cluster.providers.stats import ProviderStats
from cluster.redaction import redact
from cluster.settings import hide_password
from serve_apps.schemas import Dependency
from serve_apps.services import Services

State = Literal["connected", "degraded", "down"]
Finding = tuple[State, str | None]
"""State, and why it is not `connected`, or what it is."""

_TIMEOUT_S = 2.0
_TIMESCALE = "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'"

_BREAKER: dict[str, State] = {"CLOSED": "connected", "HALF_OPEN": "degraded", "OPEN": "down"}


@dataclass(frozen=True)
class Check:
    """How one dependency is looked at, and whether the service needs it."""

    look: Callable[[], Awaitable[Finding]]
    required: bool = False


class Checks:
    """The checks of one replica. PostgreSQL is required, and Ray when the service runs on it.

    Without Redis or MLflow predictions go on: those and the providers only degrade the service.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._checks = {
            "postgres": Check(self._postgres, required=True),
            "redis": Check(self._redis),
            "ray": Check(self._ray, required=services.on_ray),
            "mlflow": Check(self._mlflow),
        }

    async def run(self) -> dict[str, Dependency]:
        """All findings by name, after at most `_TIMEOUT_S` seconds and a little."""
        providers = {name: Check(self._provider(name)) for name in self._services.settings.active_providers}
        checks = {**self._checks, **providers}
        found = await asyncio.gather(*(timed(check) for check in checks.values()))
        return dict(zip(checks, found, strict=True))

    async def _postgres(self) -> Finding:
        database = await self._services.database()
        async with database.connection() as connection:
            version = await connection.fetchval(_TIMESCALE)
        return "connected", f"TimescaleDB {version}" if version else None

    async def _redis(self) -> Finding:
        async with redis.asyncio.from_url(self._services.settings.require_redis_url()) as client:
            await client.ping()
        return "connected", None

    async def _ray(self) -> Finding:
        if not self._services.on_ray:
            return "down", "this process runs outside of Ray"
        from serve_apps import on_ray

        await asyncio.to_thread(on_ray.require_cluster, _TIMEOUT_S)
        return "connected", None

    async def _mlflow(self) -> Finding:
        uri = self._services.settings.require_mlflow_tracking_uri()
        if not uri.startswith(("http://", "https://")):
            return (
                "degraded",
                f"{hide_password(uri)} is no server: only processes with access to it see models",
            )
        async with httpx.AsyncClient(timeout=_TIMEOUT_S) as client:
            (await client.get(f"{uri.rstrip('/')}/health")).raise_for_status()
        return "connected", None

    def _provider(self, name: str) -> Callable[[], Awaitable[Finding]]:
        async def look() -> Finding:
            if not self._services.on_ray:
                return "down", "gateways run on Ray, and this process does not"
            from serve_apps import on_ray

            return _provider_finding(await on_ray.provider_stats(name, _TIMEOUT_S))

        return look


def _provider_finding(stats: ProviderStats) -> Finding:
    state = _BREAKER.get(stats.state, "down")
    return state, None if state == "connected" else f"{stats.state}: {stats.last_error or 'no error yet'}"


async def _finding(check: Check) -> Finding:
    try:
        return await check.look()
    except Exception as error:  # whatever a client raises means the same here
        return "down", redact(f"{type(error).__name__}: {error}")


async def timed(check: Check) -> Dependency:
    """What the check finds; `down` when that takes longer than `_TIMEOUT_S`."""
    started = time.perf_counter()
    looking = asyncio.create_task(_finding(check))
    # Not `asyncio.timeout`: a client may hang in its clean-up too, when the other side is frozen.
    await asyncio.wait([looking], timeout=_TIMEOUT_S)
    if looking.done():
        state, detail = looking.result()
    else:
        looking.cancel()
        state, detail = "down", f"no answer within {_TIMEOUT_S:g} s"
    latency_ms = round((time.perf_counter() - started) * 1000, 2)
    return Dependency(state=state, latency_ms=latency_ms, required=check.required, detail=detail)
