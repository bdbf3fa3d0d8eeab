"""Addresses of PostgreSQL databases: checked before use, and named in messages without their password."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from cluster.errors import ConfigError

_SCHEMES = frozenset({"postgresql", "postgres"})
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def require_dsn(dsn: str) -> str:
    """`dsn`, when it is the address of a PostgreSQL database.

    Else a `ConfigError` that repeats nothing of it, as the drivers' own errors do: where the parts are wrong,
    any of them may be the password.
    """
    try:
        parts = urlsplit(dsn)
        good = parts.scheme in _SCHEMES and parts.port != 0 and not _BROKEN_ESCAPE.search(dsn)
    except ValueError:  # of the port
        good = False
    if not good:
        raise ConfigError(
            "Check DATABASE_URL: expected postgresql://user:password@host:port/database, with the special "
            "characters of the password percent-encoded (@ is %40, / is %2F, % is %25)."
        )
    return dsn


def address(dsn: str) -> str:
    """`host:port/database` of a DSN, without user and password."""
    parts = urlsplit(dsn)
    return f"{parts.hostname or 'localhost'}:{parts.port or 5432}{parts.path}"
