"""The Ray head of this machine: started in the background, its dashboard and ports behind a token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from cluster.errors import NotRunning
from cluster.local import background, haproxy, interpreter
from cluster.local.instance import Instance, session_of, write_private
from cluster.local.mlflow_server import MlflowServer
from cluster.ports import free_port, free_range, is_free, is_held_by
from cluster.settings import Settings, revealed

_REPLICA_PORTS = 20

# By default Ray's workers give way to everything else on the machine: a busy one starves gateways and API.
# A job that is stopped has 3 s to end by itself, which a busy machine exceeds.
_WORKERS = {"RAY_worker_niceness": "0", "RAY_JOB_STOP_WAIT_TIME_S": "30"}


@dataclass(frozen=True)
class RayHead:
    """Ray of one instance. What was chosen at its start is kept in `run/ray.json` until it stops."""

    instance: Instance
    settings: Settings

    @property
    def _file(self) -> Path:
        return self.instance.run / "ray.json"

    def address(self) -> str:
        """Host and port of the GCS of the Ray that runs."""
        return str(self._read()["address"])

    def environment(self) -> dict[str, str]:
        """What a process needs in its environment, before it imports Ray, to work with this Ray."""
        return {**self.instance.environment(), **self._read()["serve"]}

    def running(self) -> bool:
        """Whether the two processes are alive that Ray cannot do without."""
        return bool(self.named("gcs_server") and self.named("raylet"))

    def named(self, name: str) -> list[psutil.Process]:
        """What lives of the session that Ray was started in and has this name."""
        return [process for process in self.processes() if _name(process) == name]

    def settings_then(self) -> Settings:
        """The settings that the Ray that runs was started with."""
        return Settings.model_validate(self._read()["settings"])

    def uses(self, stores: Mapping[str, str]) -> bool:
        """Whether the Ray that runs was started with these stores."""
        return bool(self._read()["stores"] == stores)

    def lost(self) -> dict[str, int]:
        """The ports that were chosen for the last start and that others listen on, by what needs them.

        A listener that the system does not let us see counts as ours: a Ray that is well must not be ended.
        """
        own = {None, *(process.pid for process in self.instance.processes())}
        chosen: dict[str, int] = self._read().get("chosen", {})
        return {name: port for name, port in chosen.items() if not (is_free(port) or is_held_by(own, port))}

    def processes(self) -> list[psutil.Process]:
        """What lives of the session that Ray was started in."""
        try:
            session = int(self._read()["session"])
        except FileNotFoundError:
            return []
        return [process for process in self.instance.processes() if session_of(process) == session]

    def remains(self) -> list[psutil.Process]:
        """Everything of this Ray, also workers, jobs and proxies that have sessions of their own."""
        mlflow = MlflowServer(self.instance, self.settings).process()
        spared = session_of(mlflow) if mlflow else None
        return [process for process in self.instance.processes() if session_of(process) != spared]

    def answers(self) -> bool:
        """Whether the dashboard takes jobs."""
        try:
            return self._ask("/api/jobs/").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def actors(self) -> dict[str, str]:
        """State (`ALIVE`, `RESTARTING`, ...) of every named actor that has not ended for good."""
        try:
            answer = self._ask("/api/v0/actors?limit=1000").raise_for_status()
        except httpx.HTTPError as error:
            raise NotRunning(f"Ray's dashboard does not answer: {error}. `finsight up` starts it.") from error
        found = answer.json()["data"]["result"]["result"]
        return {each["name"]: each["state"] for each in found if each["name"] and each["state"] != "DEAD"}

    def _ask(self, path: str) -> httpx.Response:
        return httpx.get(
            self.settings.url("dashboard") + path,
            headers={"Authorization": f"Bearer {self.instance.ray_token()}"},
            timeout=10,
            trust_env=False,  # the token must not go through a proxy
        )

    def start(
        self, stores: Mapping[str, str], environment: Mapping[str, str], asked: Settings
    ) -> background.Starting:
        """Start Ray unless it runs, with `stores` (DATABASE_URL and the like) and `environment` in its own.

        `asked` is what `settings_then` will answer.
        """
        log = self.instance.logs / "ray.log"
        if self.running():
            return background.Starting("Ray", log, self.answers)
        port = self.settings.ray_port or free_port()
        serve = self._serve_environment()
        self.instance.ray_token()
        # Its dashboard listens on sockets in TMPDIR, whose path must be short, and leaves files there.
        temporary = {"TMPDIR": str(self.instance.scratch)}
        starting = background.start(
            "Ray",
            self._command(port),
            log=log,
            environment={
                **self.instance.environment(),
                **serve,
                **environment,
                **stores,
                **temporary,
                **_WORKERS,
            },
            ready=self.answers,
        )
        session = starting.process.pid if starting.process else 0
        record = {
            "address": f"127.0.0.1:{port}",
            "session": session,
            "serve": serve,
            "chosen": {
                "Ray's control service": port,
                "Serve's fallback proxy": int(serve["RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"]),
            },
            "stores": dict(stores),
            "settings": revealed(asked),
        }
        write_private(self._file, record)
        return starting

    def _read(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(self._file.read_text())
        return record

    def _command(self, port: int) -> list[str]:
        settings = self.settings
        return [
            interpreter.plain(self.instance.scratch), "-m", "ray.scripts.scripts", "start", "--head",
            "--disable-usage-stats",
            "--log-color=false",
            "--node-ip-address=127.0.0.1",
            f"--port={port}",
            f"--dashboard-host={settings.host}",
            f"--dashboard-port={settings.port('dashboard')}",
            f"--metrics-export-port={settings.port('metrics')}",
            "--dashboard-agent-listen-port=0",
            "--min-worker-port=0",
            "--max-worker-port=0",
            f"--ray-client-server-port={free_port()}",  # it cannot be switched off, and 0 is refused
            f"--temp-dir={self.instance.scratch / 'ray'}",
            f"--object-store-memory={settings.object_store_bytes}",
        ]  # fmt: skip

    def _serve_environment(self) -> dict[str, str]:
        """Serve behind an HAProxy of this instance's own, at ports of its own."""
        http, grpc = free_range(_REPLICA_PORTS), free_range(_REPLICA_PORTS)
        ports = {
            "DIRECT_INGRESS_MIN_HTTP_PORT": http.start,
            "DIRECT_INGRESS_MAX_HTTP_PORT": http.stop - 2,
            "DIRECT_INGRESS_MIN_GRPC_PORT": grpc.start,
            "DIRECT_INGRESS_MAX_GRPC_PORT": grpc.stop - 2,
            "FALLBACK_PROXY_HTTP_PORT": http.stop - 1,
            "FALLBACK_PROXY_GRPC_PORT": grpc.stop - 1,
        }
        return {
            **haproxy.environment(self.instance.scratch, self.instance.run / "haproxy"),
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",  # a killed HAProxy is back in 6 s, not in 30
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
            **{f"RAY_SERVE_{name}": str(port) for name, port in ports.items()},
        }


def _name(process: psutil.Process) -> str | None:
    """The name of a process; None when it has ended."""
    try:
        return process.name()
    except psutil.Error:
        return None
