"""The ranges that a scan for gaps compares, and what it sees missing in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import numpy as np

from cluster.backfill import gap_ledger
from cluster.backfill.gap_ledger import Look
from cluster.market.gaps import Runs
from cluster.market.instants import Instants, to_moment
from cluster.storage.backfill_merge import Span
from cluster.storage.bar_presence import BITS_AT_ONCE
from cluster.storage.gap_state import Group

NOTHING: Runs = np.empty((0, 2), dtype=np.int64)
NEVER: Instants = np.array([], dtype="datetime64[us]")


@dataclass(frozen=True, slots=True)
class Window:
    """A range to compare, of some symbols of one calendar."""

    calendar: str
    span: Span
    symbols: Sequence[str]
    is_changed: bool
    """Whether gaps may have vanished from it; in what is new they can only appear."""


@dataclass(frozen=True, slots=True)
class Looked:
    """A range that was compared, and the runs of bars that are missing in it."""

    calendar: str
    span: Span | None
    """`None`: all up to the last bar that was compared."""
    count: int
    missing: Runs
    at: Instants
    """The first expected open, from which `missing` counts, if there is one."""

    def on(self, expected: Instants) -> Look:
        """The same as places in `expected`."""
        offset = int(np.searchsorted(expected, self.at[0])) if len(self.at) else 0
        if self.span is None:
            return Look(0, offset + self.count, self.missing + offset)
        first, after = gap_ledger.places(expected, self.span)
        return Look(first, after, self.missing + offset)


def tails(groups: Iterable[Group], end: datetime) -> list[Window]:
    """What has settled since each group was compared."""
    return [
        Window(group.calendar, Span(group.scanned_to, end), group.symbols, is_changed=False)
        for group in groups
        if group.scanned_to is not None and group.scanned_to < end
    ]


def parts(window: Window, expected: Instants) -> Iterator[tuple[Span, Instants]]:
    """The window in ranges of no more bars than one statement may look at."""
    size = max(1, BITS_AT_ONCE // len(window.symbols))
    cuts = [to_moment(expected[place]) for place in range(size, len(expected), size)]
    bounds = [window.span.start, *cuts, window.span.end]
    for number, (start, end) in enumerate(pairwise(bounds)):
        yield Span(start, end), expected[number * size : (number + 1) * size]
