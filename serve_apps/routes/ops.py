"""POST /ops/reload, POST /ops/backfill, GET /ops/backfill/{id}, GET /stats/providers."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cluster.errors import ConfigError, NotRunning, ProviderError
from cluster.redaction import redact
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_records import JobStatus
from serve_apps import body, problems
from serve_apps.auth import admin_only, author
from serve_apps.configuration import Configuration
from serve_apps.schemas import (
    BackfillAccepted,
    BackfillJob,
    BackfillRequest,
    ProviderPage,
    ProviderStats,
    ReloadAnswer,
)
from serve_apps.services import Services

_TIMEOUT_S = 2.0


class OpsRoutes:
    """What operators do and look at."""

    def __init__(self, services: Services, configuration: Configuration) -> None:
        self._services = services
        self._configuration = configuration

    def router(self) -> APIRouter:
        """All routes."""
        router = APIRouter(tags=["operations"])
        router.add_api_route(
            "/ops/backfill",
            self.enqueue,
            methods=["POST"],
            status_code=HTTPStatus.ACCEPTED,
            response_model=BackfillAccepted,
            responses=problems.documented(401, 403, 408, 413, 415, 422, 503),
            openapi_extra=body.documented(BackfillRequest),
            dependencies=[Depends(admin_only(self._services))],
        )
        router.add_api_route(
            "/ops/reload",
            self.reload,
            methods=["POST"],
            responses=problems.documented(401, 403, 409, 503),
            dependencies=[Depends(admin_only(self._services))],
        )
        router.add_api_route("/ops/backfill/{id}", self.job, responses=problems.documented(404, 422, 503))
        router.add_api_route("/stats/providers", self.providers, responses=problems.documented(503))
        return router

    async def enqueue(self, request: Request) -> Response:
        """Have bars fetched. A range that waits or runs already is answered with the jobs that have it."""
        wanted = await body.read(request, BackfillRequest, self._services.settings.max_body_bytes)
        database = await self._services.database()
        await self._services.instrument(wanted.symbol)
        span = wanted.start, wanted.end
        jobs = await BackfillQueue(database).enqueue(
            wanted.symbol, wanted.interval, *span, tier=wanted.priority, by=author(request)
        )
        accepted = BackfillAccepted(job_ids=[job.id for job in jobs], jobs=[job_of(job) for job in jobs])
        return Response(accepted.model_dump_json(), HTTPStatus.ACCEPTED, media_type="application/json")

    async def reload(self, request: Request) -> ReloadAnswer:
        """Read configuration files and keys anew, in every actor and replica; no work is dropped.

        The settings are checked first: when one is wrong nothing changes, and the answer says what it is.
        """
        try:
            done = await self._configuration.reload(author(request))
        except ConfigError as error:
            raise HTTPException(HTTPStatus.CONFLICT, f"Nothing was changed. {error}") from None
        actors = {} if done.actors is None else asdict(done.actors)
        return ReloadAnswer(
            generation=done.generation,
            config_digest=done.digest,
            changed=done.changed,
            restart_needed=done.restart_needed,
            **{"reloaded": [], "started": [], "stopped": [], "failed": {}, **actors},
        )

    async def job(self, id: Annotated[int, Path(ge=1, le=2**63 - 1)]) -> BackfillJob:  # noqa: A002 - its name
        """State, attempts, rows written and timings of a job."""
        found = await BackfillQueue(await self._services.database()).get(id)
        if found is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"There is no backfill job {id}.")
        return job_of(found)

    async def providers(self) -> ProviderPage:
        """Breaker, health, latency and budget of every configured provider.

        One whose gateway does not answer is `OPEN` with a health of 0, and `last_error` says why.
        """
        if not self._services.on_ray:
            raise NotRunning("The gateways run on Ray, and this process does not. Run `finsight up`.")
        names = sorted(self._services.settings.active_providers)
        found = await asyncio.gather(*map(self._provider, names))
        return ProviderPage(items=found, next_cursor=None)

    async def _provider(self, name: str) -> ProviderStats:
        from serve_apps import on_ray

        try:
            stats = await on_ray.provider_stats(name, _TIMEOUT_S)
        except (
            NotRunning,
            ProviderError,
        ) as error:  # the others are told all the same
            return _silent(name, redact(str(error)), self._services.clock.now())
        return ProviderStats.model_validate(stats, from_attributes=True)


def _silent(name: str, why: str, now: datetime) -> ProviderStats:
    """What there is to tell of a provider whose gateway does not answer."""
    return ProviderStats(
        provider=name,
        state="OPEN",
        health_score=0.0,
        latency_p50_ms=None,
        latency_p95_ms=None,
        error_rate=1.0,
        budget_left=[],
        last_error=why,
        last_error_at=now,
        last_success_at=None,
        outcomes={},
        rejected_bars=0,
        set_aside=None,
    )


def job_of(found: JobStatus) -> BackfillJob:
    """The answer that tells of a job."""
    return BackfillJob(
        id=found.id,
        symbol=found.symbol,
        interval=found.interval,
        start=found.start,
        end=found.end,
        priority=found.tier,
        provider=found.provider,
        state=found.state,
        attempts=found.attempt,
        reason=found.reason,
        rows_written=found.rows_written,
        enqueued_at=found.enqueued_at,
        started_at=found.started_at,
        finished_at=found.finished_at,
    )
