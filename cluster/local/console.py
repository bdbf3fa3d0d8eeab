"""How a start or a stop tells how far it is, and remembers how long its steps took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Console(Protocol):
    """Where to tell it."""

    def working(self, what: str) -> None:
        """`what` has begun."""
        ...

    def progress(self, what: str, share: float) -> None:
        """So much (0..1) of the step is done; `what` is being done now."""
        ...

    def done(self, what: str, seconds: float) -> None:
        """`what` has ended after so many seconds."""
        ...


@contextmanager
def step(what: str, console: Console, seconds: dict[str, float]) -> Iterator[None]:
    """Tell `console` that `what` begins and ends; its duration goes into `seconds`, unless it fails."""
    started = time.monotonic()
    console.working(what)
    yield
    seconds[what] = round(time.monotonic() - started, 2)
    console.done(what, seconds[what])
