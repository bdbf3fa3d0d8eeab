"""Whether the providers of the settings can be made, found out without starting anything."""

from __future__ import annotations

from cluster.errors import ConfigError
from cluster.providers import plans, registry
from cluster.settings import Settings


def wrong(settings: Settings) -> list[str]:
    """What is wrong with the options of the providers, in sentences; empty when nothing is."""
    problems = []
    for name in settings.providers:
        options = settings.provider_options(name)
        try:
            registry.create(name, options)
            plans.policy(name, options)
        except ConfigError as error:
            problems.append(f"providers (environment FINSIGHT_PROVIDERS): {error}.")
    return problems
