"""Which errors of PostgreSQL are its own trouble, and say nothing against what it was told to do. Pure.

Source: PostgreSQL documentation, appendix A, "PostgreSQL Error Codes".
"""

from __future__ import annotations

import asyncpg

_CLASSES = (
    "08",  # the connection
    "40",  # the transaction met another one
    "53",  # no disk, no memory, no connection left
    "57",  # stopped, starting, or a statement that was given up
    "58",  # the system below it
)
_STATES = (
    "25006",  # read-only
    "55P03",  # a lock did not come
)


def is_outage(error: asyncpg.PostgresError) -> bool:
    """Whether the same may well work when it is tried again, without anybody changing what is asked.

    Everything else is a matter of what was asked: data that breaks a constraint or has no room in its type, a
    statement that is wrong, a right that is missing.
    """
    state = error.sqlstate or ""
    return state[:2] in _CLASSES or state in _STATES
