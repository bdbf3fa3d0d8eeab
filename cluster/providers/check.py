"""Whether the providers of the settings can be made and will run, found out without starting anything."""

from __future__ import annotations

from cluster.errors import ConfigError
from cluster.providers import plans, registry
from cluster.settings import KEYED, Settings


def wrong(settings: Settings) -> list[str]:
    """What is wrong with the options of the providers, in sentences; empty when nothing is."""
    problems = []
    for name in settings.active_providers:
        options = settings.provider_options(name)
        try:
            offer = registry.create(name, options).capabilities
            heaviest = max(offer.weight, *offer.weights.values(), 0)
            problems += [
                f"providers: the budget of {name} has {window}, but its heaviest call has weight {heaviest}."
                for window in plans.policy(name, options).budget
                if window.limit < heaviest
            ]
        except ConfigError as error:
            problems.append(f"providers (environment FINSIGHT_PROVIDERS): {error}.")
    try:
        _ = settings.backfill_provider_limits
    except ConfigError as error:
        problems.append(f"providers (environment FINSIGHT_PROVIDERS): {error}")
    return problems


def not_run(settings: Settings) -> list[str]:
    """Which providers are left out, and how that is mended, in sentences."""
    return [
        f"Provider {name} is not run, because it has no key: set {KEYED[name].upper()}_API_KEY."
        for name in settings.keyless_providers
    ]
