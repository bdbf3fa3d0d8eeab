"""What can be set: names in YAML and in the environment, bounds, defaults and meanings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, field_validator

from cluster.market.intervals import Interval
from cluster.market.symbols import Tier

Profile = Literal["development", "production"]
Rule = Literal["announce", "never"]
Seconds = Annotated[float, Field(ge=1)]

KEYED = {name: name for name in ("binance", "finnhub", "alpha_vantage")} | {"yahoo": "yahoo_finance"}
"""Providers that may have a key: name -> the beginning of the setting that holds it."""
NEEDS_KEY = frozenset({"finnhub", "alpha_vantage"})
"""Providers that answer nothing without one."""


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


class Fields(BaseModel):
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


def environment_names() -> dict[str, str]:
    """Environment name of every setting, by field name."""
    extras: dict[str, Any] = {name: field.json_schema_extra for name, field in Fields.model_fields.items()}
    return {name: str(extra["env"]) for name, extra in extras.items()}
