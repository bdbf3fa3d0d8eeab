"""What each provider allows by its documented plan, and how that is overridden by options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from cluster.errors import ConfigError
from cluster.providers.budget import Window, checked
from cluster.providers.gateway import GatewayPolicy

OPTIONS = frozenset({"budget", "max_jobs"})
"""Options of a provider that its client does not take: the gateway's, and the most backfill jobs at once."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The limits of a provider's free plan."""

    budget: tuple[Window, ...] = ()
    concurrency: int = 8
    counted_by: Literal["address", "key"] = "address"
    """Whom the provider counts: all calls from one address, or all calls with one key."""


PLANS: Mapping[str, Plan] = {
    # 6 000 weight a minute for an address; a fifth is left to what else runs behind it: a ban hits all.
    "binance": Plan((Window(4_800, 60.0),)),
    # Nothing is documented; one call a second has been found to be tolerated.
    "yahoo": Plan((Window(1, 1.0),), concurrency=2),
    # 25 calls a day and one a second; a little more than that, for calls overtake each other on their way.
    "alpha_vantage": Plan((Window(1, 1.2), Window(25, 86_400.0)), concurrency=1, counted_by="key"),
    # 60 calls a minute, and 30 a second on every plan.
    "finnhub": Plan((Window(30, 1.0), Window(60, 60.0)), counted_by="key"),
}
_WINDOWS = TypeAdapter(tuple[Window, ...])


def policy(name: str, options: Mapping[str, object]) -> GatewayPolicy:
    """How the gateway of provider `name` behaves: its plan, unless the option `budget` names other windows.

    `budget` is a list such as `[{"limit": 75, "seconds": 60}]`; an empty one lifts every limit. Raises
    `ConfigError` for anything else.
    """
    plan = PLANS.get(name, Plan())
    made = GatewayPolicy(budget=plan.budget, concurrency=plan.concurrency)
    if "budget" not in options:
        return made
    try:
        return replace(made, budget=checked(_WINDOWS.validate_python(options["budget"])))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"options of provider {name!r}: budget: {wrong}") from None


def scope(name: str, options: Mapping[str, object]) -> str:
    """Whoever is in the same scope shares one budget: all with the same key where keys are counted."""
    key = str(options.get("api_key") or "")
    if key and PLANS.get(name, Plan()).counted_by == "key":
        # By the name, too, so that no list of digests of keys has it.
        return f"{name}-{sha256(f'finsight {name} {key}'.encode()).hexdigest()[:12]}"
    return name
