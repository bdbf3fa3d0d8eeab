"""The symbols of one calendar during one look: what is stored, who may be asked, and what came of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.ingest import plan
from cluster.ingest.cadence import Cadence
from cluster.ingest.memory import Lack, Memory
from cluster.ingest.plan import Ask, Places
from cluster.ingest.slots import FINAL, RUNNING, settled
from cluster.ingest.stored import Stored
from cluster.market import bars
from cluster.market.bars import Flags
from cluster.market.calendars import first_closes
from cluster.market.instants import to_instant, to_moment
from cluster.market.symbols import Instrument
from cluster.providers.router import Rule, Want, ranked
from cluster.providers.stats import Standing
from cluster.storage.newest_bar import Reached


class Market:
    """Of one look; symbols are told by their place in `symbols`."""

    def __init__(
        self, cadence: Cadence, members: Sequence[Instrument], stored: Stored, memory: Memory
    ) -> None:
        self.symbols = [each.symbol for each in members]
        self.stored = stored
        self._cadence, self._members, self._memory = cadence, members, memory
        self._after = stored.states.copy()
        self._asked = np.zeros(len(members), bool)
        self._place = {symbol: place for place, symbol in enumerate(self.symbols)}

    def rankings(
        self, standings: Sequence[Standing], sources: Mapping[str, object], now: datetime, rule: Rule
    ) -> dict[int, list[Standing]]:
        """For each symbol who may be asked, best first; nobody who has refused it lately."""
        known: dict[object, list[Standing]] = {}
        found = {}
        start = to_moment(self.stored.slots.opens[0]) if len(self.stored.slots) else now
        for place, each in enumerate(self._members):
            began_with = self.stored.began_with(place)
            # A provider that is no more configured cannot go on for ever.
            own_rule = rule if began_with in sources else "announce"
            listed = tuple(one.offer.symbols is None or each.symbol in one.offer.symbols for one in standings)
            alike = (each.asset_type, began_with, listed)
            if alike not in known:
                want = Want(each.symbol, self._cadence.interval, start, now, each.asset_type, began_with)
                known[alike] = ranked(want, standings, now, own_rule)
            refused = self._memory.refused_until_s
            able = known[alike]
            if refused:
                able = [one for one in able if (one.provider, each.symbol) not in refused]
            found[place] = able
        return found

    def asks(self, first: Standing, places: Sequence[int], now: datetime) -> list[Ask]:
        """What to ask `first` for, of the symbols at `places`."""
        some = np.array(places, dtype=np.intp)
        wanted = plan.asks(
            self.stored.slots,
            self.stored.states[some],
            self._memory.answers([self.symbols[place] for place in places]),
            now,
            first.offer.grace_s,
            wants_running=self._cadence.wants_running,
            alone=self.stored.by_others(first.provider)[some],
        )
        asks = [Ask(some[each.symbols], each.start, each.end) for each in wanted]
        for ask in asks:
            self._asked[ask.symbols] = True
        return asks

    def usable(
        self, answer: pa.Table, provider: str, asked_at: datetime, grace_s: float
    ) -> tuple[pa.Table, Places]:
        """The bars of `answer` to be written, no earlier final than they are, and their symbols' places."""
        known = pc.is_in(answer["symbol"], pa.array(self.symbols, pa.string()))
        table = settled(answer.filter(known), self.stored.slots, asked_at, grace_s)
        symbol = self._places(table)
        own = self.stored.own(table, symbol, provider)
        return table.filter(pa.array(own)), symbol[own]

    def late(self, table: pa.Table, symbol: Places) -> int:
        """How many bars of `table` come after a later one of their symbol."""
        final = table["is_final"].to_numpy()
        return plan.late(self.stored.slots, self.stored.states, symbol, bars.opens(table), final)

    def of(self, symbol: Places, names: Collection[str]) -> Flags:
        """Which of the places are those of symbols in `names`."""
        chosen: Flags = np.isin(symbol, [self._place[name] for name in names])
        return chosen

    def changes(self, symbol: Places, provider: str) -> dict[str, list[str]]:
        """The symbols whose session goes on with bars of `provider`, by whom they had before."""
        moved = np.unique(symbol[self.stored.by_others(provider)[symbol]]).tolist()
        before = sorted((self.stored.goes_on_with(place) or "", self.symbols[place]) for place in moved)
        return {name: [symbol for _, symbol in some] for name, some in groupby(before, key=lambda e: e[0])}

    def note(self, table: pa.Table, symbol: Places) -> None:
        """`table` is stored, too, its bars of the symbols at the places."""
        place, known = self.stored.slots.places(bars.opens(table))
        final = table["is_final"].to_numpy()
        cells = symbol[known], place[known]
        state = np.where(final[known], FINAL, RUNNING).astype(np.int8)
        self._after[cells] = np.maximum(self._after[cells], state)
        for at in np.unique(symbol[final]).tolist():
            self._memory.lacks.pop(self.symbols[at], None)

    def note_answered(self, places: Places, asked_at: datetime, grace_s: float) -> None:
        """All that there is of the symbols at `places` was given to us."""
        due = self.stored.slots.due(asked_at, grace_s)
        if due.any():
            newest = self.stored.slots.opens[due][-1]
            self._memory.answered |= dict.fromkeys((self.symbols[place] for place in places), newest)

    def note_lag(self, places: Places, now: datetime, grace_s: float) -> None:
        """Remember how far the symbols at `places`, which were asked for or are wanted, are behind."""
        before, after = self.stored.states[places], self._after[places]
        lacking_since = self._memory.lacking_since([self.symbols[place] for place in places])
        seconds, news = plan.lags_s(self.stored.slots, before, after, lacking_since, now, grace_s)
        for place, lag_s in zip(places[news].tolist(), seconds[news].tolist(), strict=True):
            self._memory.lag_s[self.symbols[place]] = lag_s

    def note_unserved(self, places: Sequence[int], now: datetime) -> None:
        """Nobody gives the symbols at `places` now: those that somebody has given fall behind."""
        self.note_lag(np.array([p for p in places if self._was_given(self.symbols[p])], np.intp), now, 0.0)

    def note_reached(self, reached: Iterable[Reached]) -> None:
        """So far are symbols stored of which no recent bar is."""
        told = list(reached)
        until = np.array([to_instant(each.until) for each in told], "datetime64[us]")
        closes = first_closes(self._members[0].calendar, self._cadence.interval, until)
        for each, closed_at in zip(told, closes, strict=True):
            self._memory.lacks[each.symbol] = Lack(closed_at, each.is_given)

    def unreached(self) -> list[str]:
        """The symbols without a recent bar of which it is not known how far they are stored."""
        without = np.flatnonzero(~(self.stored.states == FINAL).any(axis=1))
        names = (self.symbols[place] for place in without.tolist())
        return [symbol for symbol in names if symbol not in self._memory.lacks]

    def idle(self) -> int:
        """How many symbols nothing was asked for."""
        return int(np.count_nonzero(~self._asked))

    def _was_given(self, symbol: str) -> bool:
        """Whether anybody ever gave it, or somebody could have a moment ago."""
        lack = self._memory.lacks.get(symbol)
        return lack is None or lack.is_given or symbol in self._memory.lag_s

    def _places(self, table: pa.Table) -> Places:
        coded = table["symbol"].combine_chunks().dictionary_encode()
        places = np.array([self._place[name] for name in coded.dictionary.to_pylist()], np.intp)
        found: Places = places[coded.indices.to_numpy()]
        return found
