"""Serves the API on a Ray cluster of its own, until its standard input ends.

A process of its own, because Serve reads its settings from the environment when it is imported.
"""

from __future__ import annotations

import os
import sys

import ray
from ray import serve
from ray.serve.schema import LoggingConfig

from cluster.providers import gateway_actor
from serve_apps.api import build


def main(port: int, folder: str) -> None:
    """Say `ready` when the API answers on `port`; Ray keeps its files in `folder`."""
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        namespace="finsight",
        log_to_driver=False,
        object_store_memory=100_000_000,
        _temp_dir=folder,
    )
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": "127.0.0.1", "port": port},
        logging_config=LoggingConfig(enable_access_log=False),
    )
    gateway_actor.start("sample", {})
    metrics = {"PROMETHEUS_MULTIPROC_DIR": os.environ["METRICS_FOLDER"]}
    serve.run(build({"env": metrics}), name="finsight", route_prefix="/")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    serve.shutdown()  # type: ignore[no-untyped-call]
    ray.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
