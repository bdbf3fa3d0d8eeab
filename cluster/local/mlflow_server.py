"""The MLflow server of this machine: its store in our PostgreSQL, its files under the home folder."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from cluster.local import background
from cluster.local.instance import Instance
from cluster.settings import Settings

DATABASE = "mlflow"
"""Its database; MLflow migrates that by itself."""

_ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # would start a scheduler and its workers
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


@dataclass(frozen=True)
class MlflowServer:
    """MLflow of one instance."""

    instance: Instance
    settings: Settings

    @property
    def uri(self) -> str:
        """Where clients reach it."""
        return self.settings.url("mlflow")

    def process(self) -> psutil.Process | None:
        """The server's first process, while it lives."""
        for process in self.instance.processes():
            try:
                command = process.cmdline()
            except psutil.Error:
                continue
            if "mlflow" in command and self._artifacts in command:
                return process
        return None

    def answers(self) -> bool:
        """Whether it can be asked."""
        try:
            answer = httpx.get(f"{self.uri}/health", timeout=5, trust_env=False)
            return answer.status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def start(self, store_dsn: str) -> background.Starting:
        """Start the server unless it runs; `store_dsn` names a PostgreSQL database of its own."""
        log: Path = self.instance.logs / "mlflow.log"
        if self.process() is not None:
            return background.Starting("MLflow", log, self.answers)
        # In the environment, because every user of the machine sees command lines. MLflow takes the bare
        # scheme for psycopg 3.
        store = store_dsn.replace("postgresql://", "postgresql+psycopg2://", 1)
        return background.start(
            "MLflow",
            self._command(),
            log=log,
            environment={**self.instance.environment(), **_ENVIRONMENT, "MLFLOW_BACKEND_STORE_URI": store},
            ready=self.answers,
        )

    @property
    def _artifacts(self) -> str:
        return str(self.instance.home / "artifacts")

    def _command(self) -> list[str]:
        return [
            sys.executable, "-m", "mlflow", "server",
            "--artifacts-destination", self._artifacts,
            "--serve-artifacts",
            "--host", "127.0.0.1",  # it knows no key
            "--port", str(self.settings.port("mlflow")),
            "--workers", "1",
        ]  # fmt: skip
