from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from cluster.errors import InputError, NotEnoughHistory, UnknownSymbol
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.providers.synthetic import SyntheticProvider
from cluster.storage import bars, universe
from cluster.storage import features as stored
from cluster.storage.database import Database
from jobs import features, history
from training.features import DIGEST, NAMES, compute

pytestmark = pytest.mark.postgres

START, MIDDLE, END = (datetime(year, 1, 1, tzinfo=UTC) for year in (2022, 2023, 2024))
UP_TO_DATE = {"rows": 730, "written": 0}


async def write_bars(database: Database, table: pa.Table) -> None:
    async with database.transaction() as connection:
        await bars.write(connection, table)


async def fill(database: Database, symbol: str = "SYN0001", end: datetime = END) -> pa.Table:
    """Daily bars of a synthetic symbol, in the universe and in the store."""
    await universe.add(database, Instrument(symbol, "SYNTHETIC", "crypto", "24/7"))
    table = await SyntheticProvider().bars(symbol, Interval.D1, START, end)
    await write_bars(database, table)
    return table


async def update(database: Database) -> dict[str, dict[str, int]]:
    symbols = await history.chosen(database, [])
    rows: dict[str, dict[str, int]] = (await features.store(database, symbols, Interval.D1))["symbols"]
    return rows


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_features_of_every_symbol_are_stored_as_they_are_computed(database: Database) -> None:
    table = await fill(database)
    await fill(database, "SYN0002", MIDDLE)
    assert await update(database) == {
        "SYN0001": {"rows": 730, "written": 730},
        "SYN0002": {"rows": 365, "written": 365},
    }
    found = await stored.read(database, "SYN0001", Interval.D1, DIGEST)
    values = np.column_stack([found[name].to_numpy() for name in NAMES])
    np.testing.assert_array_equal(values, compute(table).values)


async def test_only_what_is_new_or_revised_is_written_again(database: Database) -> None:
    table = await fill(database, end=MIDDLE)
    await update(database)
    await fill(database)
    assert await update(database) == {"SYN0001": {"rows": 730, "written": 365}}
    assert await update(database) == {"SYN0001": UP_TO_DATE}

    last = table.num_rows - 1  # its high changes the features of this bar and of those that look back to it
    highs = [*table["high"].to_pylist()[:-1], table["high"][last].as_py() * 1.1]
    revised = table.set_column(table.schema.get_field_index("high"), table.schema.field("high"), [highs])
    await write_bars(database, revised.slice(last))
    written = (await update(database))["SYN0001"]["written"]
    assert 0 < written <= 365 + 1
    assert await update(database) == {"SYN0001": UP_TO_DATE}


async def test_a_symbol_without_bars_has_no_rows(database: Database) -> None:
    await universe.add(database, Instrument("AAPL", "NASDAQ", "equity", "XNYS"))
    assert await update(database) == {"AAPL": {"rows": 0, "written": 0}}


async def test_a_file_holds_ts_and_every_feature(database: Database, tmp_path: Path) -> None:
    table = await fill(database)
    out = tmp_path / "with space.parquet"
    out.write_text("what was there before")
    await features.export(database, "SYN0001", Interval.D1, out)
    found = parquet.read_table(out)
    assert found.column_names == ["ts", *NAMES]
    assert found["ts"].equals(table["ts"])
    values = np.column_stack([found[name].to_numpy() for name in NAMES])
    np.testing.assert_array_equal(values, compute(table).values)
    assert names(tmp_path) == [out.name]


async def test_a_file_that_cannot_be_written_is_told(database: Database, tmp_path: Path) -> None:
    await fill(database)
    with pytest.raises(InputError, match=r"there is no folder .*nowhere"):
        await features.export(database, "SYN0001", Interval.D1, tmp_path / "nowhere" / "x.parquet")


async def test_without_bars_no_file_is_made(database: Database, tmp_path: Path) -> None:
    await universe.add(database, Instrument("AAPL", "NASDAQ", "equity", "XNYS"))
    with pytest.raises(NotEnoughHistory, match=r"`finsight backfill AAPL --interval 1d`"):
        await features.export(database, "AAPL", Interval.D1, tmp_path / "x.parquet")
    with pytest.raises(UnknownSymbol, match="NOPE"):
        await history.chosen(database, ["NOPE"])
    assert names(tmp_path) == []
