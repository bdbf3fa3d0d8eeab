"""The API as it is deployed: Ray Serve behind HAProxy, in a cluster of this module's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from cluster.local import haproxy, interpreter
from cluster.ports import free_port

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(280)]

BODY = {"features": [0.1] * 50}


def behind_haproxy(folder: Path) -> dict[str, str]:
    """Environment of a Serve that gets in no other's way; socket paths must be short."""
    return {
        **haproxy.environment(folder, folder / "haproxy"),
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        **{f"RAY_SERVE_FALLBACK_PROXY_{name}_PORT": str(free_port()) for name in ("HTTP", "GRPC")},
    }


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder with a short name."""
    made = Path(tempfile.mkdtemp(prefix="fs-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def driver(folder: Path, served_database: str, bundle_dir: Path) -> Iterator[tuple[psutil.Process, str]]:
    """The process that everything of the cluster descends from, and the URL of the API."""
    port = free_port()
    (folder / "metrics").mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        **behind_haproxy(folder),
        "FINSIGHT_HOME": str(folder / "home"),
        "FINSIGHT_PROVIDERS": '{"sample": {}}',
        "DATABASE_URL": served_database,
        "MODEL_DIR": str(bundle_dir),
        "METRICS_FOLDER": str(folder / "metrics"),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = [interpreter.plain(folder), "-m", "tests.serve.ray_driver", str(port), str(folder / "ray")]
    with (
        (folder / "driver.log").open("wb") as log,
        subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        family = psutil.Process(process.pid)
        said = next((line for line in process.stdout if line == "ready\n"), None)
        try:
            assert said, (folder / "driver.log").read_text()
            yield family, f"http://127.0.0.1:{port}"
        finally:
            everyone = family.children(recursive=True)
            process.stdin.close()
            process.wait(60)
            _end(everyone)


def _end(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=10)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=10)


def replica(family: psutil.Process) -> psutil.Process | None:
    """The process that answers, while there is one."""
    for process in family.children(recursive=True):
        try:
            if "ServeReplica:finsight:api" in " ".join(process.cmdline()):
                return process
        except psutil.Error:
            continue
    return None


def test_the_deployed_api_answers_what_it_answers_anywhere(driver: tuple[psutil.Process, str]) -> None:
    with httpx.Client(base_url=driver[1], timeout=60) as http:
        by_symbol = http.post("/predict", json={"symbol": "SPX", "return_confidence": True})
        health = http.get("/health/detailed")
        providers = http.get("/stats/providers")
        wrong = http.post("/predict", json={"features": [1.0]})

    assert by_symbol.status_code == 200, by_symbol.text
    assert by_symbol.json()["target_ts"] == "2019-01-02T14:30:00Z"
    assert health.status_code == 200, health.text
    states = {name: each["state"] for name, each in health.json()["data"]["dependencies"].items()}
    assert (states["postgres"], states["ray"], states["sample"]) == ("connected", "connected", "connected")
    assert [(each["provider"], each["state"]) for each in providers.json()["items"]] == [("sample", "CLOSED")]
    assert (wrong.status_code, wrong.headers["content-type"]) == (422, "application/problem+json")
    assert wrong.headers.get_list("x-request-id") == [wrong.json()["request_id"]]


def test_a_killed_replica_comes_back_with_its_model_and_its_counters(
    driver: tuple[psutil.Process, str],
) -> None:
    family, url = driver
    killed = replica(family)
    assert killed is not None
    with httpx.Client(base_url=url, timeout=120) as http:
        assert http.post("/predict", json=BODY).status_code == 200
        before = counted(http)
        killed.kill()
        killed.wait(30)
        healed = next(answer for answer in _asked_again(http) if answer.status_code == 200)
        after = counted(http)

    born = replica(family)
    assert healed.json()["model"]["name"] == "tiny"
    assert born is not None
    assert born.pid != killed.pid
    assert after >= before + 1


def _asked_again(http: httpx.Client) -> Iterator[httpx.Response]:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            yield http.post("/predict", json=BODY)
        except httpx.TransportError:
            time.sleep(0.1)


def counted(http: httpx.Client) -> float:
    """Answered predictions, by all replicas there ever were."""
    page = http.get("/metrics").text
    wanted = ("http_requests_total{", 'route="/predict"', 'status="200"')
    lines = [line for line in page.splitlines() if all(part in line for part in wanted)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)
