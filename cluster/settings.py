"""All settings, read once: YAML layers, then the environment, then what the caller passes.

Lowest first: `configs/base.yaml`, `configs/<profile>.yaml`, the running embedded instance
(`FINSIGHT_HOME/run/endpoints.json`), the file named by `FINSIGHT_CONFIG`, the environment, keyword arguments.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit, urlunsplit

import yaml
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from yaml.parser import ParserError
from yaml.scanner import ScannerError

from cluster.errors import ConfigError
from cluster.market.intervals import Interval
from cluster.market.symbols import Tier
from cluster.market.tiers import Limits
from cluster.market.tiers import Rule as TierRule
from cluster.redaction import redact

Profile = Literal["development", "production"]
Rule = Literal["announce", "never"]
Seconds = Annotated[float, Field(ge=1)]

KEYED = {name: name for name in ("binance", "finnhub", "alpha_vantage")} | {"yahoo": "yahoo_finance"}
"""Providers that may have a key: name -> the beginning of the setting that holds it."""
NEEDS_KEY = frozenset({"finnhub", "alpha_vantage"})
"""Providers that answer nothing without one."""
NEEDS_RESTART = frozenset(
    {
        "home", "profile", "timescale", "database_url", "redis_url", "mlflow_tracking_uri", "ray_address",
        "host",
        "port_offset", "api_port", "dashboard_port", "mlflow_port", "metrics_port", "postgres_port",
        "redis_port", "ray_port", "object_store_bytes", "model_name", "model_dir", "model_poll_s",
    }
)  # fmt: skip
"""Settings that hold from the start of a process to its end; a reload changes all others."""
_SECRET_OPTION = ("key", "secret", "token", "password")


def _setting(env: str, default: Any, description: str, **constraints: Any) -> Any:
    # The field's own name is the key in YAML, `env` the name in the environment.
    return Field(
        default,
        description=description,
        validation_alias=AliasChoices(env),
        json_schema_extra={"env": env},
        **constraints,
    )


def _port(env: str, default: int, description: str) -> Any:
    return _setting(env, default, description, ge=0, le=65_535)


class Settings(BaseModel):
    """Every setting with its environment name; frozen, so that nobody changes it behind another's back."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, validate_default=True)

    home: Path = _setting(
        "FINSIGHT_HOME", Path(".finsight"), "Folder of the embedded servers, logs and models."
    )
    profile: Profile = _setting(
        "FINSIGHT_PROFILE", "development", "Which `configs/<profile>.yaml` is layered."
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "LOG_LEVEL", "info", "Least severe log line that is written."
    )

    database_url: str | None = _setting(
        "DATABASE_URL", None, "PostgreSQL DSN; unset: the embedded PostgreSQL under the home folder."
    )
    timescale: Literal["auto", "convert", "off"] = _setting(
        "TIMESCALE", "auto",
        "TimescaleDB, where the server has it: `auto` uses it for a database without bars, `convert` also "
        "moves the bars that are there, `off` leaves it.",
    )  # fmt: skip
    minute_retention_days: int = _setting(
        "MINUTE_RETENTION_DAYS",
        365,
        "How long bars of 1m are kept at least, in days; others stay.",
        ge=2,
        le=36_500,
    )
    compress_after_days: int = _setting(
        "COMPRESS_AFTER_DAYS", 14, "Age in days from which TimescaleDB compresses bars.", ge=1, le=36_500
    )
    redis_url: str | None = _setting("REDIS_URL", None, "Redis URL; unset: the embedded Valkey.")
    mlflow_tracking_uri: str | None = _setting(
        "MLFLOW_TRACKING_URI",
        None,
        "MLflow server; unset: an embedded one, its store in the same PostgreSQL.",
    )
    ray_address: str | None = _setting(
        "RAY_ADDRESS", None, "GCS of the Ray that runs; `finsight up` starts its own and refuses another."
    )

    host: str = _setting(
        "FINSIGHT_HOST",
        "127.0.0.1",
        "Address that the API and the Ray dashboard bind; MLflow, which knows no key, stays on 127.0.0.1.",
    )
    port_offset: int = _setting(
        "FINSIGHT_PORT_OFFSET",
        0,
        "Added to every fixed port: 100 moves a second instance out of the way.",
        ge=0,
    )
    api_port: int = _port("FINSIGHT_API_PORT", 8000, "HTTP API.")
    dashboard_port: int = _port("FINSIGHT_DASHBOARD_PORT", 8265, "Ray dashboard and job submission.")
    mlflow_port: int = _port("FINSIGHT_MLFLOW_PORT", 5000, "MLflow UI and tracking server.")
    metrics_port: int = _port("FINSIGHT_METRICS_PORT", 8080, "Ray's own node metrics.")
    postgres_port: int = _port("FINSIGHT_POSTGRES_PORT", 0, "Embedded PostgreSQL; 0 takes a free port.")
    redis_port: int = _port("FINSIGHT_REDIS_PORT", 0, "Embedded Valkey; 0 takes a free port.")
    ray_port: int = _port("FINSIGHT_RAY_PORT", 0, "Ray's GCS; 0 takes a free port.")

    object_store_bytes: int = _setting(
        "FINSIGHT_OBJECT_STORE_BYTES",
        512 * 1024 * 1024,
        "Shared memory that the embedded Ray keeps objects in; more is spilled to disk.",
        ge=80 * 1024 * 1024,
    )

    api_key: SecretStr | None = _setting(
        "API_KEY", None, "A key that is known but may not write; reads and predictions need none yet."
    )
    admin_api_key: SecretStr | None = _setting(
        "ADMIN_API_KEY", None, "A key with every scope; unset: the embedded profile makes one and keeps it."
    )

    providers: dict[str, dict[str, Any]] = _setting(
        "FINSIGHT_PROVIDERS",
        {"sample": {}},
        "Providers to run, with the options of each (JSON in the environment).",
    )
    provider_timeout_s: float = _setting(
        "FINSIGHT_PROVIDER_TIMEOUT_S", 30.0, "Longest wait for one answer.", gt=0
    )

    binance_api_key: SecretStr | None = _setting(
        "BINANCE_API_KEY", None, "Goes with requests to Binance; its bars need none."
    )
    binance_secret_key: SecretStr | None = _setting(
        "BINANCE_SECRET_KEY", None, "Signs orders at Binance, of which FinSight makes none."
    )
    finnhub_api_key: SecretStr | None = _setting("FINNHUB_API_KEY", None, "Key of Finnhub.")
    alpha_vantage_api_key: SecretStr | None = _setting("ALPHA_VANTAGE_API_KEY", None, "Key of Alpha Vantage.")
    yahoo_finance_api_key: SecretStr | None = _setting(
        "YAHOO_FINANCE_API_KEY", None, "For a paid gateway to Yahoo; Yahoo itself needs none."
    )
    source_rule: Rule = _setting(
        "FINSIGHT_SOURCE_RULE",
        "announce",
        "When the provider that a session began with fails: another goes on and that is counted, or none.",
    )
    use_rlc: bool = _setting(
        "USE_RLC", default=False,
        description="Whether all clusters on one `RLC_REDIS_URL` share the budget of every provider.",
    )  # fmt: skip
    rlc_redis_url: str | None = _setting(
        "RLC_REDIS_URL", None, "Redis that holds the shared budgets; unset: `REDIS_URL`."
    )

    tiers: dict[Tier, dict[str, float]] = _setting(
        "FINSIGHT_TIERS",
        {},
        "What a symbol of a tier has at least: average daily volume in units and market capitalisation in US "
        "dollars (JSON in the environment).",
    )
    tier_slack: float = _setting(
        "FINSIGHT_TIER_SLACK", 0.2, "Share by which a symbol may fall below a limit of its tier.", ge=0, lt=1
    )

    collection: dict[Tier, dict[Interval, Seconds | None]] = _setting(
        "FINSIGHT_COLLECTION",
        {},
        "Which bars of a tier are collected, and the seconds between two looks for them; null: "
        "`UPDATE_INTERVAL` (JSON in the environment).",
    )
    update_interval_s: float = _setting(
        "UPDATE_INTERVAL", 30.0, "Seconds between two looks for bars without a cadence of their own.", ge=1
    )
    gap_scan_s: float = _setting(
        "FINSIGHT_GAP_SCAN_S", 60.0, "Seconds between two looks for missing bars in what is new.", gt=0
    )
    gap_full_scan_s: float = _setting(
        "FINSIGHT_GAP_FULL_SCAN_S", 86_400.0, "Seconds between two looks for them in everything.", gt=0
    )
    live_batch_size: int = _setting(
        "LIVE_BATCH_SIZE", 500, "Symbols that are collected by one question and written at once.", gt=0
    )
    collectors: int = _setting(
        "FINSIGHT_COLLECTORS",
        1,
        "Collector actors, each with its share of the symbols; as many in every cluster on a database.",
        ge=0,
    )
    local_sweep_enabled: bool = _setting(
        "LOCAL_SWEEP_ENABLED", default=True,
        description="Whether this cluster collects by itself; with `USE_RLC`: also while Redis is away.",
    )  # fmt: skip

    max_data_points: int = _setting("MAX_DATA_POINTS", 100_000, "Most bars or rows in one request.", gt=0)
    max_body_bytes: int = _setting("FINSIGHT_MAX_BODY_BYTES", 8_000_000, "Largest request body.", gt=0)

    backfill_batch_size: int = _setting(
        "BACKFILL_BATCH_SIZE", 8, "Jobs that a worker claims at once; it runs twice as many.", gt=0
    )
    backfill_lease_s: float = _setting(
        "BACKFILL_LEASE_S", 60.0, "Length of a lease without a heartbeat.", gt=0
    )
    backfill_workers: int = _setting("BACKFILL_WORKERS", 1, "Fewest backfill worker actors.", ge=0)
    backfill_workers_max: int = _setting(
        "BACKFILL_WORKERS_MAX", 2, "Most backfill worker actors, when the queue is long or old.",
        ge=0,
    )  # fmt: skip
    backfill_notify: bool = _setting(
        "BACKFILL_NOTIFY", default=True,
        description="Whether workers listen for new jobs; off behind a pooler that shares sessions.",
    )  # fmt: skip
    backfill_history_days: float = _setting(
        "BACKFILL_HISTORY_DAYS", 30.0, "How long finished backfill jobs are kept, in days.", gt=0
    )
    backfill_max_concurrency_t0: int = _setting(
        "BACKFILL_MAX_CONCURRENCY_T0", 16, "Running jobs of T0.", gt=0
    )
    backfill_max_concurrency_t1: int = _setting("BACKFILL_MAX_CONCURRENCY_T1", 8, "Running jobs of T1.", gt=0)
    backfill_max_concurrency_t2: int = _setting("BACKFILL_MAX_CONCURRENCY_T2", 8, "Running jobs of T2.", gt=0)
    backfill_max_concurrency_t3: int = _setting("BACKFILL_MAX_CONCURRENCY_T3", 4, "Running jobs of T3.", gt=0)

    model_name: str = _setting(
        "FINSIGHT_MODEL_NAME", "finsight-1d", "Registered model that is trained and served."
    )
    model_size: str = _setting(
        "FINSIGHT_MODEL_SIZE", "small", "Which `configs/models/<size>.yaml` is trained."
    )
    model_dir: Path | None = _setting(
        "MODEL_DIR", None, "Serve the bundle in this folder instead of the registry's."
    )
    model_poll_s: float = _setting(
        "FINSIGHT_MODEL_POLL_S", 2.0, "Pause between two looks at the champion.", gt=0
    )

    @field_validator("home", "model_dir")
    @classmethod
    def _absolute(cls, folder: Path | None) -> Path | None:
        return folder.expanduser().resolve() if folder else None

    @field_validator(*(f"{each}_api_key" for each in KEYED.values()), "binance_secret_key", mode="before")
    @classmethod
    def _stripped(cls, key: object) -> object:
        # Files and secret stores like to end with a newline, which no header may have.
        return (key.strip() or None) if isinstance(key, str) else key

    @field_validator("providers", "tiers", "collection", mode="before")
    @classmethod
    def _parsed(cls, mapping: object) -> object:
        return json.loads(mapping) if isinstance(mapping, str) else mapping

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


