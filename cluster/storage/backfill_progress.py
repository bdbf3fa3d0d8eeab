"""What an attempt has done of its job, though it could not end it."""

from __future__ import annotations

from datetime import datetime

from cluster.storage.backfill_records import Lease
from cluster.storage.database import Connection

_ADVANCE = """
UPDATE backfill_jobs SET start_ts = $3 WHERE id = $1 AND lease_token = $2 AND start_ts < $3 AND end_ts > $3
"""


async def advance(connection: Connection, lease: Lease, until: datetime) -> None:
    """Have the job go on from `until`; in the transaction of its fence that stores what was before.

    The next attempt then asks for the rest only, and whoever wants the part before gets a job of its own.
    """
    await connection.execute(_ADVANCE, lease.id, lease.token, until)
