"""The two jobs as the processes that they are, on real files of MLflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.ports import free_port
from cluster.providers.synthetic import SyntheticProvider
from cluster.storage import bars, universe
from cluster.storage.database import Database

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

SYMBOLS = ("SYN0001", "SYN0002")
START, END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2023, 1, 1, tzinfo=UTC)


@pytest.fixture
async def environment(database: Database, tmp_path: Path) -> dict[str, str]:
    """Three years of daily bars of two symbols, a few of a third; an MLflow store beside them."""
    from mlflow import MlflowClient

    provider = SyntheticProvider(seed=3)
    for symbol in (*SYMBOLS, "SYN0003"):
        end = END if symbol in SYMBOLS else datetime(2020, 3, 1, tzinfo=UTC)
        await universe.add(database, Instrument(symbol, "SYNTHETIC", "crypto", "24/7"))
        async with database.transaction() as connection:
            await bars.write(connection, await provider.bars(symbol, Interval.D1, START, end))
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri)
    client.create_experiment("finsight-training", artifact_location=str(tmp_path / "artifacts"))
    return {
        **os.environ,
        "DATABASE_URL": database.dsn,
        "MLFLOW_TRACKING_URI": uri,
        "FINSIGHT_HOME": str(tmp_path / "a home"),
    }


def job(
    name: str, environment: dict[str, str], *arguments: str
) -> tuple[int, list[dict[str, Any]], dict[str, Any], str]:
    """Exit status, what was said before the end, the last word, and the talk."""
    done = subprocess.run(
        [sys.executable, "-m", f"jobs.{name}", *arguments],
        env=environment, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    *before, last = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, before, last, done.stderr


def test_a_model_is_trained_registered_judged_and_promoted_once(
    environment: dict[str, str], tmp_path: Path
) -> None:
    status, progress, last, talk = job("train", environment, "--size", "small", "--seed", "5")
    assert status == 0, talk
    trained = last["result"]
    assert (trained["name"], trained["version"]) == ("finsight-1d", "1")
    assert trained["symbols"] == list(SYMBOLS)  # the third is too short, which is said
    assert "SYN0003" in talk
    shares = [each["progress"] for each in progress]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert set(trained["seconds"]) == {"bars", "imports", "features", "training", "registration"}
    assert list((tmp_path / "a home" / "training").iterdir()) == []

    status, _, last, talk = job("evaluate", environment)
    assert status == 0, talk
    first = last["result"]
    assert (first["promoted"], first["champion_before"]) == (True, None)
    assert first["why"] == "there was no champion"
    ensemble = first["report"]["models"]["ensemble"]
    assert {name: trained["metrics"][name] for name in ensemble} == pytest.approx(ensemble)
    assert "test rows" in talk

    status, _, last, _ = job("train", environment, "--size", "small", "--seed", "5", "--symbols", "SYN0002")
    assert (status, last["result"]["version"]) == (0, "2")
    status, _, last, _ = job("evaluate", environment)
    compared = last["result"]
    new, old = (compared[key]["models"]["ensemble"] for key in ("report", "champion_report"))
    better = all(new[name] <= old[name] for name in ("rmse", "winkler")) and new != old
    assert (status, compared["version"], compared["champion_before"]) == (0, "2", "1")
    assert compared["promoted"] is better
    assert compared["report"]["rows"] == compared["champion_report"]["rows"]


def test_what_is_missing_is_told_before_anything_is_trained(environment: dict[str, str]) -> None:
    status, _, last, _ = job("train", environment, "--symbols", "SYN0003")
    assert status == 1
    assert last["error"].startswith(
        "SYN0003 has 60 stored 1d bars, 512 are needed; `finsight backfill SYN0003"
    )

    uri = f"http://127.0.0.1:{free_port()}"
    retry = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    status, said, last, _ = job("train", {**environment, **retry, "MLFLOW_TRACKING_URI": uri})
    assert status == 1
    assert f"MLflow at {uri} does not answer" in last["error"]
    assert not any("registered" in each["what"] for each in said)
