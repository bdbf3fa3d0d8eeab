"""One whole FinSight for the tests of this folder, driven by its own command line as a user does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from cluster.local.instance import Instance
from cluster.ports import free_port

PORTS = ("API", "DASHBOARD", "MLFLOW", "METRICS")


@dataclass(frozen=True)
class Whole:
    """A FinSight of a home folder and ports of its own."""

    home: Path
    ports: dict[str, int]

    @property
    def environment(self) -> dict[str, str]:
        """Of every command."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("FINSIGHT_", "RAY_", "MLFLOW_", "DATABASE_URL", "REDIS_URL", "OMP_"))
        }
        ports = {f"FINSIGHT_{name}_PORT": str(port) for name, port in self.ports.items()}
        soon = {"FINSIGHT_GAP_SCAN_S": "5"}  # nobody waits a minute for what is looked for
        return {**inherited, **ports, **soon, "FINSIGHT_HOME": str(self.home), "NO_COLOR": "1"}

    @property
    def instance(self) -> Instance:
        """Its folders and processes."""
        return Instance(self.home)

    @property
    def url(self) -> str:
        """Of its API."""
        return f"http://127.0.0.1:{self.ports['API']}"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(
            [str(Path(sys.executable).parent / "finsight"), *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *arguments: str, status: int = 0, timeout_s: float = 280
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, which must have this exit `status`."""
        with self.start(*arguments) as process:
            try:
                out, err = process.communicate(timeout=timeout_s)
            finally:
                process.kill()
        assert process.returncode == status, f"{arguments}: {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def json(self, *arguments: str, status: int = 0) -> Any:
        """What a command answers with `--json`."""
        return json.loads(self.run(*arguments, "--json", status=status).stdout)

    def says_it_is_up(self) -> bool:
        """What `status` thinks."""
        with self.start("status") as process:
            process.communicate(timeout=120)
        return process.returncode == 0

    def processes(self, title: str) -> list[psutil.Process]:
        """Its processes whose command line starts with `title`."""
        found = []
        for process in self.instance.processes():
            try:
                if " ".join(process.cmdline()).startswith(title):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def predict(self, body: dict[str, Any]) -> httpx.Response | None:
        """The API's answer; None while nobody listens."""
        try:
            return httpx.post(f"{self.url}/predict", json=body, timeout=10)
        except httpx.TransportError:
            return None


@pytest.fixture(scope="session")
def finsight() -> Iterator[Whole]:
    """An instance in a folder with a space in its name; stopped at the end, however far it came."""
    home = Path(tempfile.mkdtemp(prefix="finsight home "))
    made = Whole(home, {name: free_port() for name in PORTS})
    try:
        yield made
    finally:
        made.run("down", timeout_s=120)
        shutil.rmtree(home, ignore_errors=True)
