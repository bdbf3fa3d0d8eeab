"""Train a model on stored bars and register it; `jobs.evaluate` decides whether it becomes the champion."""

from __future__ import annotations

import argparse
import asyncio
import logging
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cluster import logs
from cluster.errors import FinSightError, NotEnoughHistory, NotRunning
from cluster.market.intervals import Interval
from cluster.settings import Settings
from cluster.storage.database import Database
from jobs import arguments, history, protocol
from jobs.protocol import Progress

if TYPE_CHECKING:
    from training.config import TrainConfig
    from training.train import Bundle, MapTasks

log = logs.get(__name__)

SIZES = ("small", "standard")


class Registry:
    """Brings the MLflow client and server to life in a thread, while the training runs.

    The first request after a start of the server and the import of the client take many seconds, and a
    server that does not answer is known before the training is over.
    """

    def __init__(self, tracking_uri: str, name: str) -> None:
        self._uri = tracking_uri
        self._name = name
        self._error: FinSightError | None = None
        self._thread = threading.Thread(target=self._reach, daemon=True)
        self._thread.start()

    def _reach(self) -> None:
        from training import registry

        try:
            registry.champion(self._name, self._uri)
        except FinSightError as error:
            self._error = error

    def check(self) -> None:
        """Raise what the thread has met so far."""
        if self._error:
            raise self._error

    def register(self, bundle: Bundle, folder: Path, params: Mapping[str, Any]) -> str:
        """Write the bundle below `folder` for as long as it takes to register it; the new version."""
        from training import bundle as bundles
        from training import registry

        self._thread.join()
        self.check()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="bundle.", dir=folder) as staging:
            return registry.register(
                bundles.write(Path(staging, self._name), bundle.files, bundle.manifest),
                name=self._name,
                tracking_uri=self._uri,
                run_name=f"{self._name}-{datetime.now(UTC):%Y%m%dT%H%M%S}",
                params=params,
                metrics=bundle.manifest["metrics"],
            )


def trainable(
    tables: Mapping[str, pa.Table], interval: Interval, named: Sequence[str]
) -> dict[str, pa.Table]:
    """The tables that are long enough for every feature.

    `NotEnoughHistory` when one that was named is not, or none is.
    """
    from training.features import MIN_BARS

    for symbol in named:
        history.require_bars(symbol, interval, tables[symbol].num_rows if symbol in tables else 0, MIN_BARS)
    long = {symbol: table for symbol, table in tables.items() if table.num_rows >= MIN_BARS}
    if left := sorted(set(tables) - set(long)):
        log.info("symbols_too_short", symbols=left, bars_needed=MIN_BARS)
    if not long:
        raise NotEnoughHistory(
            f"no symbol has the {MIN_BARS} stored {interval} bars that training needs; run `finsight ingest`"
        )
    return long


def configured(size: str, seed: int | None) -> TrainConfig:
    """The configuration `size`, with another seed when one is given."""
    from training import config

    found = config.load(size)
    return found if seed is None else found.model_copy(update={"seed": seed})


@contextmanager
def _map_tasks(parallel: str, ray_address: str | None) -> Iterator[MapTasks]:
    """How the members are fitted: one after the other here, or side by side on the Ray cluster."""
    from training import train

    if parallel == "none":
        yield train.serially
        return
    import ray

    from training import parallel as on_cluster

    _connect(ray_address or "auto")
    try:
        yield on_cluster.on_ray
    finally:
        ray.shutdown()


def _connect(ray_address: str) -> None:
    import ray

    try:
        ray.init(
            address=ray_address, namespace="finsight", log_to_driver=False, logging_level=logging.WARNING
        )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise NotRunning(
            f"Ray at {ray_address} cannot be reached: {reason} `finsight up` starts it; "
            "`--parallel none` does without it"
        ) from error
    protocol.stop_on_sigterm()


class _Seconds:
    """Wall time of each part."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self._last_s = time.monotonic()

    def done(self, part: str) -> None:
        now_s = time.monotonic()
        self.parts[part] = round(now_s - self._last_s, 3)
        self._last_s = now_s


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The options in `words`, or on the command line; leaves with status 2 when they are wrong."""
    made = arguments.parser("train", "Train a model on stored bars and register it.")
    made.add_argument(
        "--symbols", type=arguments.symbols, default=[], help="A,B; default: all with enough bars"
    )
    made.add_argument(
        "--as-of", type=arguments.moment, metavar="TIME", help="all that were active then; default: now"
    )
    made.add_argument("--size", choices=SIZES, help="default: FINSIGHT_MODEL_SIZE")
    made.add_argument("--seed", type=int, help="default: that of the configuration")
    made.add_argument("--name", help="registered model; default: FINSIGHT_MODEL_NAME, or finsight-INTERVAL")
    made.add_argument("--parallel", choices=("ray", "none"), help="default: none for small, ray for standard")
    return made.parse_args(words)


def work(options: argparse.Namespace, settings: Settings, progress: Progress) -> Mapping[str, Any]:
    """Do what the command line asks for."""
    name = options.name or history.model_name(settings.model_name, options.interval)
    size = options.size or settings.model_size
    registry = Registry(settings.require_mlflow_tracking_uri(), name)
    seconds = _Seconds()
    progress(0.0, "reading bars")
    database_url = settings.require_database_url()
    bars = asyncio.run(_bars(database_url, options.symbols, options.as_of, options.interval))
    seconds.done("bars")
    from training import train  # torch: seconds, which nobody waits for who only asks for help
    from training.datasets.assemble import from_bars

    config = configured(size, options.seed)
    seconds.done("imports")
    dataset = from_bars(bars, options.interval)
    seconds.done("features")

    def trained(what: str, share: float) -> None:
        registry.check()
        progress(0.02 + 0.93 * share, what)

    parallel = options.parallel or ("none" if size == "small" else "ray")
    with _map_tasks(parallel, settings.ray_address) as map_tasks:
        made = train.fit(dataset, config, progress=trained, map_tasks=map_tasks)
    seconds.done("training")
    params = {
        "size": size,
        "seed": config.seed,
        "symbols": ",".join(dataset.symbols),
        "rows": len(dataset.rows),
    }
    version = registry.register(made, settings.home / "training", params)
    seconds.done("registration")
    progress(1.0, f"registered {name} version {version}")
    return {
        "name": name,
        "version": version,
        "interval": options.interval,
        "symbols": list(dataset.symbols),
        "size": size,
        "parallel": parallel,
        "training_range": made.manifest["training_range"],
        "metrics": made.manifest["metrics"],
        "verdict": made.report["verdict"],
        "seconds": seconds.parts,
    }


async def _bars(
    dsn: str, named: Sequence[str], as_of: datetime | None, interval: Interval
) -> dict[str, pa.Table]:
    database = await Database.open(dsn, max_size=2)
    try:
        symbols = await history.chosen(database, named, as_of)
        return trainable(await history.final_bars(database, symbols, interval), interval, named)
    finally:
        await database.close()


if __name__ == "__main__":
    protocol.run(parse(), work)
