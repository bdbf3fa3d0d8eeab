"""What of the settings a running process can take over, and whether two processes have the same."""

from __future__ import annotations

import json
from hashlib import sha256

from cluster.settings.model import Settings
from cluster.settings.showing import revealed

NEEDS_RESTART = frozenset(
    {
        "home", "profile", "timescale", "database_url", "redis_url", "mlflow_tracking_uri", "ray_address",
        "host",
        "port_offset", "api_port", "dashboard_port", "mlflow_port", "metrics_port", "postgres_port",
        "redis_port", "ray_port", "object_store_bytes", "model_name", "model_dir", "model_poll_s",
    }
)  # fmt: skip
"""Settings that hold from the start of a process to its end; a reload changes all others."""


def changed(before: Settings, after: Settings) -> list[str]:
    """Names of the settings that differ, sorted."""
    return sorted(name for name, value in after if value != getattr(before, name))


def digest(settings: Settings) -> str:
    """16 hexadecimal digits that stand for everything that a reload can change, keys included."""
    values = {name: value for name, value in revealed(settings).items() if name not in NEEDS_RESTART}
    return sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
