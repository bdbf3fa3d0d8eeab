"""Composition root of the data plane: from settings to running actors, and from other settings to them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from cluster import logs
from cluster.backfill import actor as backfill
from cluster.backfill.actor import WorkerOptions
from cluster.backfill.gap_scan import WatchRules
from cluster.backfill.scaling import Bounds
from cluster.duties import actor as duties
from cluster.duties.actor import DutyOptions
from cluster.ingest import actor as collector
from cluster.ingest.actor import CollectorOptions
from cluster.ingest.cadence import Cadence
from cluster.market.intervals import Interval
from cluster.providers import check, gateway_actor, plans
from cluster.providers.gateway import GatewayPolicy
from cluster.redaction import redact
from cluster.settings import Settings
from cluster.storage.upkeep import Keeping

log = logs.get(__name__)

NAMESPACE = gateway_actor.NAMESPACE
_OF_SETTINGS = ("gateway:", "collector:")
"""Beginnings of the names of actors that end when the settings no longer ask for them."""


@dataclass(frozen=True)
class _Actor:
    """One actor that the settings ask for."""

    name: str
    start: Callable[..., object]
    """Starts it, or finds it, with `options`, `env` and `namespace`."""
    options: Callable[[], tuple[Any, ...]]
    """What `start` and the actor's own `reload` take."""


@dataclass(frozen=True)
class Reloaded:
    """What a reload did; the lists name actors."""

    reloaded: list[str]
    started: list[str]
    stopped: list[str]
    failed: dict[str, str]
    """Those that did not take the settings over, with the reason; the next reload tells them again."""


def start_actors(settings: Settings, env: Mapping[str, str], *, namespace: str = NAMESPACE) -> list[str]:
    """Start every actor on the connected Ray, or find those that run; returns their names.

    `env` is the environment of the actors' processes. ConfigError when a provider's options are wrong.
    """
    _warn_of_keys(settings)
    wanted = _actors(settings)
    for each in wanted:
        each.start(*each.options(), env=env, namespace=namespace)
    return [each.name for each in wanted]


def actor_names(settings: Settings) -> list[str]:
    """The names of all actors that `start_actors` starts."""
    return [each.name for each in _actors(settings)]


def reload(
    settings: Settings,
    env: Mapping[str, str],
    *,
    timeout_s: float = 20.0,
    grace_s: float = 30.0,
    namespace: str = NAMESPACE,
) -> Reloaded:
    """Have every running actor go by `settings`, which must be valid, and drop no work over it.

    What is missing is started, first of all gateways; then the others are told, so that nobody asks a removed
    gateway any more, which ends when its calls are over, or after `grace_s`. Telling twice changes nothing.
    """
    there = _running(namespace)
    wanted = {each.name: each for each in _actors(settings)}
    missing = [each for name, each in wanted.items() if name not in there]
    for each in missing:
        each.start(*each.options(), env=env, namespace=namespace)
    handles = _handles([name for name in wanted if name in there], namespace)
    asked = {name: handle.reload.remote(*wanted[name].options()) for name, handle in handles.items()}
    failed = _answers(asked, timeout_s)
    gone = sorted(name for name in there - wanted.keys() if name.startswith(_OF_SETTINGS))
    _retire(gone, namespace, grace_s)
    reloaded = [name for name in asked if name not in failed]
    return Reloaded(reloaded, [each.name for each in missing], gone, failed)


def _actors(settings: Settings) -> list[_Actor]:
    gateways = [
        _Actor(
            gateway_actor.actor_name(provider),
            partial(_start_gateway, provider),
            partial(gateway_options, settings, provider),
        )
        for provider in settings.active_providers
    ]
    workers = [
        _Actor(
            backfill.actor_name(index),
            partial(backfill.start, index),
            lambda: (worker_options(settings),),
        )
        for index in range(settings.backfill_workers)
    ]
    collectors = [
        _Actor(
            collector.actor_name(shard),
            partial(collector.start, shard),
            lambda: (collector_options(settings),),
        )
        for shard in range(settings.collectors if settings.collects else 0)
    ]
    return [
        *gateways,
        *workers,
        *collectors,
        _Actor(duties.NAME, duties.start, lambda: (duty_options(settings),)),
    ]


def _warn_of_keys(settings: Settings) -> None:
    for sentence in check.not_run(settings):
        log.warning("provider_without_key", reason=sentence)


def _start_gateway(
    provider: str, options: Mapping[str, object], policy: GatewayPolicy, shared: str | None, **how: Any
) -> None:
    gateway_actor.start(provider, options, policy, shared_budget_url=shared, **how)


