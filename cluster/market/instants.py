"""Times in bulk are `datetime64[us]` in UTC, single times are aware datetimes: the two ways between them."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from cluster.errors import InputError

Instants = npt.NDArray[np.datetime64]
"""Array of `datetime64[us]`, UTC by convention because NumPy has no time zones."""


def to_instant(moment: datetime) -> np.datetime64:
    """`moment` as `datetime64[us]` in UTC; a naive datetime names no instant and is an `InputError`."""
    if moment.tzinfo is None:
        raise InputError(
            f"{moment.isoformat()} has no time zone; give it in UTC, as in {moment.isoformat()}Z"
        )
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "us")


def to_moment(instant: np.datetime64) -> datetime:
    """The aware UTC datetime of one element of an `Instants` array."""
    naive: datetime = instant.astype("datetime64[us]").item()
    return naive.replace(tzinfo=UTC)
