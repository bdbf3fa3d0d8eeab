"""What follows from the settings: providers that run, limits, ports and addresses."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import SecretStr, model_validator

from cluster.errors import ConfigError
from cluster.market.intervals import Interval
from cluster.market.symbols import Tier
from cluster.market.tiers import Limits
from cluster.market.tiers import Rule as TierRule
from cluster.settings.fields import KEYED, NEEDS_KEY, Fields


class Settings(Fields):
    """Every setting, and what follows from several of them."""

    @model_validator(mode="after")
    def _tiers_make_sense(self) -> Settings:
        if self.tiers:
            _ = self.tier_rule
        return self

    @property
    def tier_rule(self) -> TierRule:
        """What `finsight symbols tiers` goes by; raises `ConfigError` when the limits make no sense."""
        for tier, values in self.tiers.items():
            if values.keys() != {"adv_21d", "mkt_cap"}:
                raise ConfigError(
                    f"tiers (environment FINSIGHT_TIERS): {tier} has {sorted(values)}; "
                    "expected adv_21d and mkt_cap"
                )
        limits = {tier: Limits(**values) for tier, values in self.tiers.items()}
        return TierRule(limits, self.tier_slack)

    @property
    def backfill_limits(self) -> dict[Tier, int]:
        """Most running jobs a tier, over the whole fleet."""
        return {
            "T0": self.backfill_max_concurrency_t0,
            "T1": self.backfill_max_concurrency_t1,
            "T2": self.backfill_max_concurrency_t2,
            "T3": self.backfill_max_concurrency_t3,
        }

    @property
    def backfill_provider_limits(self) -> dict[str, int]:
        """Most running jobs of those providers that have the option `max_jobs`, over the whole fleet.

        ConfigError when one is no positive whole number.
        """
        found = {name: each["max_jobs"] for name, each in self.providers.items() if "max_jobs" in each}
        for name, most in found.items():
            if not isinstance(most, int) or isinstance(most, bool) or most < 1:
                raise ConfigError(f"options of provider {name!r}: max_jobs = {most!r} is no positive number.")
        return found

    def provider_options(self, name: str) -> dict[str, Any]:
        """What provider `name` is made with: its options, and its key unless they have one."""
        key: SecretStr | None = getattr(self, f"{KEYED[name]}_api_key") if name in KEYED else None
        return {**({"api_key": key.get_secret_value()} if key else {}), **self.providers.get(name, {})}

    @property
    def keyless_providers(self) -> list[str]:
        """Those of `providers` that are not run, because they need a key and have none."""
        return sorted(
            name
            for name in NEEDS_KEY & self.providers.keys()
            if not self.provider_options(name).get("api_key")
        )

    @property
    def active_providers(self) -> dict[str, dict[str, Any]]:
        """`providers` without `keyless_providers`, in the same order: the gateways that there are."""
        keyless = self.keyless_providers
        return {name: options for name, options in self.providers.items() if name not in keyless}

    @property
    def collects(self) -> bool:
        """Whether the collectors of this cluster look for bars at all."""
        return self.local_sweep_enabled or self.use_rlc

    def cadence_s(self, tier: Tier, interval: Interval) -> float:
        """Seconds between two looks for bars that are collected."""
        return self.collection[tier][interval] or self.update_interval_s

    @property
    def shared_budget_url(self) -> str | None:
        """The Redis that holds the budgets of all clusters; `None` when this cluster has its own."""
        return (self.rlc_redis_url or self.require_redis_url()) if self.use_rlc else None

    def port(self, name: Literal["api", "dashboard", "mlflow", "metrics"]) -> int:
        """The port that part `name` listens on, offset included."""
        fixed: int = getattr(self, f"{name}_port")
        return fixed + self.port_offset

    def url(self, name: Literal["api", "dashboard", "mlflow"]) -> str:
        """Where this machine reaches part `name`."""
        here = self.host == "0.0.0.0" or name == "mlflow"  # noqa: S104 - compared, not bound
        host = "127.0.0.1" if here else self.host
        return f"http://{host}:{self.port(name)}"

    @property
    def endpoints_file(self) -> Path:
        """Where the running embedded instance says how it is reached; readable by its owner only."""
        return endpoints_file(self.home)

    def require_database_url(self) -> str:
        """The database's DSN; raises `ConfigError` when none is set and no instance runs."""
        return _required(self.database_url, "DATABASE_URL")

    def require_redis_url(self) -> str:
        """The Redis URL; raises `ConfigError` when none is set and no instance runs."""
        return _required(self.redis_url, "REDIS_URL")

    def require_mlflow_tracking_uri(self) -> str:
        """The MLflow server's URI; raises `ConfigError` when none is set and no instance runs."""
        return _required(self.mlflow_tracking_uri, "MLFLOW_TRACKING_URI")


def _required(value: str | None, env: str) -> str:
    if value is None:
        raise ConfigError(
            f"{env} is not set and no embedded instance runs here. Set it, or run `finsight up`."
        )
    return value


def endpoints_file(home: Path) -> Path:
    """The file by which every process finds the running embedded instance of `home`."""
    return home / "run" / "endpoints.json"
