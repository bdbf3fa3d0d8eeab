"""`finsight down`: stop all of an instance and lose nothing."""

from __future__ import annotations

import shutil
from contextlib import suppress

from cluster.errors import NotRunning
from cluster.local import connection, processes, service
from cluster.local.console import Console, step
from cluster.local.exclusive import exclusively
from cluster.local.instance import Instance
from cluster.local.mlflow_server import MlflowServer
from cluster.local.ray_head import RayHead
from cluster.local.work import Background
from cluster.settings import Settings
from cluster.storage.embedded.postgres import EmbeddedPostgres
from cluster.storage.embedded.valkey import EmbeddedValkey

GRACE_S = 30.0
"""For running requests and backfill jobs to end, before they are cut off."""

KEPT_RUNS = 3
"""Of so many last runs Ray's logs are kept."""


def down(settings: Settings, console: Console) -> dict[str, float]:
    """Stop what runs of the instance in `settings.home`; how long each step took in seconds.

    Data, models, keys and logs stay. NotRunning when a process does not die even of SIGKILL.
    """
    instance = Instance(settings.home)
    seconds: dict[str, float] = {}
    if not instance.run.exists():
        return seconds
    instance.prepare()
    with exclusively(instance, console):
        ray = RayHead(instance, settings)
        if ray.running():
            with step("HTTP API and backfill workers", console, seconds), suppress(Exception):
                # Whatever prevents a gentle end, the end comes.
                Background(lambda: _withdraw(ray)).wait(GRACE_S + 15)
            with step("Ray", console, seconds):
                _stop_ray(ray)
        with step("MLflow and what is left", console, seconds):
            _stop_rest(instance, settings)
        with step("PostgreSQL and Valkey", console, seconds):
            EmbeddedValkey(instance.home).stop()
            EmbeddedPostgres(instance.home).stop()
        _tidy(instance)
    return seconds


def _withdraw(ray_head: RayHead) -> None:
    connection.connect(ray_head, {})
    service.withdraw()
    connection.drain_workers(GRACE_S / 2)
    connection.disconnect()


def _stop_ray(ray: RayHead) -> None:
    # The raylet first and alone: it ends its workers in order. The autoscaler's monitor would sit out 20 s.
    processes.end(ray.named("raylet"), grace_s=10)
    processes.end(ray.remains(), grace_s=2)


def _stop_rest(instance: Instance, settings: Settings) -> None:
    server = MlflowServer(instance, settings).process()
    processes.end([server] if server else [])
    alive = processes.end(instance.processes(), grace_s=2)
    if alive:
        raise NotRunning(f"These processes do not end: {', '.join(str(process.pid) for process in alive)}.")


def _tidy(instance: Instance) -> None:
    for path in (instance.endpoints, instance.run / "ray.json"):
        path.unlink(missing_ok=True)
    _keep_ray_logs(instance)
    for folder in (instance.metrics, instance.scratch):
        shutil.rmtree(folder, ignore_errors=True)


def _keep_ray_logs(instance: Instance) -> None:
    """Ray's logs, those of the jobs among them, move to the home folder; those of older runs go."""
    for logs in sorted(instance.scratch.glob("ray/session_2*/logs")):
        kept = instance.logs / f"ray-{logs.parent.name.removeprefix('session_')}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.move(logs, kept)
    for old in sorted(instance.logs.glob("ray-2*"))[:-KEPT_RUNS]:
        shutil.rmtree(old, ignore_errors=True)
