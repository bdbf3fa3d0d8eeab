"""GET /ops/dlq/backfills, POST /ops/dlq/backfills/requeue/{id}, DELETE /ops/dlq/backfills/{id}."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cluster.storage import dead_letters
from cluster.storage.backfill_jobs import BackfillQueue
from serve_apps import paging, problems
from serve_apps.auth import admin_only, author
from serve_apps.paging import Cursor, Limit
from serve_apps.routes.ops import job_of
from serve_apps.schemas import BackfillAccepted, BackfillAttempt, DeadLetter, DeadLetterPage
from serve_apps.services import Services

JobId = Annotated[int, Path(ge=1, le=2**63 - 1)]


class DeadLetterRoutes:
    """Backfill jobs that were given up; for administrators only."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def router(self) -> APIRouter:
        """All routes."""
        router = APIRouter(
            prefix="/ops/dlq/backfills",
            tags=["operations"],
            dependencies=[Depends(admin_only(self._services))],
        )
        router.add_api_route("", self.listed, responses=problems.documented(401, 403, 422, 503))
        one = problems.documented(401, 403, 404, 422, 503)
        router.add_api_route("/requeue/{id}", self.requeue, methods=["POST"], responses=one)
        router.add_api_route(
            "/{id}",
            self.delete,
            methods=["DELETE"],
            status_code=HTTPStatus.NO_CONTENT,
            responses={**one, **problems.documented(409)},
        )
        return router

    async def listed(self, cursor: Cursor = None, limit: Limit = 100) -> DeadLetterPage:
        """The backfill jobs that were given up, with the reason and every attempt."""
        before = paging.as_number(paging.decoded(cursor)) if cursor is not None else None
        found = await dead_letters.listed(await self._services.database(), limit + 1, before)
        items, next_cursor = paging.head(found, lambda each: str(each.job.id), limit)
        return DeadLetterPage(items=[_letter(each) for each in items], next_cursor=next_cursor)

    async def requeue(self, id: JobId, request: Request) -> BackfillAccepted:  # noqa: A002 - its name
        """Put a given-up job into the queue again, under its id and with its history.

        A second call changes nothing. Where other jobs fetch a part of the range, those that cover it are
        answered.
        """
        queue = BackfillQueue(await self._services.database())
        database = await self._services.database()
        jobs = await dead_letters.requeue(database, id, queue.rules, by=author(request))
        if not jobs and (found := await queue.get(id)) is not None:
            jobs = [found]
        if not jobs:
            raise _unknown(id)
        return BackfillAccepted(job_ids=[job.id for job in jobs], jobs=[job_of(job) for job in jobs])

    async def delete(self, id: JobId, request: Request) -> Response:  # noqa: A002 - its name
        """Forget a given-up job and its history."""
        database = await self._services.database()
        if await dead_letters.delete(database, id, by=author(request)):
            return Response(status_code=HTTPStatus.NO_CONTENT)
        found = await BackfillQueue(database).get(id)
        if found is None:
            raise _unknown(id)
        raise HTTPException(HTTPStatus.CONFLICT, f"Job {id} is {found.state}; only dead jobs can be deleted.")


def _letter(found: dead_letters.DeadLetter) -> DeadLetter:
    return DeadLetter(
        **job_of(found.job).model_dump(),
        requeue_count=found.requeue_count,
        history=[BackfillAttempt.model_validate(each, from_attributes=True) for each in found.history],
    )


def _unknown(job: int) -> HTTPException:
    return HTTPException(HTTPStatus.NOT_FOUND, f"There is no backfill job {job}.")
