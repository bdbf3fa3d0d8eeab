"""Compares an operation log and the final table with what the provider gives. Pure.

It believes neither the queue nor the workers: only what was logged, what is stored, and what the provider,
a pure function, says should be stored.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from tests.chaos.history import Event, Operation, operations

Values = tuple[float, ...]
Fault = Literal["lost", "invented", "wrong", "missing", "duplicate", "step back", "unseen"]


class Key(NamedTuple):
    """The bar."""

    symbol: str
    interval: str
    ts: int
    """Seconds since 1970 of its open."""


@dataclass(frozen=True, slots=True)
class Row:
    """A stored bar."""

    key: Key
    values: Values
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken, and where."""

    fault: Fault
    where: Key | str


def check(events: Iterable[Event], rows: Sequence[Row], expected: Mapping[Key, Values]) -> list[Violation]:
    """Every promise that was broken; empty when all were kept.

    lost       a write was acknowledged, and its bar is not stored
    invented   a bar is stored that no write can have brought, or that the provider does not have
    wrong      a stored bar has other values than the provider's
    missing    a bar of the provider is not stored, though nobody claimed to have written it
    duplicate  a key is stored twice, or an effect happened twice
    step back  a revision went down, or a bar that was read has vanished
    unseen     a read began after a write was acknowledged and did not find its bar
    """
    done = operations(events)
    writes = [one for one in done if one.began.action == "write"]
    reads = [one for one in done if one.began.action == "read" and one.kind == "ok"]
    stored = {row.key: row for row in rows}
    return [
        *_absent(writes, stored, expected),
        *_strange(writes, stored, expected),
        *_twice(writes, rows),
        *_backwards(reads, stored),
        *_unseen(writes, reads, expected),
    ]


def _absent(
    writes: Sequence[Operation], stored: Mapping[Key, Row], expected: Mapping[Key, Values]
) -> Iterator[Violation]:
    acknowledged = [one for one in writes if one.kind == "ok"]
    for key in sorted(expected.keys() - stored.keys()):
        promised = any(one.covers(*key) for one in acknowledged)
        yield Violation("lost" if promised else "missing", key)


def _strange(
    writes: Sequence[Operation], stored: Mapping[Key, Row], expected: Mapping[Key, Values]
) -> Iterator[Violation]:
    possible = [one for one in writes if one.kind != "fail"]
    for key, row in stored.items():
        if key not in expected or not any(one.covers(*key) for one in possible):
            yield Violation("invented", key)
        elif row.values != expected[key]:
            yield Violation("wrong", key)


def _twice(writes: Sequence[Operation], rows: Sequence[Row]) -> Iterator[Violation]:
    keys = Counter(row.key for row in rows)
    yield from (Violation("duplicate", key) for key, count in keys.items() if count > 1)
    effects = Counter(one.effect for one in writes if one.kind == "ok" and one.effect)
    yield from (Violation("duplicate", effect) for effect, count in effects.items() if count > 1)


def _backwards(reads: Sequence[Operation], stored: Mapping[Key, Row]) -> Iterator[Violation]:
    """Reads of one process follow one another; the table comes after all of them."""
    last: dict[tuple[str, Key], int] = {}
    for read in sorted(reads, key=lambda one: one.ended_ns or 0):
        began = read.began
        before = {key for process, key in last if process == began.process and read.covers(*key)}
        found = {Key(began.symbol, began.interval, ts): revision for ts, revision in read.versions.items()}
        for key in sorted(before | found.keys()):
            seen = last.get((began.process, key), -1)
            if found.get(key, -1) < seen:
                yield Violation("step back", key)
            last[began.process, key] = found.get(key, seen)
    for key in sorted({key for _, key in last}):
        final = stored[key].revision if key in stored else -1
        if final < max(revision for (_, other), revision in last.items() if other == key):
            yield Violation("step back", key)


def _unseen(
    writes: Sequence[Operation], reads: Sequence[Operation], expected: Mapping[Key, Values]
) -> Iterator[Violation]:
    by_series = defaultdict(list)
    for key in sorted(expected):
        by_series[key.symbol, key.interval].append(key)
    for read in reads:
        series = by_series[read.began.symbol, read.began.interval]
        sure = [one for one in writes if one.kind == "ok" and (one.ended_ns or 0) < read.began.at_ns]
        for key in series:
            if key.ts not in read.versions and read.covers(*key) and any(one.covers(*key) for one in sure):
                yield Violation("unseen", key)
