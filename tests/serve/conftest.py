"""The API in this process, with a real database, a real registry and a tiny model trained on real bars."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from cluster.clock import FakeClock
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.providers.sample import SampleProvider
from cluster.settings import Settings, load
from cluster.storage import bars as stored_bars
from cluster.storage import universe
from cluster.storage.database import Database
from cluster.storage.embedded.postgres import EmbeddedPostgres
from serve_apps.api import create_app
from tests.conftest import execute
from training import bundle, predictor, registry, train
from training.config import (
    FittingConfig,
    LstmConfig,
    SplitConfig,
    TrainConfig,
    TransformerConfig,
    XgboostConfig,
)
from training.datasets import assemble
from training.predictor import Predictor

ADMIN_KEY = "an administrator's key"
USER_KEY = "a user's key"
MODEL = "finsight-1d"
NOW = datetime(2019, 1, 5, 12, tzinfo=UTC)

_TINY = TrainConfig(
    window=16,
    golden_windows=4,
    selection_rounds=5,
    split=SplitConfig(folds=2),
    xgboost=XgboostConfig(rounds=5, depth=2, eta=0.3, min_child_weight=20),
    lstm=LstmConfig(hidden=4, layers=1),
    transformer=TransformerConfig(width=4, heads=1, blocks=1, patch=4),
    fitting=FittingConfig(epochs=1, batch=256),
)


@pytest.fixture(scope="session")
def spx() -> pa.Table:
    """The real daily bars of the S&P 500, 2014 to 2018."""
    start, end = datetime(2014, 1, 1, tzinfo=UTC), datetime(2019, 1, 1, tzinfo=UTC)
    return asyncio.run(SampleProvider().bars("SPX", Interval.D1, start, end))


@pytest.fixture(scope="session")
def bundle_dir(spx: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle trained in a second: bad forecasts, but every file of a good one."""
    made = train.fit(assemble.from_bars({"SPX": spx}, "1d"), _TINY)
    return bundle.write(tmp_path_factory.mktemp("bundles") / "tiny", made.files, made.manifest)


@pytest.fixture(scope="session")
def model(bundle_dir: Path) -> Predictor:
    """The same model, asked directly."""
    return predictor.load(bundle_dir, name=MODEL, version="1")


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory, bundle_dir: Path) -> str:
    """A real MLflow store with one promoted version."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder}/mlflow.db"
    MlflowClient(uri).create_experiment(registry.EXPERIMENT, artifact_location=str(folder / "artifacts"))
    register(bundle_dir, uri)
    registry.promote(MODEL, "1", uri)
    return uri


def register(bundle_dir: Path, tracking_uri: str) -> str:
    """One more version of the model; its number."""
    return registry.register(
        bundle_dir, name=MODEL, tracking_uri=tracking_uri, run_name="test", params={}, metrics={"mae": 0.01}
    )


@pytest.fixture(scope="session")
def served_database(
    postgres: EmbeddedPostgres, postgres_dsn: str, template_database: str, spx: pa.Table
) -> Iterator[str]:
    """DSN of a database with the bars of SPX, and too few of IXIC."""
    name = f"serve_{uuid.uuid4().hex}"
    execute(postgres_dsn, f"CREATE DATABASE {name} TEMPLATE {template_database} STRATEGY FILE_COPY")
    asyncio.run(_fill(postgres.dsn(name), spx))
    yield postgres.dsn(name)
    execute(postgres_dsn, f"DROP DATABASE {name} WITH (FORCE)")


async def _fill(dsn: str, spx: pa.Table) -> None:
    few = spx.slice(0, 511).set_column(0, "symbol", pa.array(["IXIC"] * 511))
    database = await Database.open(dsn, max_size=2)
    try:
        names = ("SPX", "IXIC")
        for name in names:
            await universe.add(database, Instrument(name, "INDEX", "index", "XNYS", tier="T0"))
        async with database.transaction() as connection:
            await stored_bars.write(connection, pa.concat_tables([spx, few.cast(spx.schema)]))
    finally:
        await database.close()


@pytest.fixture(scope="session")
def settings(served_database: str, tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a replica that has everything."""
    return load(
        instance=False,
        environ={},
        home=tmp_path_factory.mktemp("home"),
        database_url=served_database,
        mlflow_tracking_uri=tracking_uri,
        admin_api_key=ADMIN_KEY,
        api_key=USER_KEY,
        max_body_bytes=1_000_000,
        providers={"sample": {}},
        model_poll_s=3600,
    )


@pytest.fixture(scope="session")
def client(settings: Settings) -> Iterator[TestClient]:
    """A replica with its model loaded; only tests that change nothing may share it."""
    with started(settings) as ready:
        yield ready


@contextmanager
def started(settings: Settings) -> Iterator[TestClient]:
    """A running replica, which has looked for its model once."""
    app = create_app(settings, clock=FakeClock(NOW))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def look_for_a_model(client: TestClient) -> None:
    """Do what the replica does every `model_poll_s` seconds."""
    assert client.portal is not None
    assert isinstance(client.app, FastAPI)
    client.portal.call(client.app.state.services.slot.refresh)