def load(*, instance: bool = True, environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Read all layers; `instance=False` leaves out what the running embedded instance says.

    Raises `ConfigError` that names key, value and source of everything that is wrong.
    """
    return _load(running_instance if instance else lambda _: {}, environ, overrides)


def reread(environ: Mapping[str, str] | None = None) -> Settings:
    """What the layers say now, for a process that runs; raises `ConfigError` as `load` does.

    What the embedded instance was started with is left out, so that a setting that was taken out of a file
    is back at its default; but for what only a start can change, and the administrator's key that it made.
    """
    kept = NEEDS_RESTART | {"admin_api_key"}
    return _load(
        lambda file: {name: value for name, value in running_instance(file).items() if name in kept},
        environ,
        {},
    )


def _load(
    running_of: Callable[[Path], dict[str, Any]],
    environ: Mapping[str, str] | None,
    overrides: Mapping[str, Any],
) -> Settings:
    environ = os.environ if environ is None else environ
    packaged = _packaged("base")
    profile = overrides.get("profile") or environ.get("FINSIGHT_PROFILE") or "development"
    if profile in ("development", "production"):
        packaged |= _packaged(profile)
    extra = environ.get("FINSIGHT_CONFIG")
    asked = {**(_file(Path(extra)) if extra else {}), **_from_environment(environ), **overrides}
    settings = _validated({**packaged, **asked})
    if running := running_of(settings.endpoints_file):
        said = {key: value for key, value in asked.items() if value is not None}
        return _validated({**packaged, **running, **said})
    return settings


def changed(before: Settings, after: Settings) -> list[str]:
    """Names of the settings that differ, sorted."""
    return sorted(name for name, value in after if value != getattr(before, name))


def digest(settings: Settings) -> str:
    """16 hexadecimal digits that stand for everything that a reload can change, keys included."""
    values = {name: value for name, value in revealed(settings).items() if name not in NEEDS_RESTART}
    return sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def running_instance(endpoints: Path) -> dict[str, Any]:
    """What the instance says in its file `endpoints`; nothing when none runs."""
    try:
        found: dict[str, Any] = json.loads(endpoints.read_text())
    except (
        FileNotFoundError,
        NotADirectoryError,
        ValueError,
    ):  # broken by hand: `finsight up` writes it anew
        return {}
    except OSError as error:
        raise ConfigError(
            f"{endpoints} cannot be read: {error.strerror}. Choose another folder by FINSIGHT_HOME, or "
            "run this as the user of that one."
        ) from error
    return found


def _packaged(name: str) -> dict[str, Any]:
    return _mapping(resources.files("configs").joinpath(f"{name}.yaml").read_text(), f"configs/{name}.yaml")


def _file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"FINSIGHT_CONFIG names {path}, which cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"FINSIGHT_CONFIG names {path}, which is not UTF-8 (byte {error.start}). "
            "Write it as YAML in UTF-8."
        ) from None
    return _mapping(text, str(path))


def _mapping(text: str, source: str) -> dict[str, Any]:
    try:
        parsed = yaml.safe_load(text) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a day that there is not
        raise ConfigError(f"{source} is not valid YAML: {_where(error)}.") from None
    if not isinstance(parsed, dict):
        raise ConfigError(f"{source} must hold `key: value` lines; it holds a {type(parsed).__name__}.")
    if unknown := sorted(str(name) for name in set(parsed) - set(Settings.model_fields)):
        raise ConfigError(f"{source}: unknown setting {', '.join(unknown)}. See docs/reference/settings.md.")
    return parsed


def _where(error: Exception) -> str:
    """What is wrong with YAML, without the line itself, which may hold a key."""
    if isinstance(error, ScannerError | ParserError):
        why = str(error.problem)
    elif isinstance(error, yaml.MarkedYAMLError):  # these quote the text: an alias, an anchor, a tag
        why = "a value that begins with *, & or ! must stand in quotes"
    else:
        return "it cannot be read as text, lists and mappings"
    mark = error.problem_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: {why}" if mark else why


def environment_names() -> dict[str, str]:
    """Environment name of every setting, by field name."""
    return {name: str(_extra(field)["env"]) for name, field in Settings.model_fields.items()}


def _extra(field: Any) -> dict[str, Any]:
    extra: dict[str, Any] = field.json_schema_extra
    return extra


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    # An empty variable counts as unset: that is how compose files and charts leave one out.
    return {name: environ[env] for name, env in environment_names().items() if environ.get(env)}


def _validated(values: Mapping[str, Any]) -> Settings:
    try:
        return Settings.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(problem) for problem in error.errors())) from error


def _explain(problem: Any) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else "settings"
    by_env = {env: field for field, env in environment_names().items()}
    field = by_env.get(name, name)
    env = environment_names().get(field, name)
    shown = "(hidden)" if "key" in field else redact(repr(problem["input"]))
    return f"{field} (environment {env}) = {shown}: {problem['msg']}."


def revealed(settings: Settings) -> dict[str, Any]:
    """The settings as JSON types with all secrets, for a file that only their owner can read."""
    # Not by model_dump, which turns a Ctrl-C in its midst into an error of its own.
    return {name: _revealed(value) for name, value in settings}


def _revealed(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value) if isinstance(value, Path) else value


def shown(settings: Settings) -> dict[str, Any]:
    """The settings as JSON types, passwords and keys hidden."""
    values = settings.model_dump(mode="json")
    for name in ("database_url", "redis_url", "rlc_redis_url", "mlflow_tracking_uri"):
        values[name] = hide_password(values[name])
    values["providers"] = {name: _hidden(options) for name, options in values["providers"].items()}
    return values


def _hidden(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: "***" if any(map(name.lower().count, _SECRET_OPTION)) else value
        for name, value in options.items()
    }


def hide_password(url: str | None) -> str | None:
    """`url` with its password replaced by stars."""
    if not url:
        return url
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{host}"))