def _running(namespace: str) -> set[str]:
    found: list[dict[str, str]] = ray.util.list_named_actors(all_namespaces=True)
    return {each["name"] for each in found if each["namespace"] == namespace}


def _handles(names: Iterable[str], namespace: str) -> dict[str, Any]:
    """The actors of these names, without those that have just ended."""
    found = {}
    for name in names:
        with suppress(ValueError):
            found[name] = ray.get_actor(name, namespace=namespace)
    return found


def _answers(asked: Mapping[str, Any], timeout_s: float) -> dict[str, str]:
    """Why some of those that were `asked` did not do it, by their name."""
    deadline_s, failed = time.monotonic() + timeout_s, {}
    for name, answer in asked.items():
        try:
            ray.get(answer, timeout=max(0.0, deadline_s - time.monotonic()))
        except GetTimeoutError:
            failed[name] = f"did not answer within {timeout_s:g} s"
        except RayTaskError as error:
            failed[name] = redact(str(error.cause))
        except RayError as error:
            failed[name] = redact(f"is out of reach: {error}")
    return failed


def _retire(names: list[str], namespace: str, grace_s: float) -> None:
    """End the actors of these names when they have nothing to do any more."""
    handles = _handles(names, namespace)
    failed = _answers({name: each.drain.remote(grace_s) for name, each in handles.items()}, grace_s + 5)
    for name, reason in failed.items():
        log.warning("drain_failed", actor=name, reason=reason)
    for handle in handles.values():
        ray.kill(handle, no_restart=True)


def gateway_options(settings: Settings, provider: str) -> tuple[dict[str, Any], GatewayPolicy, str | None]:
    """What the settings say about the gateway of `provider`: options, policy, URL of a shared budget."""
    options = settings.provider_options(provider)
    policy = replace(plans.policy(provider, options), timeout_s=settings.provider_timeout_s)
    return options, policy, settings.shared_budget_url


def worker_options(settings: Settings) -> WorkerOptions:
    """What the settings say about backfill workers."""
    return WorkerOptions(
        database_url=settings.require_database_url(),
        providers=tuple(settings.active_providers),
        source_rule=settings.source_rule,
        limits=settings.backfill_limits,
        provider_limits=settings.backfill_provider_limits,
        accounts={
            name: plans.scope(name, settings.provider_options(name)) for name in settings.active_providers
        },
        batch=settings.backfill_batch_size,
        concurrency=2 * settings.backfill_batch_size,
        listens=settings.backfill_notify,
        lease_s=settings.backfill_lease_s,
        log_level=settings.log_level,
    )


def collector_options(settings: Settings) -> CollectorOptions:
    """What the settings say about collectors."""
    cadences = (
        Cadence(tier, interval, settings.cadence_s(tier, interval))
        for tier, intervals in settings.collection.items()
        for interval in intervals
    )
    return CollectorOptions(
        database_url=settings.require_database_url(),
        providers=tuple(settings.active_providers),
        cadences=tuple(cadences),
        shards=settings.collectors,
        source_rule=settings.source_rule,
        batch=settings.live_batch_size,
        claims_url=settings.shared_budget_url,
        locally=settings.local_sweep_enabled,
        log_level=settings.log_level,
    )


def duty_options(settings: Settings) -> DutyOptions:
    """What the settings say about the recurring duties."""
    return DutyOptions(
        database_url=settings.require_database_url(),
        log_level=settings.log_level,
        providers=tuple(settings.active_providers),
        workers=(workers := worker_options(settings)),
        worker_bounds=Bounds.of(
            settings.backfill_workers,
            settings.backfill_workers_max,
            workers.concurrency,
            list(settings.backfill_limits.values()),
        ),
        keeping=Keeping(settings.minute_retention_days, settings.compress_after_days),
        history_s=settings.backfill_history_days * 86_400,
        watch=WatchRules(
            {tier: tuple(wanted) for tier, wanted in settings.collection.items()},
            full_s=settings.gap_full_scan_s,
            retention={Interval.M1: timedelta(days=settings.minute_retention_days)},
        ),
        watch_s=settings.gap_scan_s,
    )


def drain_workers(grace_s: float) -> None:
    """Have workers and collectors on the connected Ray finish what they do, for at most `grace_s`.

    A worker gives back the jobs that are not over by then.
    """
    working = sorted(name for name in _running(NAMESPACE) if name.startswith(("backfill:", "collector:")))
    workers = list(_handles(working, NAMESPACE).values())
    asyncio.run(backfill.drain(workers, grace_s, timeout_s=grace_s + 5))
