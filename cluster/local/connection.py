"""Our side of the Ray that runs: a connection, and the actors.

Ray reads its token when it is imported: so that happens in the functions, once the environment is set.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Mapping

from cluster.local.ray_head import RayHead
from cluster.settings import Settings


def connect(head: RayHead, environment: Mapping[str, str]) -> None:
    """Make this process a driver of `head`, with `environment` for what it starts."""
    os.environ.update({**head.environment(), **environment})
    import ray

    from cluster.providers.gateway_actor import NAMESPACE

    ray.init(address=head.address(), namespace=NAMESPACE, log_to_driver=False, logging_level=logging.CRITICAL)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Ray's own handler prints a stack


def disconnect() -> None:
    """End it: a driver whose Ray has gone would wait for it when it exits."""
    import ray

    ray.shutdown()


def start_actors(settings: Settings, environment: Mapping[str, str]) -> None:
    """See `cluster.bootstrap.start_actors`."""
    from cluster import bootstrap

    bootstrap.start_actors(settings, environment)


def drain_workers(grace_s: float) -> None:
    """See `cluster.bootstrap.drain_workers`."""
    from cluster import bootstrap

    bootstrap.drain_workers(grace_s)
