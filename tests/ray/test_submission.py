"""Jobs on a Ray of these tests' own, which asks for a token."""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.errors import ConfigError, NotReady, NotRunning
from cluster.local import interpreter
from cluster.ports import free_port
from cluster.submission import Progress, Submissions
from tests.conftest import execute

pytestmark = [pytest.mark.ray, pytest.mark.postgres]

DEADLINE_S = 120.0


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a token."""
    file = tmp_path_factory.mktemp("token") / "ray-token"
    file.write_text(secrets.token_hex(24))
    return file


@pytest.fixture(scope="module")
def dashboard(token: Path, postgres_dsn: str, template_database: str) -> Iterator[str]:
    """URL of the dashboard of a Ray head in a process of its own; its jobs see an empty, migrated store."""
    port, url = free_port(), ""
    # A copy: what its jobs store must not get into the databases of other tests
    execute(postgres_dsn, f"CREATE DATABASE submission TEMPLATE {template_database} STRATEGY FILE_COPY")
    with tempfile.TemporaryDirectory(prefix="fs-", ignore_cleanup_errors=True) as folder:  # paths of sockets
        environment = os.environ | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "DATABASE_URL": postgres_dsn.rpartition("/")[0] + "/submission",
            "FINSIGHT_HOME": folder,
            "RAY_JOB_STOP_WAIT_TIME_S": "60",  # a busy machine needs longer than 3 s
        }
        command = [
            interpreter.plain(Path(folder)), "-m", "ray.scripts.scripts", "start", "--head", "--block",
            "--disable-usage-stats", "--num-cpus=1", "--node-ip-address=127.0.0.1",
            f"--port={free_port()}", f"--dashboard-port={port}", f"--metrics-export-port={free_port()}",
            f"--ray-client-server-port={free_port()}", "--dashboard-agent-listen-port=0",
            "--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=100000000",
            f"--temp-dir={folder}/ray",
        ]  # fmt: skip
        url = f"http://127.0.0.1:{port}"
        with (
            Path(folder, "ray.log").open("w") as log,
            subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT) as head,
        ):
            yield url
            head.terminate()
            head.wait(60)
    execute(postgres_dsn, "DROP DATABASE submission WITH (FORCE)")


@pytest.fixture
def submissions(dashboard: str, token: Path, monkeypatch: pytest.MonkeyPatch) -> Submissions:
    """A client with the token."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    client = Submissions(dashboard, poll_s=0.1, patience_s=DEADLINE_S)
    client._patiently(client.listed)  # until the dashboard is up
    return client


def running(submissions: Submissions, submission_id: str) -> None:
    """Wait until the job says something."""
    deadline_s = time.monotonic() + DEADLINE_S
    while '"progress"' not in submissions.logs(submission_id):
        assert time.monotonic() < deadline_s, submissions.logs(submission_id)
        time.sleep(0.1)


def test_a_job_succeeds_with_its_result(submissions: Submissions) -> None:
    talk: list[str] = []
    submission_id = submissions.submit("features", ["--interval", "1h"])
    outcome = submissions.follow(submission_id, on_talk=talk.append)
    assert outcome.ok, submissions.logs(submission_id)
    assert outcome.result is not None
    assert (outcome.result["interval"], outcome.result["symbols"]) == ("1h", {})
    assert talk == []
    [first] = [one for one in submissions.listed() if one.submission_id == submission_id]
    assert (first.job, first.arguments, first.status) == ("features", "--interval 1h", "SUCCEEDED")
    assert first.started_at is not None
    assert first.ended_at is not None
    assert first.started_at < first.ended_at


def test_a_job_fails_with_its_own_words(submissions: Submissions) -> None:
    talk: list[str] = []
    outcome = submissions.follow(submissions.submit("features", ["NOPE"]), on_talk=talk.append)
    assert (outcome.status, outcome.ok, outcome.result) == ("FAILED", False, None)
    assert outcome.message == "not in the symbol universe: NOPE; see `finsight symbols`"
    assert talk == [outcome.message]


def test_wrong_usage_fails_with_what_is_wrong(submissions: Submissions) -> None:
    outcome = submissions.follow(submissions.submit("train", ["--size", "it's; huge"]))
    assert outcome.status == "FAILED"
    assert "it's; huge" in outcome.message


def test_the_same_job_is_found_while_it_runs_and_can_be_stopped(submissions: Submissions) -> None:
    """Nobody fetches bars here, so the job waits. It must be ended by SIGTERM, not killed later."""
    words = ["--start", "2018-12-01"]
    first = submissions.submit("ingest", words)
    running(submissions, first)
    assert submissions.submit("ingest", words) == first
    assert submissions.listed()[0].status == "RUNNING"
    progress: list[Progress] = []
    submissions.stop(first)
    outcome = submissions.follow(first, on_progress=progress.append)
    assert (outcome.status, outcome.ok) == ("STOPPED", False)
    assert progress[0] == Progress(0.0, "looking for gaps of IXIC")
    assert submissions.logs(first).endswith("stopped\n")
    second = submissions.submit("ingest", words)
    assert second != first
    submissions.stop(second)
    assert submissions.follow(second).status == "STOPPED"


def test_those_who_ask_for_the_same_at_the_same_moment_get_one_job(submissions: Submissions) -> None:
    words = ["--interval", "30m"]
    with ThreadPoolExecutor(4) as pool:
        ids = set(pool.map(lambda _: submissions.submit("features", words), range(4)))
    [only] = ids
    assert submissions.follow(only).ok
    assert [one.submission_id for one in submissions.listed() if one.arguments == "--interval 30m"] == [only]


def test_an_unknown_job_is_not_waited_for(submissions: Submissions) -> None:
    for ask in (submissions.get, submissions.logs, submissions.stop, submissions.follow):
        with pytest.raises(NotReady, match="knows no train-1"):
            ask("train-1")


def test_a_wrong_token_is_refused_at_once(
    submissions: Submissions, dashboard: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text(secrets.token_hex(24))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(wrong))
    with pytest.raises(ConfigError, match="refuses the token"):
        Submissions(dashboard).follow("train-1")
    monkeypatch.delenv("RAY_AUTH_MODE")
    with pytest.raises(ConfigError, match="refuses the token"):
        Submissions(dashboard).listed()


def test_a_dashboard_that_stays_away_is_given_up(
    submissions: Submissions, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Submissions(f"http://127.0.0.1:{free_port()}", poll_s=0.05, patience_s=0.3)
    with pytest.raises(NotRunning, match="does not answer"):
        away.follow("train-1")
