"""The settings for other eyes: with their secrets for their owner, without them for everybody else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from pydantic import SecretStr

from cluster.redaction import redact
from cluster.settings.model import Settings

HIDDEN = "(hidden)"
"""Stands for a value of which nobody can say which part is secret."""

_SECRET_NAME = re.compile(r"(?i)key|secret|token|pass|pwd|auth|credential|signature|cookie|crumb")
_OPEN_PARAMETERS = frozenset(
    {"application_name", "connect_timeout", "db", "dbname", "host", "port", "sslmode", "sslrootcert", "user"}
)


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
    return {name: _shown(value) for name, value in settings}


def _shown(value: Any) -> Any:
    if isinstance(value, SecretStr | Path):
        return str(value)  # a secret is stars then
    return without_secrets(value)


def without_secrets(value: Any) -> Any:
    """`value`, JSON of any depth, without passwords and keys; see `hide_password` for each text in it."""
    if isinstance(value, Mapping):
        return {
            str(name): "***" if _SECRET_NAME.search(str(name)) else without_secrets(part)
            for name, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_secrets(part) for part in value]
    return hide_password(value) if isinstance(value, str) else value


def hide_password(text: str | None) -> str | None:
    """`text`, mostly a URL, with its password and those in its query replaced by stars.

    `(hidden)` for what is no well-formed URL and may hold a password all the same: `key=value` lists, a
    password that is not percent-encoded.
    """
    if not text:
        return text
    if "://" not in text:
        return HIDDEN if "@" in text or "=" in text else redact(text)
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return HIDDEN
    if parts.fragment or "@" in parts.path + parts.query:
        return HIDDEN
    query = f"?{_open_query(parts.query)}" if parts.query else ""
    return f"{parts.scheme}://{_place(parts)}{parts.path}{query}"


def _place(parts: SplitResult) -> str:
    user, at, host = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    if not colon and not parts.scheme.startswith("postgres"):
        name = "***" if name else ""  # elsewhere what stands alone is a token
    return f"{name}:***@{host}" if colon else f"{name}{at}{host}"


def _open_query(query: str) -> str:
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return "&".join(
        f"{name}={value}" if name in _OPEN_PARAMETERS else f"{name}=***" if equal else "***"
        for name, equal, value in pairs
    )
