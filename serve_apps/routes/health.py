"""GET /health and /health/detailed."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from serve_apps.dependencies import Checks
from serve_apps.schemas import DetailedHealth, DetailedHealthAnswer, Health, HealthAnswer
from serve_apps.services import VERSION, Services


class HealthRoutes:
    """Liveness of this process, and the state of everything it depends on."""

    def __init__(self, services: Services) -> None:
        self._clock = services.clock
        self._checks = Checks(services)

    def router(self) -> APIRouter:
        """All routes."""
        router = APIRouter(tags=["health"])
        router.add_api_route("/health", self.health)
        unwell: dict[int | str, dict[str, Any]] = {
            503: {"model": DetailedHealthAnswer, "description": "A required dependency is down."}
        }
        router.add_api_route(
            "/health/detailed", self.detailed, response_model=DetailedHealthAnswer, responses=unwell
        )
        return router

    async def health(self) -> HealthAnswer:
        """Liveness: 200 as long as this process serves."""
        return HealthAnswer(
            data=Health(status="healthy", version=VERSION, timestamp=self._clock.now()),
        )

    async def detailed(self) -> Response:
        """Every dependency with its latency; 503 when a required one is down."""
        found = await self._checks.run()
        down = any(each.required and each.state == "down" for each in found.values())
        well = all(each.state == "connected" for each in found.values())
        data = DetailedHealth(
            status="unhealthy" if down else "healthy" if well else "degraded",
            version=VERSION,
            timestamp=self._clock.now(),
            dependencies=found,
        )
        status = HTTPStatus.SERVICE_UNAVAILABLE if down else HTTPStatus.OK
        answer = DetailedHealthAnswer(success=not down, data=data)
        return Response(answer.model_dump_json(), status, media_type="application/json")
