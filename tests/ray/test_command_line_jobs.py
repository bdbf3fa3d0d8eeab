"""The commands that submit a job, on a Ray with a dashboard behind a token, as `finsight up` starts it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.local import processes
from cluster.local.instance import Instance
from cluster.local.ray_head import RayHead
from cluster.ports import free_port
from cluster.settings import load
from tests.commands import finsight
from tests.conftest import execute

pytestmark = [pytest.mark.ray, pytest.mark.postgres, pytest.mark.slow]

IN_UNIVERSE = """
INSERT INTO symbol_universe (symbol, exchange, asset_type, calendar) VALUES ('SPX', 'INDEX', 'index', 'XNYS')
"""


@pytest.fixture(scope="module")
def cluster(servers_home: Path, postgres_dsn: str, template_database: str) -> Iterator[dict[str, str]]:
    """The environment of commands, with a Ray whose jobs have an empty database."""
    execute(postgres_dsn, f"CREATE DATABASE command_line TEMPLATE {template_database} STRATEGY FILE_COPY")
    dsn = postgres_dsn.rpartition("/")[0] + "/command_line"
    execute(dsn, IN_UNIVERSE)
    names = ("DASHBOARD", "METRICS", "API", "MLFLOW")
    environment = {
        "FINSIGHT_HOME": str(servers_home / "command line"),
        "DATABASE_URL": dsn,
        **{f"FINSIGHT_{name}_PORT": str(free_port()) for name in names},
    }
    settings = load(instance=False, environ=environment)
    instance = Instance(settings.home)
    instance.prepare()
    head = RayHead(instance, settings)
    try:
        starting = head.start({"DATABASE_URL": dsn}, {}, settings)
        starting.wait(180)
        assert starting.process is not None
        starting.process.wait(60)  # what starts Ray is not Ray itself
        yield environment
    finally:
        processes.end(head.remains(), grace_s=1)
        shutil.rmtree(instance.scratch, ignore_errors=True)
        execute(postgres_dsn, "DROP DATABASE command_line WITH (FORCE)")


def waits(environment: dict[str, str], symbol: str) -> str:
    """Id of a job that runs on: it waits for bars that nobody fetches."""
    words = ("ingest", "--symbols", symbol, "--no-wait", "--json")
    submitted = finsight(*words, **environment).json["submission_id"]
    assert isinstance(submitted, str)
    return submitted


def status_of(submission_id: str, environment: dict[str, str]) -> str:
    (job,) = [
        job for job in finsight("jobs", "--json", **environment).json if job["submission_id"] == submission_id
    ]
    return str(job["status"])


def test_a_job_is_followed_to_its_result(cluster: dict[str, str]) -> None:
    said = finsight("features", "--json", **cluster)

    assert (said.status, said.json["interval"]) == (0, "1d"), said.err
    submission_id = said.json["submission_id"]
    assert f"Job {submission_id}" in said.err
    assert status_of(submission_id, cluster) == "SUCCEEDED"
    assert '{"result": ' in finsight("jobs", "logs", submission_id, **cluster).out
    assert finsight("jobs", "logs", submission_id, "--follow", **cluster).status == 0
    assert "had ended before: SUCCEEDED" in finsight("jobs", "stop", submission_id, **cluster).out


def test_a_job_that_fails_is_a_failure_in_its_own_words(cluster: dict[str, str]) -> None:
    said = finsight("ingest", "--provider", "nope", **cluster)

    assert (said.status, said.out) == (1, "")
    assert said.err.count("provider 'nope' is not known; known are ") == 1
    assert "`finsight jobs logs ingest-" in said.err


def test_a_job_that_was_not_waited_for_can_be_stopped(cluster: dict[str, str]) -> None:
    submission_id = waits(cluster, "SPX")
    assert waits(cluster, "SPX") == submission_id

    stopping = finsight("jobs", "stop", submission_id, "--json", **cluster)
    followed = finsight("jobs", "logs", submission_id, "-f", **cluster)

    assert stopping.json == {"submission_id": submission_id, "stopping": True}
    assert followed.status == 1
    assert "was stopped before its end" in followed.err


def test_ctrl_c_ends_the_looking_on_and_not_the_job(cluster: dict[str, str], tmp_path: Path) -> None:
    submission_id = waits(cluster, "IXIC")
    talk = tmp_path / "talk"
    program = "from cluster.cli.main import main; main()"
    with talk.open("w") as err:
        looking = subprocess.Popen(
            [sys.executable, "-c", program, "jobs", "logs", "-f", submission_id],
            env={**os.environ, **cluster},
            stderr=err,
        )
    _until(lambda: "%" in talk.read_text())  # progress: it follows

    looking.send_signal(signal.SIGINT)

    assert looking.wait(60) == 130
    assert f"The job goes on. `finsight jobs logs {submission_id}`" in talk.read_text()
    assert status_of(submission_id, cluster) == "RUNNING"
    assert finsight("jobs", "stop", submission_id, **cluster).status == 0


def _until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_an_id_that_nobody_knows_is_an_error(cluster: dict[str, str]) -> None:
    for words in (("logs", "train-1"), ("stop", "train-1")):
        said = finsight("jobs", *words, **cluster)
        assert (said.status, said.out) == (1, "")
        assert "train-1" in said.err
