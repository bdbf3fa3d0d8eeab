"""Actors that outlive who starts them: one of each name, which Ray starts again whenever its process ends."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import ray
from ray.actor import ActorHandle

from cluster import logs

log = logs.get(__name__)


def start(
    actor: type,
    name: str,
    arguments: tuple[Any, ...],
    *,
    env: Mapping[str, str] | None,
    namespace: str,
    **options: Any,
) -> ActorHandle[Any]:
    """Start the actor `name`, or find the one that runs; needs a connection to Ray.

    `env` is the environment of the actor's process, such as `PROMETHEUS_MULTIPROC_DIR`; `options` are further
    ones of Ray. A call may be made twice, when its first answer is lost: no method may mind that.
    """
    shell: Any = ray.remote(actor)
    handle: ActorHandle[Any] = shell.options(
        name=name,
        namespace=namespace,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_task_retries=-1,
        num_cpus=0,
        runtime_env={"env_vars": dict(env or {})},
        **options,
    ).remote(*arguments)
    return handle


def live(task: asyncio.Task[None]) -> asyncio.Task[None]:
    """`task` as the life of the process: one that works no more would look alive, so an error ends it."""
    task.add_done_callback(_end_on_error)
    return task


def _end_on_error(life: asyncio.Task[None]) -> None:
    if not life.cancelled() and (error := life.exception()) is not None:
        log.critical("actor_crashed", actor=life.get_name(), reason=repr(error))
        os._exit(1)  # Ray makes a new one
