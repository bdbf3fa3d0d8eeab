"""What the database has of the newest bars of many symbols, and who gave it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.ingest.plan import Places
from cluster.ingest.slots import FINAL, Slots, States, states
from cluster.market import bars
from cluster.market.bars import Flags
from cluster.market.calendars import session_of
from cluster.market.instants import to_instant, to_moment
from cluster.storage import calendar_overrides
from cluster.storage.bar_windows import Windows, fetch
from cluster.storage.copy_format import Array, microseconds
from cluster.storage.database import Database

_NOBODY = -1


@dataclass(frozen=True, slots=True)
class Stored:
    """The newest bars of symbols, which are told by their place; sources are places in `names`, or -1."""

    slots: Slots
    names: list[str]
    states: States
    sources: npt.NDArray[np.int16]
    """Of the bars: (symbols, slots)."""
    first: npt.NDArray[np.int16]
    """Of the first bar of the newest session; none for daily bars, each of which is a session."""
    last: npt.NDArray[np.int16]
    """Of the last bar of that session."""

    def began_with(self, symbol: int) -> str | None:
        """Who gave the first bar of the newest session of `symbol`."""
        return self.names[self.first[symbol]] if self.first[symbol] != _NOBODY else None

    def goes_on_with(self, symbol: int) -> str | None:
        """Who gave the last bar of that session."""
        return self.names[self.last[symbol]] if self.last[symbol] != _NOBODY else None

    def by_others(self, provider: str) -> Flags:
        """The symbols whose session has come from somebody else than `provider`: (symbols,)."""
        others: Flags = (self.last != _NOBODY) & (self.last != self._code(provider))
        return others

    def own(self, table: pa.Table, symbol: Places, provider: str) -> Flags:
        """Which bars of `provider`, of the symbols at the places, are no other opinion on a final bar."""
        place, known = self.slots.places(bars.opens(table))
        if not len(self.slots):
            return np.ones(len(symbol), bool)
        final = known & (self.states[symbol, place] == FINAL)
        kept: Flags = ~final | (self.sources[symbol, place] == self._code(provider))
        return kept

    def _code(self, provider: str) -> int:
        return self.names.index(provider) if provider in self.names else len(self.names)


async def read(database: Database, symbols: Sequence[str], calendar: str, slots: Slots) -> Stored:
    """What is stored of `symbols` in `slots`, and who gave the bars of the last session."""
    none = np.full(len(symbols), _NOBODY, np.int16)
    if not len(slots):
        empty: npt.NDArray[np.int16] = np.empty((len(symbols), 0), np.int16)
        return Stored(slots, [], empty.astype(np.int8), empty, none, none)
    start, last = to_moment(slots.opens[0]), to_moment(slots.opens[-1])
    await calendar_overrides.refresh(database)
    begin, _ = await asyncio.to_thread(session_of, calendar, last)
    after = last + timedelta(microseconds=1)
    count = len(symbols)
    async with database.connection() as connection:
        windows = Windows(symbols, [start] * count, [after] * count)
        rows = await fetch(connection, slots.interval, windows, ("marks", "ts", "source"))
        openings = None
        if not slots.interval.is_daily:
            windows = Windows(symbols, [begin] * count, [after] * count)
            openings = await fetch(connection, slots.interval, windows, ("marks", "source"), limit=1)
    return await asyncio.to_thread(_stored, slots, count, rows, openings, to_instant(begin))


def _stored(
    slots: Slots,
    count: int,
    rows: Mapping[str, Array],
    openings: Mapping[str, Array] | None,
    begin: np.datetime64,
) -> Stored:
    names: list[str] = []
    ts = microseconds(rows["ts"]).view("datetime64[us]")
    sources = np.full((count, len(slots)), _NOBODY, np.int16)
    place, known = slots.places(ts)
    sources[rows["window"][known], place[known]] = _codes(rows["source"], names)[known]
    first = np.full(count, _NOBODY, np.int16)
    last = first.copy()
    if openings is not None:
        first[openings["window"]] = _codes(openings["source"], names)
        there = (sources != _NOBODY) & (slots.opens >= begin)
        newest = len(slots) - 1 - np.argmax(there[:, ::-1], axis=1)
        last = np.where(there.any(axis=1), sources[np.arange(count), newest], first)
    found = states(slots, count, rows["window"], ts, rows["is_final"])
    return Stored(slots, names, found, sources, first, last)


def _codes(padded: Array, names: list[str]) -> npt.NDArray[np.int16]:
    """The place in `names` of each blank-padded text; new ones are appended."""
    raw = pa.Array.from_buffers(pa.binary(padded.itemsize), len(padded), [None, pa.py_buffer(padded)])
    coded = raw.dictionary_encode()
    words = [word.decode().rstrip() for word in coded.dictionary.to_pylist()]
    names.extend(word for word in words if word not in names)
    places = np.array([names.index(word) for word in words], np.int16)
    codes: npt.NDArray[np.int16] = places[coded.indices.to_numpy()]
    return codes
