"""The commands that ask the API, over a real connection to the real app."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

from cluster.clock import FakeClock
from cluster.local.instance import Instance
from cluster.ports import free_port
from cluster.settings import Settings
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.database import Database
from serve_apps.api import create_app
from tests.commands import finsight
from tests.conftest import execute
from tests.serve.conftest import ADMIN_KEY, MODEL, NOW, USER_KEY, register

pytestmark = pytest.mark.postgres

YEAR = ("--from", "2017-01-01", "--to", "2018-01-01")


@contextmanager
def listening(settings: Settings) -> Iterator[dict[str, str]]:
    """The app on a port of its own; the environment in which commands find it."""
    port = free_port()
    app = create_app(settings, clock=FakeClock(NOW))
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None))
    thread = threading.Thread(target=server.run, name="api")
    thread.start()
    deadline_s = time.monotonic() + 120
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline_s  # noqa: PT018 - one condition
        time.sleep(0.02)
    try:
        yield {"FINSIGHT_HOME": str(settings.home), "FINSIGHT_API_PORT": str(port)}
    finally:
        server.should_exit = True
        thread.join(60)


@pytest.fixture(scope="module")
def served(settings: Settings) -> Iterator[dict[str, str]]:
    """An API with bars and a model."""
    with listening(settings) as environment:
        yield environment


@pytest.fixture
def queued(served: dict[str, str], served_database: str) -> Iterator[dict[str, str]]:
    """The same API with an empty queue, and the administrator's key for it."""
    yield {**served, "ADMIN_API_KEY": ADMIN_KEY}
    execute(served_database, "TRUNCATE backfill_jobs, backfill_attempts")


def test_a_prediction_has_interval_coverage_and_version(served: dict[str, str]) -> None:
    said = finsight("predict", "SPX", "--json", **served)
    found = said.json
    assert (said.status, said.err) == (0, "")
    assert found["lower"] < found["mean"] < found["upper"]
    assert (found["coverage"], found["model"]) == (0.9, {"name": MODEL, "version": "1"})
    assert (found["as_of"], found["target_ts"]) == ("2018-12-31T14:30:00Z", "2019-01-02T14:30:00Z")


def test_people_read_a_prediction_in_percent_and_prices(served: dict[str, str]) -> None:
    found = finsight("predict", "SPX", "--json", **served).json
    text = finsight("predict", "SPX", **served).out
    percent = 100 * (found["price"]["mean"] / 2506.85 - 1)
    assert f"{percent:+.2f}% for the bar of 2019-01-02 14:30Z" in text
    assert f"{100 * math.expm1(found['lower']):+.2f}% to {100 * math.expm1(found['upper']):+.2f}%" in text
    assert f"last close {2506.85:.2f}" in text
    assert "90% interval" in text
    assert f"{MODEL} version 1, ensemble" in text
    assert [line.split()[0] for line in text.splitlines()[-3:]] == ["xgboost", "lstm", "transformer"]


def test_one_member_can_be_asked_alone(served: dict[str, str]) -> None:
    found = finsight("predict", "SPX", "--model-type", "lstm", "--json", **served).json
    assert (found["model_type"], found["mean"]) == ("lstm", found["members"]["lstm"])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("AAPL",), "Symbol AAPL is not in the universe. `finsight symbols` lists those that are."),
        (("IXIC",), "`finsight backfill IXIC --interval 1d` fetches them."),
        (("SPX", "--interval", "1h"), "forecasts 1d bars only"),
    ],
)
def test_what_cannot_be_predicted_says_what_to_do(
    words: tuple[str, ...], text: str, served: dict[str, str]
) -> None:
    said = finsight("predict", *words, "--json", **served)
    assert (said.status, said.out) == (1, "")
    assert text in said.err


def test_models_are_listed_and_shown(served: dict[str, str]) -> None:
    (model,) = finsight("models", "--json", **served).json
    assert (model["name"], model["aliases"], model["serving"]) == (MODEL, {"champion": "1"}, "1")

    shown = finsight("models", "show", "--json", **served).json
    assert [each["version"] for each in shown["versions"]][-1] == "1"
    assert shown["version"]["signature"]["window"] == 16

    text = finsight("models", "show", MODEL, **served).out
    assert "champion = 1" in text
    assert "metrics.mae" in text


def test_an_unknown_model_is_an_error(served: dict[str, str]) -> None:
    said = finsight("models", "show", "un/heard of", **served)
    assert (said.status, said.out) == (1, "")
    said = finsight("models", "show", "unheard-of", **served)
    assert "model unheard-of is not registered" in said.err


