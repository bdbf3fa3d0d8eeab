"""Who changed what: one row for every write by an administrator, in the transaction of the write."""

from __future__ import annotations

import json
import os
import pwd
from dataclasses import dataclass
from typing import Any

from cluster.storage.database import Connection

_RECORD = """
INSERT INTO audit_log (who, action, target, detail, request_id, address)
VALUES ($1, $2, $3, $4::jsonb, $5, $6)
"""


@dataclass(frozen=True, slots=True)
class Author:
    """Who asks for a write."""

    who: str
    """Name and fingerprint of a key (`admin key 1f2e3d4c`), or the user of a command (`user alice`)."""
    request_id: str | None = None
    address: str | None = None
    """Where the request came from, as the server saw it."""


def os_user() -> Author:
    """The user whom this process belongs to, for commands that write into the database themselves."""
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # containers run users that have no name
        name = str(os.geteuid())
    return Author(f"user {name}")


async def record(
    connection: Connection, author: Author | None, action: str, target: str, **detail: Any
) -> None:
    """Log that `author` did `action` (`symbol.change`) to `target` (`AAPL`); `detail` must hold no secret.

    Without an author nothing is logged: then it is FinSight's own work.
    """
    if author is not None:
        said = json.dumps(detail, default=str)
        await connection.execute(_RECORD, author.who, action, target, said, author.request_id, author.address)
