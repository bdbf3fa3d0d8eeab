from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import pytest

from cluster.market.adjustments import CorporateAction
from cluster.market.symbols import Instrument
from cluster.storage import corporate_actions, universe
from cluster.storage.database import Database
from cluster.storage.trading_volume import adv_21d
from tests.integration.storage.bar_tables import bar, write

pytestmark = pytest.mark.postgres

FIRST = datetime(2025, 9, 1, 13, 30, tzinfo=UTC)
NOW = datetime(2025, 10, 1, tzinfo=UTC)


async def traded(
    database: Database, symbol: str, volumes: Sequence[float | None], first: datetime = FIRST
) -> None:
    """One session a day with these volumes, the last of them not after 2025-09-30."""
    await universe.add(database, Instrument(symbol, "NYSE", "equity", "XNYS"))
    days = [first + timedelta(days=number) for number in range(len(volumes))]
    await write(
        database,
        *(bar(symbol, day, interval="1d", volume=of) for day, of in zip(days, volumes, strict=True)),
    )


async def test_it_is_the_mean_of_the_last_21_sessions(database: Database) -> None:
    await traded(database, "A", [1e9] * 9 + [float(volume) for volume in range(21)])
    assert await adv_21d(database, NOW) == {"A": pytest.approx(10.0)}


async def test_it_is_not_known_with_a_volume_missing_or_too_few_or_too_old_sessions(
    database: Database,
) -> None:
    await traded(database, "FEW", [5.0] * 20)
    await traded(database, "HOLE", [5.0] * 29 + [None])
    await traded(database, "OLD", [5.0] * 30, FIRST - timedelta(days=60))
    assert await adv_21d(database, NOW) == {}


async def test_a_bar_that_still_runs_and_later_ones_do_not_count(database: Database) -> None:
    await traded(database, "A", [7.0] * 30)
    running = bar("A", datetime(2025, 9, 30, 13, 30, tzinfo=UTC), interval="1d", volume=1e9, is_final=False)
    await write(database, running, bar("A", NOW, interval="1d", volume=1e9))
    assert await adv_21d(database, NOW) == {"A": pytest.approx(7.0)}


async def test_volumes_before_a_split_count_in_the_units_after_it(database: Database) -> None:
    await traded(database, "A", [10.0] * 24 + [40.0] * 6)  # 4 for 1 on the 25th
    told = [CorporateAction("A", date(2025, 9, 25), "split", 4.0, source) for source in ("finnhub", "yahoo")]
    later = CorporateAction("A", date(2025, 10, 2), "split", 2.0, "yahoo")
    async with database.transaction() as connection:
        await corporate_actions.write(connection, [*told, later])
    assert await adv_21d(database, NOW) == {"A": pytest.approx(40.0)}
