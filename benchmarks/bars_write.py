"""Writing a million new bars against the raw COPY of the same rows: `python -m benchmarks.bars_write`.

Ours is `bars.write` of an Arrow table in arrival order, up to the commit: check, sort, compare with what is
stored, copy. The peer is a bare binary COPY of a stream that was made beforehand, in arrival order, into a
table with the same columns and primary key, without partitions and checks, up to the commit. The note also
gives the peer fed in the order of its key, which is the most that this way of writing can reach.
"""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator

import pyarrow as pa

from benchmarks.million_bars import (
    BARS,
    Outcome,
    arriving,
    empty,
    private_server,
    report_rates,
    seconds,
    write_ours,
)
from cluster.storage.copy_format import Column, Values, Words, encode, timestamps
from cluster.storage.database import Database

ROUNDS = 5
GOAL = 0.6


def peer_columns(table: pa.Table) -> dict[str, Column]:
    """The columns of the table for the COPY stream, in the order of its rows."""
    columns: dict[str, Column] = {"ts": timestamps(table["ts"].cast(pa.int64()).to_numpy())}
    for name in ("open", "high", "low", "close", "volume"):
        columns[name] = Values(table[name].to_numpy(), ">f8")
    columns["trade_count"] = Values(table["trade_count"].to_numpy(), ">i8")
    for name in ("is_final", "aligned"):
        columns[name] = Values(table[name].to_numpy(), "?")
    for name in ("symbol", "interval", "source"):
        coded = table[name].combine_chunks().dictionary_encode()
        words = [word.encode() for word in coded.dictionary.to_pylist()]
        columns[name] = Words(words, coded.indices.to_numpy())
    return columns


async def stream(table: pa.Table) -> tuple[list[str], bytes]:
    """Names of the columns and the whole COPY stream."""
    columns = peer_columns(table)
    return list(columns), b"".join([chunk async for chunk in encode(list(columns.values()), table.num_rows)])


async def copy_raw(database: Database, names: list[str], payload: bytes) -> None:
    """One COPY in one transaction."""
    megabyte = 2**20

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(payload), megabyte):
            yield payload[start : start + megabyte]

    async with database.transaction() as connection:
        await connection.copy_to_table("peer", source=chunks(), columns=names, format="binary")


async def measure() -> Outcome:
    """Alternate the sides, each time on empty tables."""
    table = arriving()
    by_arrival = await stream(table)
    by_key = await stream(table.sort_by([("symbol", "ascending"), ("ts", "ascending")]))
    ours, theirs, best = [], [], []
    async with private_server() as database:
        for _ in range(ROUNDS):
            await empty(database)
            ours.append(BARS / await seconds(lambda: write_ours(database, table)))
            await empty(database)
            theirs.append(BARS / await seconds(lambda: copy_raw(database, *by_arrival)))
            await empty(database)
            best.append(BARS / await seconds(lambda: copy_raw(database, *by_key)))
    note = (
        f"peer: raw binary COPY of the same rows, same order, same primary key; medians of {ROUNDS} "
        f"alternating rounds; the same COPY fed in key order: {statistics.median(best):.0f} bars/s"
    )
    return Outcome("bars_write", ours, theirs, GOAL, note)


if __name__ == "__main__":
    report_rates(measure)
