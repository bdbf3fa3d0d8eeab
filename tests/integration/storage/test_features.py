from __future__ import annotations

from datetime import UTC

import numpy as np
import pytest

from cluster.errors import BadFeatures
from cluster.market.intervals import Interval
from cluster.storage import features
from cluster.storage.database import Database
from cluster.storage.features import FEATURE_COLUMNS, FEATURE_SCHEMA

pytestmark = pytest.mark.postgres

OPENS = np.array(["2018-12-28T14:30", "2018-12-31T14:30", "2019-01-02T14:30"], "datetime64[us]")
MOMENTS = [moment.replace(tzinfo=UTC) for moment in OPENS.tolist()]


def rows(count: int = 3) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.arange(count * 50, dtype=np.float32).reshape(count, 50) / np.float32(7)


async def store(
    database: Database,
    values: np.ndarray[tuple[int, int], np.dtype[np.float32]],
    names: tuple[str, ...] = FEATURE_COLUMNS,
    feature_set: str = "a1b2",
) -> int:
    async with database.transaction() as connection:
        return await features.write(connection, "SPX", Interval.D1, OPENS, values, names, feature_set)


async def test_features_are_read_as_they_were_written(database: Database) -> None:
    assert await store(database, rows()) == 3
    found = await features.read(database, "SPX", Interval.D1, "a1b2")
    assert found.schema.equals(FEATURE_SCHEMA)
    assert found["timestamp"].to_pylist() == MOMENTS
    assert np.array_equal(np.stack([found[name].to_numpy() for name in FEATURE_COLUMNS], axis=1), rows())


async def test_a_feature_before_its_warm_up_is_null(database: Database) -> None:
    values = rows()
    values[0, :] = np.nan
    values[1, 3] = np.nan
    await store(database, values)
    found = await features.read(database, "SPX", Interval.D1, "a1b2")
    assert found["w_ent"].null_count == 1
    assert found[FEATURE_COLUMNS[3]].null_count == 2
    assert await database.pool.fetchval("SELECT count(w_ent) FROM feature_engineered_data") == 2


async def test_columns_find_their_place_by_name(database: Database) -> None:
    await store(database, rows()[:, ::-1].copy(), FEATURE_COLUMNS[::-1])
    found = await features.read(database, "SPX", Interval.D1, "a1b2")
    assert found["close_to_sma_10"].to_pylist() == [np.float32(n) / np.float32(7) for n in (0, 50, 100)]


async def test_only_changed_rows_are_written_again(database: Database) -> None:
    values = rows()
    values[0, 5] = np.nan
    await store(database, values)
    assert await store(database, values) == 0
    values[2, 7] = 0.5
    assert await store(database, values) == 1
    found = await features.read(database, "SPX", Interval.D1, "a1b2", limit=1, newest=True)
    assert found[FEATURE_COLUMNS[7]].to_pylist() == [0.5]


async def test_feature_sets_live_side_by_side(database: Database) -> None:
    await store(database, rows())
    await store(database, rows() + 1, feature_set="c3d4")
    for feature_set, first in (("a1b2", 0), ("c3d4", 1)):
        found = await features.read(database, "SPX", Interval.D1, feature_set)
        assert found["timestamp"].to_pylist() == MOMENTS
        assert found[FEATURE_COLUMNS[0]][0].as_py() == np.float32(first)


async def test_a_range_is_half_open_and_a_limit_takes_either_end(database: Database) -> None:
    await store(database, rows())
    inside = await features.read(database, "SPX", Interval.D1, "a1b2", MOMENTS[1], MOMENTS[2])
    assert inside["timestamp"].to_pylist() == [MOMENTS[1]]
    first = await features.read(database, "SPX", Interval.D1, "a1b2", limit=1)
    assert first["timestamp"].to_pylist() == [MOMENTS[0]]
    last = await features.read(database, "SPX", Interval.D1, "a1b2", limit=2, newest=True)
    assert last["timestamp"].to_pylist() == MOMENTS[1:]


async def test_two_writes_of_one_transaction_do_not_mix(database: Database) -> None:
    async with database.transaction() as connection:
        for symbol in ("SPX", "IXIC"):
            await features.write(connection, symbol, Interval.D1, OPENS, rows(), FEATURE_COLUMNS, "a1b2")
    count = "SELECT symbol, count(*) FROM feature_engineered_data GROUP BY symbol ORDER BY symbol"
    assert [tuple(row) for row in await database.pool.fetch(count)] == [("IXIC", 3), ("SPX", 3)]


async def test_wrong_names_are_told_apart(database: Database) -> None:
    names = ("rsi", *FEATURE_COLUMNS[1:])
    with pytest.raises(BadFeatures, match=r"missing: \['close_to_sma_10'\], unknown: \['rsi'\]"):
        await store(database, rows(), names)


async def test_a_wrong_shape_is_refused(database: Database) -> None:
    with pytest.raises(BadFeatures, match=r"shape \(2, 50\), expected \(3, 50\)"):
        await store(database, rows(2))


async def test_a_bar_given_twice_is_refused(database: Database) -> None:
    async with database.transaction() as connection:
        with pytest.raises(BadFeatures, match="one bar more than once"):
            await features.write(
                connection, "SPX", Interval.D1, OPENS[[0, 0, 1]], rows(), FEATURE_COLUMNS, "a1b2"
            )


async def test_the_columns_are_those_of_the_table(database: Database) -> None:
    query = (
        "SELECT column_name FROM information_schema.columns "
        "WHERE table_name = 'feature_engineered_data' AND data_type = 'real' ORDER BY ordinal_position"
    )
    assert tuple(row[0] for row in await database.pool.fetch(query)) == FEATURE_COLUMNS
