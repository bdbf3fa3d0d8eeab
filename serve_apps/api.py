"""The HTTP API: one FastAPI app, and its deployment on Ray Serve.

Ingress and the whole ensemble live in one replica: a hop between deployments costs more than the forecast.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from cluster import logs
from cluster.clock import Clock
from cluster.settings import Settings, load, reread
from serve_apps import documents, problems
from serve_apps.configuration import Configuration
from serve_apps.instrumentation import Instrumentation
from serve_apps.methods import HeadLikeGet
from serve_apps.routes.bars import BarRoutes
from serve_apps.routes.cadence import CadenceRoutes
from serve_apps.routes.dead_letters import DeadLetterRoutes
from serve_apps.routes.gaps import GapRoutes
from serve_apps.routes.health import HealthRoutes
from serve_apps.routes.metrics import MetricsRoutes
from serve_apps.routes.models import ModelRoutes
from serve_apps.routes.ops import OpsRoutes
from serve_apps.routes.predict import PredictRoutes
from serve_apps.routes.prices import PriceRoutes
from serve_apps.routes.symbols import SymbolRoutes
from serve_apps.services import Services

if TYPE_CHECKING:
    from ray.serve import Application


class ServeArguments(BaseModel):
    """What `args` of the Serve config may hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_replicas: int = Field(1, ge=1)
    max_ongoing_requests: int = Field(64, ge=1, description="Of one replica; more wait in the proxy.")
    num_cpus: float = Field(0.0, ge=0, description="Cores that Ray reserves for a replica.")
    env: dict[str, str] = Field(default_factory=dict, description="Environment of the replicas.")


def create_app(
    settings: Settings,
    *,
    clock: Clock | None = None,
    on_ray: bool = False,
    reread: Callable[[], Settings] = reread,
) -> FastAPI:
    """The whole API as an ASGI app; it runs anywhere, but only `on_ray` it sees the cluster's parts.

    `reread` reads the settings anew for a reload.
    """
    services = Services(settings, clock=clock, on_ray=on_ray)
    configuration = Configuration(services, reread)
    pages = MetricsRoutes(services)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with services.running(), configuration.followed():
            yield
            await pages.close()

    app = documents.application(lifespan=lifespan)
    app.state.services = services
    app.state.configuration = configuration
    routes = (
        PriceRoutes(services),
        BarRoutes(services),
        SymbolRoutes(services),
        GapRoutes(services),
        PredictRoutes(services),
        ModelRoutes(services),
        HealthRoutes(services),
        OpsRoutes(services, configuration),
        CadenceRoutes(services),
        DeadLetterRoutes(services),
        pages,
    )
    for family in routes:
        app.include_router(family.router())
    problems.install(app)
    app.add_middleware(HeadLikeGet)
    app.add_middleware(Instrumentation, answer_id=not on_ray)  # Ray Serve makes one, and answers it
    return app


def build(args: Mapping[str, Any]) -> Application:
    """The Serve application; import path `serve_apps.api:build`. Settings are read where the replica runs."""
    from ray import serve

    options = ServeArguments.model_validate(args)

    def replica_app() -> FastAPI:
        from serve_apps import on_ray

        on_ray.keep_to_node()
        settings = load()
        logs.configure(settings.log_level)
        return create_app(settings, on_ray=True)

    deployment = serve.deployment(
        name="api",
        num_replicas=options.num_replicas,
        max_ongoing_requests=options.max_ongoing_requests,
        health_check_period_s=2,
        health_check_timeout_s=10,
        ray_actor_options={
            "num_cpus": options.num_cpus,
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": "1", **options.env}},
        },
    )
    return deployment(serve.ingress(replica_app)()).bind()