@pytest.fixture(scope="module")
def two_versions(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A registry of its own with two versions."""
    from mlflow import MlflowClient

    from training import registry

    tmp_path = tmp_path_factory.mktemp("two versions")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    MlflowClient(uri).create_experiment(registry.EXPERIMENT, artifact_location=str(tmp_path / "artifacts"))
    assert [register(bundle_dir, uri), register(bundle_dir, uri)] == ["1", "2"]
    return {"MLFLOW_TRACKING_URI": uri, "FINSIGHT_HOME": str(tmp_path)}


def test_promoting_moves_the_champion_and_back(two_versions: dict[str, str]) -> None:
    from training import registry

    said = [finsight("models", "promote", version, **two_versions) for version in ("2", "1", "1")]

    assert [each.out.strip() for each in said] == [
        f"{MODEL} version 2 is the champion; before it was none.",
        f"{MODEL} version 1 is the champion; before it was 2.",
        f"{MODEL} version 1 is the champion already.",
    ]
    assert registry.champion(MODEL, two_versions["MLFLOW_TRACKING_URI"]) == "1"


@pytest.mark.parametrize("words", [("3",), ("1", "--name", "unheard-of")])
def test_promoting_what_is_not_there_changes_nothing(
    words: tuple[str, ...], two_versions: dict[str, str]
) -> None:
    from training import registry

    uri = two_versions["MLFLOW_TRACKING_URI"]
    before = registry.champion(MODEL, uri)
    said = finsight("models", "promote", *words, **two_versions)
    assert (said.status, said.out) == (1, "")
    assert "`finsight models`" in said.err
    assert registry.champion(MODEL, uri) == before


def test_a_range_is_queued_once(queued: dict[str, str]) -> None:
    (job,) = finsight("backfill", "SPX", *YEAR, "--tier", "T1", "--json", **queued).json
    assert {name: job[name] for name in ("symbol", "interval", "start", "end", "priority", "state")} == {
        "symbol": "SPX",
        "interval": "1d",
        "start": "2017-01-01T00:00:00Z",
        "end": "2018-01-01T00:00:00Z",
        "priority": "T1",
        "state": "ready",
    }
    again = finsight("backfill", "SPX", *YEAR, **queued)
    assert again.out.splitlines()[1].split()[:4] == [str(job["id"]), "SPX", "1d", "2017-01-01"]


def test_without_a_range_the_whole_history_is_queued_and_the_same_again_finds_it(
    queued: dict[str, str],
) -> None:
    first = finsight("backfill", "SPX", "--json", **queued).json
    assert finsight("backfill", "SPX", "--json", **queued).json == first
    assert [job["start"] for job in first[1:]] == [job["end"] for job in first[:-1]]
    assert int(first[-1]["end"][:4]) - int(first[0]["start"][:4]) in (29, 30)


def test_the_key_of_the_embedded_instance_is_found(queued: dict[str, str], tmp_path: Path) -> None:
    instance = Instance(tmp_path)
    instance.run.mkdir()
    instance.write_endpoints({"admin_api_key": ADMIN_KEY})
    environment = {**queued, "ADMIN_API_KEY": "", "FINSIGHT_HOME": str(tmp_path)}
    assert finsight("backfill", "SPX", *YEAR, **environment).status == 0


@pytest.mark.parametrize(
    ("key", "text"),
    [("", "set ADMIN_API_KEY"), ("wrong", "A known key is needed"), (USER_KEY, "lacks the scope `admin`")],
)
def test_only_an_administrator_may_queue(key: str, text: str, queued: dict[str, str], tmp_path: Path) -> None:
    environment = {**queued, "ADMIN_API_KEY": key, "FINSIGHT_HOME": str(tmp_path)}
    said = finsight("backfill", "SPX", *YEAR, **environment)
    assert (said.status, said.out) == (1, "")
    assert text in said.err
    assert not key or key not in said.err.split()


def test_a_refused_range_says_why(queued: dict[str, str]) -> None:
    said = finsight("backfill", "SPX", "--from", "2998-01-01", "--to", "2999-01-01", **queued)
    assert (said.status, said.out) == (1, "")
    assert "lies in the future" in said.err


@contextmanager
def worked(dsn: str, *, reason: str | None) -> Iterator[None]:
    """Somebody who takes one job as soon as there is one, and finishes it, or gives it up for `reason`."""
    thread = threading.Thread(target=lambda: asyncio.run(_work(dsn, reason)), name="worker")
    thread.start()
    yield
    thread.join(120)


async def _work(dsn: str, reason: str | None) -> None:
    database = await Database.open(dsn, max_size=1)
    queue = BackfillQueue(database)
    try:
        async with asyncio.timeout(100):
            leases = await queue.claim("test", 1)
            while not leases:
                await asyncio.sleep(0.05)
                leases = await queue.claim("test", 1)
        if reason is None:
            await queue.complete_many([(leases[0], 251)])
        else:
            await queue.fail(leases[0], reason, retry_in_s=None)
    finally:
        await database.close()


def test_waiting_ends_when_the_bars_are_there(queued: dict[str, str], served_database: str) -> None:
    with worked(served_database, reason=None):
        said = finsight("backfill", "SPX", *YEAR, "--wait", "--json", **queued)
    assert [(job["state"], job["rows_written"]) for job in said.json] == [("done", 251)]
    assert "1 of 1 jobs, 251 bars written" in said.err


def test_a_job_that_is_given_up_is_a_failure_with_its_reason(
    queued: dict[str, str], served_database: str
) -> None:
    with worked(served_database, reason="the provider does not know it"):
        said = finsight("backfill", "SPX", *YEAR, "--wait", "--json", **queued)
    (job,) = said.json
    assert (said.status, job["state"], job["reason"]) == (1, "dead", "the provider does not know it")
    assert "1 of 1 jobs were given up" in said.err


def test_waiting_has_an_end(queued: dict[str, str]) -> None:
    said = finsight("backfill", "SPX", *YEAR, "--wait", "--timeout-s", "1", **queued)
    assert (said.status, said.out) == (1, "")
    assert "Not finished within 1 s; the jobs stay queued" in said.err
