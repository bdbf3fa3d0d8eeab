"""The HTTP API on the connected Ray: deployed as KubeRay deploys it, by import path and arguments."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module

from cluster.errors import NotRunning
from cluster.settings import Settings

APPLICATION = "finsight"
IMPORT_PATH = "serve_apps.api:build"
"""As in a Serve config file: the data plane knows the name of the application, not its code."""


def deploy(settings: Settings, env: Mapping[str, str]) -> None:
    """Have the API answer on its port; returns when its replicas are ready. One that runs is left alone.

    NotRunning when the proxy in front of them does not start.
    """
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.schema import ApplicationStatus, LoggingConfig

    _quieten()
    try:
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": settings.host, "port": settings.port("api")},
            logging_config=LoggingConfig(enable_access_log=False),
        )
    except RayError as error:
        raise NotRunning(str(getattr(error, "cause", error))) from error
    found = serve.status().applications.get(APPLICATION)
    if found is not None and found.status == ApplicationStatus.RUNNING:
        return
    module, _, name = IMPORT_PATH.partition(":")
    application = getattr(import_module(module), name)({"env": dict(env)})
    serve.run(application, name=APPLICATION, route_prefix="/")


def withdraw() -> None:
    """Stop the API after its running requests are answered."""
    from ray import serve

    _quieten()
    serve.shutdown()  # type: ignore[no-untyped-call]


def _quieten() -> None:
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # ours; replicas keep their own
