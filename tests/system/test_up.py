"""`finsight up`, `status`, `down` and what they promise. The tests are steps of one life, in this order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
import pytest

from cluster.local.instance import Instance
from cluster.local.mlflow_server import MlflowServer
from cluster.market.intervals import Interval
from cluster.settings import load
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_records import JobStatus
from cluster.storage.database import Database
from cluster.storage.embedded.postgres import EmbeddedPostgres
from cluster.storage.embedded.valkey import EmbeddedValkey
from tests.system.conftest import Whole

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(500)]

JOBS = ["evaluate", "features", "ingest", "train"]


def interrupt_at(process: subprocess.Popen[str], words: str) -> tuple[int, str]:
    """Press Ctrl-C when the start says these words; its exit status and what it said."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if words in line:
            process.send_signal(signal.SIGINT)
            break
    with process:
        said += process.stderr.read()
    return process.returncode, said


def until(condition: Callable[[], bool], timeout_s: float = 120) -> None:
    """Wait for what must become true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.3)


def is_served(finsight: Whole) -> bool:
    answer = finsight.predict({"symbol": "SPX"})
    return answer is not None and answer.status_code == httpx.codes.OK


def test_a_start_goes_on_where_ctrl_c_has_stopped_it(finsight: Whole) -> None:
    early = interrupt_at(finsight.start("up"), "PostgreSQL and Valkey")
    late = interrupt_at(finsight.start("up"), "(final, ")
    ready = finsight.json("up")

    assert early[0] == late[0] == 130, (early, late)
    assert "`finsight up` goes on from here" in early[1]
    assert ready["prediction"]["model"] == {"name": "finsight-1d", "version": "1"}
    jobs = finsight.json("jobs", "list")
    assert sorted(job["job"] for job in jobs) == JOBS
    assert {job["status"] for job in jobs} == {"SUCCEEDED"}


def test_a_prediction_has_an_interval_a_coverage_level_and_a_model_version(finsight: Whole) -> None:
    answer = finsight.json("predict", "SPX")

    assert answer["lower"] < answer["mean"] < answer["upper"]
    assert answer["coverage"] == 0.9
    assert answer["model"] == {"name": "finsight-1d", "version": "1"}
    assert (answer["symbol"], answer["as_of"]) == ("SPX", "2018-12-31T14:30:00Z")


def test_a_symbol_that_nobody_knows_is_a_sentence_and_exit_status_1(finsight: Whole) -> None:
    failed = finsight.run("predict", "NOBODY", status=1)

    assert failed.stdout == ""
    assert "NOBODY" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    "path",
    [
        "/health", "/health/detailed", "/metrics", "/docs", "/redoc", "/openapi.json", "/models",
        "/models/finsight-1d", "/models/finsight-1d/versions", "/stats/providers", "/stats/cadence",
        "/ops/backfill/1",
    ],
)  # fmt: skip
def test_every_path_answers(finsight: Whole, path: str) -> None:
    answer = httpx.get(finsight.url + path, timeout=30)

    assert answer.status_code == httpx.codes.OK, answer.text


def test_what_jobs_count_is_on_the_page_too(finsight: Whole) -> None:
    page = httpx.get(f"{finsight.url}/metrics", timeout=30).text

    counted = [line for line in page.splitlines() if line.startswith('gaps_found_total{interval="1d"}')]
    # The whole history of two symbols by the job, and what the watch over gaps has found since.
    assert [float(line.split()[1]) >= 2 for line in counted] == [True], counted


def test_every_port_is_open_to_this_machine_only(finsight: Whole) -> None:
    home = str(finsight.home)
    servers = [one for one in psutil.process_iter(["cmdline"]) if home in " ".join(one.info["cmdline"] or ())]
    found = set()
    for process in {*finsight.instance.processes(), *servers}:
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= {
                (process.name(), each.laddr.ip.removeprefix("::ffff:"))
                for each in process.net_connections("inet")
                if each.status == psutil.CONN_LISTEN or (each.type == socket.SOCK_DGRAM and each.laddr)
            }

    assert {"haproxy", "gcs_server", "raylet", "postgres", "valkey-server"} <= {name for name, _ in found}
    assert [each for each in sorted(found) if each[1] not in {"127.0.0.1", "::1"}] == []


def test_status_shows_every_part_and_what_is_stored(finsight: Whole) -> None:
    status = finsight.json("status")

    assert {part["name"]: part["state"] for part in status["parts"]} == dict.fromkeys(
        [
            "postgres", "redis", "ray", "gateway:sample", "gateway:synthetic", "backfill:0", "collector:0",
            "duties", "mlflow", "api", "model",
        ],
        "up",
    )  # fmt: skip
    assert status["contents"]["symbols"] == 2
    assert status["contents"]["daily_bars"] == status["contents"]["feature_rows"] == 10_062
    password = Path(finsight.home, "postgres", "password").read_text()
    assert password not in str(status)


def test_a_backfill_is_queued_once_and_done(finsight: Whole) -> None:
    asked = ("backfill", "SPX", "--interval", "1d", "--from", "2010-01-01", "--to", "2010-02-01", "--wait")
    jobs = finsight.json(*asked)

    assert [job["state"] for job in jobs] == ["done"], jobs


def test_a_second_start_changes_nothing(finsight: Whole) -> None:
    before = {process.pid for process in finsight.instance.processes()}
    with finsight.start("up", "--json") as other:
        ready = finsight.json("up")
        other.communicate(timeout=120)

    assert other.returncode == 0
    assert ready["prediction"]["model"]["version"] == "1"
    assert before <= {process.pid for process in finsight.instance.processes()}
    assert sorted(job["job"] for job in finsight.json("jobs", "list")) == JOBS


def test_a_port_that_is_taken_is_an_error_that_names_who_holds_it(finsight: Whole, tmp_path: Path) -> None:
    other = Whole(tmp_path / "other", finsight.ports)
    failed = other.run("up", status=1)

    assert f"Port {finsight.ports['API']} (the HTTP API) is taken by haproxy (pid " in failed.stderr
    assert "FINSIGHT_API_PORT=" in failed.stderr
    assert list(other.instance.processes()) == []
    assert not EmbeddedPostgres(other.home).running()


@pytest.mark.chaos
@pytest.mark.parametrize(
    "title",
    ["ray::GatewayActor", "ray::BackfillActor", "ray::ServeReplica:finsight:api", "ray::ServeController"],
)
def test_a_killed_actor_or_replica_heals_without_a_hand(finsight: Whole, title: str) -> None:
    killed = finsight.processes(title)
    assert killed
    for process in killed:
        process.kill()
    psutil.wait_procs(killed, timeout=30)

    until(lambda: len(finsight.processes(title)) >= len(killed))
    until(lambda: is_served(finsight))
    until(finsight.says_it_is_up)


@pytest.mark.chaos
@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_killed_raylet_or_gcs_is_healed_by_up_which_finds_every_job_and_bar_again(
    finsight: Whole, name: str
) -> None:
    held = finsight.json("status")["contents"]
    [victim] = [process for process in finsight.instance.processes() if process.name() == name]
    jobs = asyncio.run(lose_and_ask_for(finsight, "SPX"))
    victim.kill()
    assert {job.state for job in jobs} == {"ready"}  # nobody had begun: they are at work while it dies
    until(lambda: not finsight.says_it_is_up())
    finsight.run("up")

    until(lambda: all(state_of(finsight, job.id) == "done" for job in jobs))
    asked = ("backfill", "SPX", "--interval", "1d", "--from", "2018-01-01", "--to", "2018-12-01", "--wait")
    assert [job["state"] for job in finsight.json(*asked)] == ["done"]
    assert is_served(finsight)
    now = finsight.json("status")["contents"]
    assert (now["symbols"], now["daily_bars"]) == (held["symbols"], held["daily_bars"])


async def lose_and_ask_for(finsight: Whole, symbol: str) -> list[JobStatus]:
    """Delete its daily bars and queue them again, much faster than the command line does."""
    endpoints = json.loads((finsight.home / "run" / "endpoints.json").read_text())
    database = await Database.open(endpoints["database_url"], max_size=1)
    try:
        await database.pool.execute("DELETE FROM candles_daily WHERE symbol = $1", symbol)
        start, end = datetime(1999, 1, 1, tzinfo=UTC), datetime(2019, 1, 1, tzinfo=UTC)
        return await BackfillQueue(database).enqueue(symbol, Interval.D1, start, end)
    finally:
        await database.close()


def state_of(finsight: Whole, job: int) -> str:
    """Of a backfill job."""
    return str(httpx.get(f"{finsight.url}/ops/backfill/{job}", timeout=30).json()["state"])


@pytest.mark.chaos
def test_a_killed_database_and_mlflow_are_started_again_by_up_with_all_they_held(finsight: Whole) -> None:
    held = finsight.json("status")["contents"]
    server = MlflowServer(finsight.instance, load()).process()
    assert server is not None
    server.kill()
    postmaster = finsight.home / "postgres" / "data" / "postmaster.pid"
    psutil.Process(int(postmaster.read_text().split()[0])).kill()
    until(lambda: not finsight.says_it_is_up())
    finsight.run("up")

    now = finsight.json("status")["contents"]
    assert now["daily_bars"] == held["daily_bars"]
    assert now["predictions"] > held["predictions"] > 0


def test_down_leaves_no_process_and_loses_nothing(finsight: Whole) -> None:
    held = finsight.json("status")["contents"]
    finsight.run("down")

    assert list(finsight.instance.processes()) == []
    assert not EmbeddedPostgres(finsight.home).running()
    assert not EmbeddedValkey(finsight.home).running()
    assert not Instance(finsight.home).scratch.exists()
    status = finsight.json("status", status=1)
    assert {part["state"] for part in status["parts"]} == {"down"}

    ready = finsight.json("up")

    assert ready["prediction"]["model"]["version"] == "1"
    assert finsight.json("jobs", "list") == []  # nothing had to be done anew
    now = finsight.json("status")["contents"]
    assert now["daily_bars"] == held["daily_bars"]
    assert now["predictions"] == held["predictions"] + 1
