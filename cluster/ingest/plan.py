"""What to ask for: the bars of each symbol that are not final yet, and a few before them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from cluster.ingest.slots import FINAL, MISSING, RUNNING, Slots, States
from cluster.market.bars import Flags
from cluster.market.instants import Instants, to_instant, to_moment

AGAIN = 2
"""So many bars before the first that is wanted are read again, for their values may have been corrected."""

Places = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Ask:
    """Symbols, by their place, of which the bars with `start <= ts < end` are wanted."""

    symbols: Places
    start: datetime
    end: datetime


def asks(
    slots: Slots,
    stored: States,
    answered: Instants,
    now: datetime,
    grace_s: float,
    *,
    wants_running: bool,
    alone: Flags | None = None,
) -> list[Ask]:
    """What to ask a provider with `grace_s` for; symbols that begin with the same bar together, oldest first.

    A bar is wanted when it is over and not stored as final. One that is not stored at all but opened no later
    than the symbol's `answered` is not: a provider was asked for it in time and does not have it, so it is a
    gap. The bar that runs is wanted when `wants_running`. A symbol of which nothing is wanted, as when its
    market is closed and its bars are there, is not asked for. Of those that are `alone` no bar is read again.
    """
    due = slots.due(now, grace_s)
    unanswered = slots.opens > answered[:, None]
    wanted = due & ((stored == RUNNING) | ((stored == MISSING) & unanswered))
    running = ~due & (slots.closes > to_instant(now))
    if wants_running:
        wanted |= running
    some = np.flatnonzero(wanted.any(axis=1))
    if not len(some):
        return []
    first = np.argmax(wanted[some], axis=1)
    back = np.maximum(first - AGAIN, 0)
    begin = back if alone is None else np.where(alone[some], first, back)
    end = now + timedelta(microseconds=1) if wants_running else to_moment(slots.closes[due][-1])
    return [
        Ask(some[begin == place], to_moment(slots.opens[place]), end) for place in np.unique(begin).tolist()
    ]


def lags_s(
    slots: Slots, before: States, after: States, lacking_since: Instants, now: datetime, grace_s: float
) -> tuple[npt.NDArray[np.float64], Flags]:
    """How far each wanted symbol is behind at `now`, in seconds, and for which symbols that is news.

    A symbol whose newest bar that should be final was stored just now: the time since that bar's close. One
    that lacks it: the time since the close of the first bar after those it has, which is its `lacking_since`
    when it has none of `slots` (NaT: not known). Nothing else is news.
    """
    due = np.flatnonzero(slots.due(now, grace_s))
    if not len(due):
        return np.zeros(len(after)), np.zeros(len(after), bool)
    last = due[-1]
    final = after[:, : last + 1] == FINAL
    has_some = final.any(axis=1)
    newest = last - np.argmax(final[:, ::-1], axis=1)
    first_missing: Instants = np.where(has_some, slots.closes[np.minimum(newest + 1, last)], lacking_since)
    news = (newest < last) | (before[:, last] != FINAL)
    seconds = (to_instant(now) - first_missing) / np.timedelta64(1, "s")
    return seconds, np.where(has_some, news, lacking_since <= slots.closes[last])


def late(slots: Slots, before: States, symbol: Places, ts: Instants, final: Flags) -> int:
    """How many of these final bars come after a later one of their symbol had been stored as final."""
    place, known = slots.places(ts)
    done = before == FINAL
    newest = np.where(done.any(axis=1), len(slots) - 1 - np.argmax(done[:, ::-1], axis=1), -1)
    is_new = known & final & (before[symbol, place] == MISSING)
    return int(np.count_nonzero(is_new & (place < newest[symbol])))
