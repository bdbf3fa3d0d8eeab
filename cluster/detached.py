"""Actors that outlive who starts them: one of each name, which Ray starts again whenever its process ends."""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import Mapping
from typing import Any, TypeVar

import ray
from ray.actor import ActorHandle
from ray.experimental.internal_kv import (
    _internal_kv_get,
    _internal_kv_initialized,
    _internal_kv_put,
)

from cluster import logs

log = logs.get(__name__)

_TOLD = "finsight-told"
_Options = TypeVar("_Options")


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


async def keep(options: object) -> None:
    """Have this actor begin with `options` when Ray starts it again, and not with its first arguments."""
    await asyncio.to_thread(_internal_kv_put, _key(), pickle.dumps(options), namespace=_TOLD)


def kept(first: _Options) -> _Options:
    """What this actor was last told to `keep`; `first` when that is nothing or unreadable, or outside of Ray.

    Never raises: Ray does not start an actor again whose `__init__` failed.
    """
    if not _internal_kv_initialized():  # type: ignore[no-untyped-call]
        return first
    try:
        told = _internal_kv_get(_key(), namespace=_TOLD)
        options: _Options = first if told is None else pickle.loads(told)  # noqa: S301 - who writes there is us
    except Exception as error:  # whatever it is, an actor that goes by its first options is better than none
        log.error("actor_options_unreadable", reason=repr(error), goes_by="its first ones")
        return first
    return options


def _key() -> str:
    """Of this actor, however often it is started again; another one of its name has another."""
    return str(ray.get_runtime_context().get_actor_id())


def live(task: asyncio.Task[None]) -> asyncio.Task[None]:
    """`task` as the life of the process: one that works no more would look alive, so an error ends it."""
    task.add_done_callback(_end_on_error)
    return task


def _end_on_error(life: asyncio.Task[None]) -> None:
    if not life.cancelled() and (error := life.exception()) is not None:
        log.critical("actor_crashed", actor=life.get_name(), reason=repr(error))
        os._exit(1)  # Ray makes a new one
