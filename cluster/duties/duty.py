"""What has to be done again and again, whatever happens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Duty:
    """Work that comes back every `period_s` seconds.

    Two clusters on one database do it at once, and it may end in its midst: `run` must stand both.
    """

    name: str
    """Its label in metrics and logs."""
    period_s: float
    run: Callable[[], Awaitable[None]]
