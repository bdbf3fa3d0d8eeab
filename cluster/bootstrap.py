"""Composition root of the data plane: from settings to running actors."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from cluster.backfill import actor as backfill
from cluster.backfill.actor import WorkerOptions
from cluster.duties import actor as duties
from cluster.duties.actor import DutyOptions
from cluster.providers import gateway_actor, plans
from cluster.settings import Settings


def start_actors(settings: Settings, env: Mapping[str, str]) -> list[str]:
    """Start gateways and backfill workers on the connected Ray, or find those that run; returns their names.

    `env` is the environment of the actors' processes. ConfigError when a provider's options are wrong.
    """
    for provider in settings.providers:
        options = settings.provider_options(provider)
        policy = replace(plans.policy(provider, options), timeout_s=settings.provider_timeout_s)
        shared = settings.shared_budget_url
        gateway_actor.start(provider, options, policy, shared_budget_url=shared, env=env)
    for index in range(settings.backfill_workers):
        backfill.start(index, worker_options(settings), env=env)
    duties.start(duty_options(settings), env=env)
    return actor_names(settings)


def actor_names(settings: Settings) -> list[str]:
    """The names of all actors that `start_actors` starts."""
    gateways = [gateway_actor.actor_name(provider) for provider in settings.providers]
    workers = [backfill.actor_name(index) for index in range(settings.backfill_workers)]
    return [*gateways, *workers, duties.NAME]


def worker_options(settings: Settings) -> WorkerOptions:
    """What the settings say about backfill workers."""
    return WorkerOptions(
        database_url=settings.require_database_url(),
        providers=tuple(settings.providers),
        source_rule=settings.source_rule,
        limits=settings.backfill_limits,
        batch=settings.backfill_batch_size,
        concurrency=settings.backfill_batch_size,
        lease_s=settings.backfill_lease_s,
        log_level=settings.log_level,
    )


def duty_options(settings: Settings) -> DutyOptions:
    """What the settings say about the recurring duties."""
    return DutyOptions(database_url=settings.require_database_url(), log_level=settings.log_level)


def drain_workers(settings: Settings, grace_s: float) -> None:
    """Have the workers on the connected Ray finish or give back their jobs, for at most `grace_s`."""
    workers = backfill.running(range(settings.backfill_workers))
    asyncio.run(backfill.drain(workers, grace_s, timeout_s=grace_s + 5))
