"""The operation log: what each process tried and what it learned of it, one JSON object a line.

A process appends to a file of its own, one system call a line: killed at any moment it leaves whole lines.
Times are of the monotonic clock of the machine, which is one for all its processes and knows no jumps.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["invoke", "ok", "fail", "info"]
"""Tried; done for certain; not done for certain; nobody knows (killed, cut off, timed out)."""
Action = Literal["write", "read"]


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the log. An operation has one `invoke` and, unless its process died, one other event."""

    op: str
    """Identifies the operation in the whole log."""
    kind: Kind
    action: Action
    process: str
    at_ns: int
    symbol: str
    interval: str
    start: int
    """Seconds since 1970 of the first bar open, `end` excluded."""
    end: int
    effect: str = ""
    """What must happen once however often it is tried: a job; empty when any number will do."""
    versions: Mapping[str, int] | None = None
    """What a read found: revision by seconds since 1970, as JSON has it."""


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation with what became of it; `kind` is `info` when its process never told."""

    began: Event
    kind: Kind
    ended_ns: int | None
    versions: Mapping[int, int]

    @property
    def effect(self) -> str:
        """See `Event`."""
        return self.began.effect

    def covers(self, symbol: str, interval: str, ts: int) -> bool:
        """Whether a bar is within its reach."""
        began = self.began
        return (began.symbol, began.interval) == (symbol, interval) and began.start <= ts < began.end


class Log:
    """Appends the events of one process."""

    def __init__(self, folder: Path, process: str) -> None:
        self._process = process
        path = folder / f"{process}-{os.getpid()}-{time.monotonic_ns()}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def tell(
        self,
        kind: Kind,
        op: str,
        action: Action,
        where: tuple[str, str, int, int],
        *,
        effect: str = "",
        versions: Mapping[int, int] | None = None,
    ) -> None:
        """Append one event; `where` is symbol, interval, start and end."""
        found = None if versions is None else {str(ts): revision for ts, revision in versions.items()}
        event = Event(op, kind, action, self._process, time.monotonic_ns(), *where, effect, found)
        os.write(self._file, (json.dumps(asdict(event)) + "\n").encode())


def read(folder: Path) -> list[Event]:
    """Every event of every process, in the order of time."""
    lines = (line for path in folder.glob("*.jsonl") for line in path.read_text().splitlines())
    return sorted((Event(**json.loads(line)) for line in lines), key=lambda event: event.at_ns)


def operations(events: Iterable[Event]) -> list[Operation]:
    """The operations in the order of their beginning; ValueError when the log itself is wrong."""
    began: dict[str, Event] = {}
    ended: dict[str, Event] = {}
    for event in events:
        known = began if event.kind == "invoke" else ended
        if event.op in known:
            raise ValueError(f"operation {event.op} has two events {known[event.op].kind}, {event.kind}")
        known[event.op] = event
    if strays := ended.keys() - began.keys():
        raise ValueError(f"operations ended that nobody began: {sorted(strays)}")
    return [_joined(event, ended.get(op)) for op, event in began.items()]


def _joined(began: Event, ended: Event | None) -> Operation:
    if ended is None:
        return Operation(began, "info", None, {})
    versions = {int(ts): revision for ts, revision in (ended.versions or {}).items()}
    return Operation(began, ended.kind, ended.at_ns, versions)
