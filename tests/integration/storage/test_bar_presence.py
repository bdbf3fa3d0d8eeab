"""Which expected bars are not stored: a few of each symbol are looked up, many are counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from cluster.market.instants import to_instant
from cluster.market.intervals import Interval
from cluster.storage import bar_presence
from cluster.storage.database import Database
from tests.integration.storage.bar_tables import bar, write

pytestmark = pytest.mark.postgres


def minute(number: int) -> datetime:
    """Minutes from two before a month's end on: the third lies in another partition."""
    return datetime(2025, 8, 31, 23, 58, tzinfo=UTC) + timedelta(minutes=number)


async def missing(database: Database, symbols: list[str], minutes: list[int]) -> dict[str, list[list[int]]]:
    expected = np.array([to_instant(minute(number)) for number in minutes])
    async with database.transaction() as connection:
        found = await bar_presence.missing(connection, Interval.M1, symbols, expected)
    return {symbol: runs.tolist() for symbol, runs in found.items()}


async def store(database: Database) -> None:
    await write(
        database,
        *(bar("WHOLE", minute(number)) for number in range(8)),
        *(bar("HOLES", minute(number)) for number in (0, 3, 5, 6)),
        *(bar("YOUNG", minute(number), is_final=number < 3) for number in range(8)),
        bar("SPARE", minute(1)),
    )


async def test_of_a_few_expected_bars_the_missing_runs_are_told(database: Database) -> None:
    await store(database)
    found = await missing(database, ["WHOLE", "HOLES", "YOUNG", "SPARE", "NEVER"], [0, 1, 2, 3])
    assert found == {
        "HOLES": [[1, 2]],
        "YOUNG": [[3, 3]],
        "SPARE": [[0, 0], [2, 3]],
        "NEVER": [[0, 3]],
    }


async def test_of_many_expected_bars_the_missing_runs_are_told(database: Database) -> None:
    await store(database)
    found = await missing(database, ["WHOLE", "HOLES", "YOUNG", "SPARE", "NEVER"], list(range(8)))
    assert found == {
        "HOLES": [[1, 2], [4, 4], [7, 7]],
        "YOUNG": [[3, 7]],
        "SPARE": [[0, 0], [2, 7]],
        "NEVER": [[0, 7]],
    }


async def test_a_bar_that_nobody_expects_stands_for_no_other(database: Database) -> None:
    await store(database)
    assert await missing(database, ["SPARE"], [0, 2]) == {"SPARE": [[0, 1]]}
    assert await missing(database, ["SPARE"], [0, 2, 4, 5, 6]) == {"SPARE": [[0, 4]]}
