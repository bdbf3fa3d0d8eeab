"""Whether the servers that the settings name answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.cli.finding import Finding
from cluster.errors import FinSightError

if TYPE_CHECKING:
    from cluster.settings import Settings

_TIMEOUT_S = 5.0
_OFF = "not running; `finsight up` starts it"


def servers(settings: Settings) -> list[Finding]:
    """PostgreSQL, Valkey, MLflow, Ray and the HTTP API, one after another."""
    uri = settings.mlflow_tracking_uri
    return [
        _asked("PostgreSQL", settings.database_url, _postgres),
        _asked("Valkey", settings.redis_url, _valkey),
        _asked("MLflow", uri, _mlflow),
        _running("Ray", settings, lambda: _ray(settings)),
        _running("HTTP API", settings, lambda: _api(settings)),
    ]


def _asked(name: str, address: str | None, ask: Callable[[str], str]) -> Finding:
    """What a server says that is set, or is of the running instance."""
    if address is None:
        return Finding(name, "off", _OFF)
    try:
        return Finding(name, "ok", ask(address))
    except FinSightError as error:
        return Finding(name, "failed", str(error), "`finsight status` tells what runs")


def _running(name: str, settings: Settings, ask: Callable[[], str]) -> Finding:
    """What a part says that always has an address: it is off where no instance runs and nothing answers."""
    try:
        return Finding(name, "ok", ask())
    except FinSightError as error:
        if settings.endpoints_file.exists():
            return Finding(name, "failed", str(error), "`finsight status` tells what runs")
        return Finding(name, "off", _OFF)


def _postgres(dsn: str) -> str:
    async def look() -> str:
        from cluster.storage.database import Database
        from cluster.storage.dsn import address

        database = await Database.open(dsn, max_size=1)
        try:
            async with database.connection() as connection:
                version = await connection.fetchval("SHOW server_version")
        finally:
            await database.close()
        return f"version {version} at {address(dsn)}"

    return asyncio.run(look())


def _valkey(url: str) -> str:
    import redis

    from cluster.errors import NotRunning
    from cluster.settings import hide_password

    try:
        with redis.Redis.from_url(url, socket_timeout=_TIMEOUT_S) as client:
            client.ping()
    except redis.RedisError as error:
        raise NotRunning(f"Valkey at {hide_password(url)} does not answer: {error}") from None
    return f"answers at {hide_password(url)}"


def _mlflow(uri: str) -> str:
    import httpx

    from cluster.errors import NotRunning
    from cluster.settings import hide_password

    shown = hide_password(uri)
    if not uri.startswith(("http://", "https://")):
        return f"{shown} is no server, and is used as it is"
    try:
        httpx.get(f"{uri.rstrip('/')}/health", timeout=_TIMEOUT_S, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        raise NotRunning(f"MLflow at {shown} does not answer: {error}") from None
    return f"answers at {shown}"


def _ray(settings: Settings) -> str:
    from cluster.cli.submitting import submissions

    unfinished = [job for job in submissions(settings).listed() if not job.ended]
    return f"dashboard at {settings.url('dashboard')}, {len(unfinished)} jobs run"


def _api(settings: Settings) -> str:
    from cluster.cli.api import Api

    with Api(settings) as api:
        health = api.get("/health")["data"]
    return f"{health['service']} {health['version']} at {settings.url('api')}"
