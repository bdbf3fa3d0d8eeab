"""`finsight up`: everything on this machine, from nothing to a served prediction.

Every step looks first at what is there, so that a start that was interrupted anywhere goes on where it was.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import SecretStr

from cluster.errors import ConfigError, NotReady, NotRunning, PortTaken
from cluster.local import connection, due, processes, service
from cluster.local.background import Starting
from cluster.local.console import Console, step
from cluster.local.exclusive import exclusively
from cluster.local.instance import Instance
from cluster.local.mlflow_server import DATABASE as MLFLOW_DATABASE
from cluster.local.mlflow_server import MlflowServer
from cluster.local.ray_head import RayHead
from cluster.local.work import Background
from cluster.ports import holder, require_free
from cluster.settings import NEEDS_RESTART, Settings, environment_names, load, revealed, running_instance
from cluster.storage.create import ensure_database
from cluster.storage.database import Database
from cluster.storage.embedded.postgres import EmbeddedPostgres
from cluster.storage.embedded.valkey import EmbeddedValkey
from cluster.storage.migrate import migrate
from cluster.submission import Submissions

PROVIDER = "sample"
"""Whose history is loaded: it needs no key and no network."""

RAY_TIMEOUT_S = 120.0
MLFLOW_TIMEOUT_S = 180.0
SERVE_TIMEOUT_S = 180.0
FIRST_PREDICTION_TIMEOUT_S = 120.0
_PAUSE_S = 0.2
_PORT_NAMES = {
    "api": "the HTTP API",
    "dashboard": "the Ray dashboard",
    "metrics": "Ray's node metrics",
    "mlflow": "MLflow",
    "ray": "Ray's control service",
}

_Answer = TypeVar("_Answer")


@dataclass
class Ready:
    """A started instance."""

    urls: dict[str, str]
    admin_key_file: str
    """Holds the key for writing over HTTP, unless ADMIN_API_KEY set another."""
    ray_token_file: str
    """Holds the token that the Ray dashboard asks for."""
    prediction: dict[str, Any] | None
    """The API's answer for one symbol; None when no model is served."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each step took; those in the background overlap with others."""


def up(settings: Settings, console: Console) -> Ready:
    """Bring up what is not running. FinSightError when a part does not come up; the others stay up."""
    instance = Instance(settings.home)
    instance.prepare()
    with exclusively(instance, console):
        return _Start(instance, settings, console).run()


