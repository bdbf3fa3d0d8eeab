"""Bars of many symbols from a provider that answers one symbol a call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

import pyarrow as pa

from cluster.clock import Clock
from cluster.errors import InputError, Interrupted, ProviderError, RateLimited
from cluster.market import bars
from cluster.providers.protocol import Many


async def one_by_one(
    fetch: Callable[[str], Awaitable[pa.Table]],
    symbols: Sequence[str],
    *,
    lanes: int,
    within_s: float,
    clock: Clock,
) -> Many:
    """Ask for each symbol, `lanes` of them at a time, so that other calls come in between.

    Those that were not begun within `within_s`, or whose turn comes after a rate limit that lasts longer, are
    answered with `RateLimited`. What was answered before an error is kept.
    """
    until_s = clock.monotonic_s() + within_s
    tables: list[pa.Table] = []
    errors: dict[str, Exception] = {}
    limit: RateLimited | None = None
    waiting = iter(symbols)

    async def lane() -> None:
        nonlocal limit
        for symbol in waiting:
            now_s = clock.monotonic_s()
            if limit is not None or now_s >= until_s:
                errors[symbol] = limit or RateLimited(f"not asked within {within_s:g} s", clock.now())
                continue
            try:
                tables.append(await fetch(symbol))
            except RateLimited as error:
                errors[symbol] = error
                if error.retry_at >= clock.now() + timedelta(seconds=until_s - now_s):
                    limit = error
            except Interrupted as error:
                tables.append(error.bars)
                errors[symbol] = error.cause
            except (ProviderError, InputError) as error:
                errors[symbol] = error

    await asyncio.gather(*(lane() for _ in range(min(lanes, len(symbols)))))
    return Many(bars.concat(tables), errors)


def portions(
    symbols: Sequence[str], start: datetime, end: datetime, step_s: int, page_bars: int
) -> list[Sequence[str]]:
    """The symbols in portions whose bars fit into one answer."""
    most = int((end - start).total_seconds() // step_s) + 1
    size = max(1, page_bars // most)
    return [symbols[at : at + size] for at in range(0, len(symbols), size)]