class _Start:
    def __init__(self, instance: Instance, settings: Settings, console: Console) -> None:
        self._instance = instance
        self._asked = self._settings = settings
        self._console = console
        self._seconds: dict[str, float] = {}

    @property
    def _ray(self) -> RayHead:
        return RayHead(self._instance, self._settings)

    @property
    def _mlflow(self) -> MlflowServer:
        return MlflowServer(self._instance, self._settings)

    def run(self) -> Ready:
        with self._step("total"):
            self._look_around()
            with self._step("PostgreSQL and Valkey"):
                mlflow_store = self._start_stores()
            ray = self._start_ray()
            self._announce()
            with self._step("Ray"):
                self._await_ray(ray)
                connection.connect(self._ray, self._stores())
            # Not before: it would take a core from Ray, which more waits for
            mlflow = self._mlflow.start(mlflow_store) if mlflow_store else None
            with self._step("gateways and backfill workers"):
                connection.start_actors(self._settings, self._instance.work_environment())
            serving = Background(lambda: service.deploy(self._settings, self._instance.work_environment()))
            has_model = self._learn(mlflow)
            with self._step("HTTP API"):
                self._seconds["HTTP API, in the background"] = self._served(serving)
            prediction = self._first_prediction() if has_model else None
        return Ready(
            urls=self._urls(),
            admin_key_file=str(self._instance.admin_key_path),
            ray_token_file=str(self._instance.ray_token_path),
            prediction=prediction,
            seconds=self._seconds,
        )

    def _look_around(self) -> None:
        if self._settings.ray_address:
            raise ConfigError(
                f"RAY_ADDRESS = {self._settings.ray_address!r}: `finsight up` starts a Ray of its own. "
                "Unset it."
            )
        bundle = self._settings.model_dir
        if bundle and not (bundle / "manifest.json").is_file():
            raise ConfigError(f"MODEL_DIR = {bundle} holds no model: there is no manifest.json in it.")
        if self._ray.running() and self._instance.endpoints.exists():
            self._adopt()
            return
        processes.end(self._ray.remains())  # half a Ray, of a start or a stop that was interrupted
        self._require_ports()

    def _require_ports(self) -> None:
        """PortTaken when somebody else has a port that the settings name."""
        asked = self._asked
        ports = {name: asked.port(name) for name in ("api", "dashboard", "metrics")}
        if asked.mlflow_tracking_uri is None:
            ports["mlflow"] = asked.port("mlflow")
        if asked.ray_port:
            ports["ray"] = asked.ray_port
        own = {process.pid for process in self._instance.processes()}
        for name, port in ports.items():
            require_free(port, _PORT_NAMES[name], f"FINSIGHT_{name.upper()}_PORT", own)

    def _adopt(self) -> None:
        """Keep to the settings of what runs, unless others are asked for: those need a new start."""
        running = self._as_reloaded(self._ray.settings_then())
        default = load(instance=False, environ={}, home=self._instance.home)
        for name, env in environment_names().items():
            asked = getattr(self._settings, name)
            if asked not in (getattr(running, name), getattr(default, name)):
                remedy = "down` first" if name in NEEDS_RESTART else "config reload`, which takes it over"
                raise ConfigError(
                    f"FinSight of {self._instance.home} runs with another {name} ({env}) than is asked for "
                    f"now. Run `finsight {remedy}."
                )
        self._asked = self._settings = running

    def _as_reloaded(self, running: Settings) -> Settings:
        """What it was started with, but for what was reloaded since."""
        told = running_instance(self._instance.endpoints)
        since = {name: value for name, value in told.items() if name not in NEEDS_RESTART}
        return Settings.model_validate({**revealed(running), **since})

    def _start_stores(self) -> str | None:
        """Start what is embedded and migrate; the DSN of MLflow's store, None when MLflow is elsewhere."""
        found = self._settings
        database_url = found.database_url or EmbeddedPostgres(found.home, port=found.postgres_port).start()
        redis_url = found.redis_url or EmbeddedValkey(found.home, port=found.redis_port).start()
        migrate(database_url, use_timescale=found.timescale)
        store = None if found.mlflow_tracking_uri else ensure_database(database_url, MLFLOW_DATABASE)
        self._settings = found.model_copy(
            update={
                "database_url": database_url,
                "redis_url": redis_url,
                "mlflow_tracking_uri": found.mlflow_tracking_uri or self._mlflow.uri,
                "admin_api_key": found.admin_api_key or SecretStr(self._instance.admin_key()),
            }
        )
        return store

    def _start_ray(self) -> Starting:
        stores = self._stores()
        if self._ray.running() and (not self._ray.uses(stores) or self._ray.lost()):
            # A store has come back at another port, or somebody has taken a port that Serve was to have
            processes.end(self._ray.remains())
        return self._ray.start(stores, _from_anywhere(os.environ), self._asked)

    def _await_ray(self, starting: Starting) -> None:
        """Wait for Ray; a port that was taken since it was chosen makes way for another, once."""
        try:
            starting.wait(RAY_TIMEOUT_S)
        except NotRunning:
            self._require_ports()
            if not self._ray.lost():
                raise
            processes.end(self._ray.remains())
            starting = self._start_ray()
            self._announce()
            starting.wait(RAY_TIMEOUT_S)

    def _stores(self) -> dict[str, str]:
        settings = self._settings
        return {
            "DATABASE_URL": settings.require_database_url(),
            "REDIS_URL": settings.require_redis_url(),
            "MLFLOW_TRACKING_URI": settings.require_mlflow_tracking_uri(),
        }

    def _announce(self) -> None:
        self._instance.write_endpoints({**revealed(self._settings), "ray_address": self._ray.address()})

    def _learn(self, mlflow: Starting | None) -> bool:
        """From history to a champion, whatever of it is still to be done; whether there is a model."""
        learns = self._settings.model_dir is None and PROVIDER in self._settings.providers
        if learns and asyncio.run(self._due(due.history)):
            self._job("ingest", "--provider", PROVIDER)
        if learns and asyncio.run(self._due(due.features)):
            self._job("features")
        with self._step("MLflow"):
            if mlflow is not None:
                mlflow.wait(MLFLOW_TIMEOUT_S)
            known, champion = self._registered()
        if learns and not known:
            self._job("train")
        if learns and not champion:
            champion = bool(self._job("evaluate").get("promoted"))
        return champion or self._settings.model_dir is not None

    def _registered(self) -> tuple[bool, bool]:
        return due.registered(self._settings.require_mlflow_tracking_uri(), self._settings.model_name)

    async def _due(self, question: Callable[[Database], Awaitable[_Answer]]) -> _Answer:
        database = await Database.open(self._settings.require_database_url(), max_size=1)
        try:
            return await question(database)
        finally:
            await database.close()

    def _job(self, job: str, *arguments: str) -> Mapping[str, Any]:
        """Have the job done; what it says at its end."""
        submissions = Submissions(
            self._settings.url("dashboard"), environment=self._instance.work_environment()
        )
        with self._step(f"job {job}"):
            submitted = submissions.submit(job, arguments)
            outcome = submissions.follow(
                submitted, on_progress=lambda now: self._console.progress(now.what, now.share)
            )
        if not outcome.ok:
            raise NotReady(
                f"Job {submitted} ended as {outcome.status}: {outcome.message} "
                f"Its log: `finsight jobs logs {submitted}`."
            )
        return outcome.result or {}

    def _served(self, serving: Background) -> float:
        try:
            return serving.wait(SERVE_TIMEOUT_S)
        except (NotRunning, TimeoutError) as error:
            self._require_ports()
            for name, port in self._ray.lost().items():
                raise PortTaken(
                    f"Port {port} ({name}), free when it was chosen, is taken by {holder(port)}. "
                    "Call `finsight up` again: it chooses another."
                ) from None
            why = str(error) or f"not after {SERVE_TIMEOUT_S:g} s"
            raise NotRunning(
                f"The HTTP API is not ready: {why}. The Ray dashboard at {self._settings.url('dashboard')} "
                "tells what Serve waits for; call `finsight up` again."
            ) from None

    def _first_prediction(self) -> dict[str, Any] | None:
        symbol = asyncio.run(self._due(due.predictable))
        if symbol is None:
            return None
        with self._step("first prediction"):
            deadline = time.monotonic() + FIRST_PREDICTION_TIMEOUT_S
            while True:
                answer = self._predict(symbol)
                if answer is not None and answer.status_code == httpx.codes.OK:
                    found: dict[str, Any] = answer.json()
                    return found
                if time.monotonic() > deadline:
                    said = "no answer" if answer is None else f"{answer.status_code} {answer.text[:500]}"
                    raise NotReady(f"The API gave no prediction for {symbol}: {said}")
                time.sleep(_PAUSE_S)

    def _predict(self, symbol: str) -> httpx.Response | None:
        body = {"symbol": symbol, "interval": "1d", "return_confidence": True}
        url = f"{self._settings.url('api')}/predict"
        try:
            return httpx.post(url, json=body, timeout=30, trust_env=False)
        except httpx.TransportError:
            return None

    def _urls(self) -> dict[str, str]:
        settings = self._settings
        return {
            "api": settings.url("api"),
            "docs": f"{settings.url('api')}/docs",
            "dashboard": settings.url("dashboard"),
            "mlflow": settings.require_mlflow_tracking_uri(),
        }

    def _step(self, what: str) -> AbstractContextManager[None]:
        return step(what, self._console, self._seconds)


def _from_anywhere(environ: Mapping[str, str]) -> dict[str, str]:
    """What of our environment is said in relation to our folder or to a proxy, for processes elsewhere."""
    paths = {
        name: str(Path(environ[name]).expanduser().resolve())
        for name in ("FINSIGHT_CONFIG", "MODEL_DIR")
        if environ.get(name)
    }
    past_proxy = ",".join(
        filter(None, (environ.get("no_proxy") or environ.get("NO_PROXY"), "127.0.0.1,localhost"))
    )
    return {**paths, "no_proxy": past_proxy, "NO_PROXY": past_proxy}
