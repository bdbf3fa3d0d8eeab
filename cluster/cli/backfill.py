"""`finsight backfill`: have a range of bars fetched by the workers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer

from cluster.cli import terminal
from cluster.cli.arguments import IntervalOption, JsonOption, SymbolArgument, moment
from cluster.errors import FinSightError, NotRunning
from cluster.market.intervals import Interval
from cluster.market.symbols import Tier

_WHOLE_HISTORY = timedelta(days=30 * 365)
_INTRADAY_HISTORY = timedelta(days=30)
_POLL_S = 0.5
_NOBODY_TAKES_IT_S = 60.0


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(backfill)


def backfill(
    symbol: SymbolArgument,
    interval: IntervalOption = Interval.D1,
    start: Annotated[
        datetime | None,
        typer.Option(
            "--from", parser=moment, metavar="TIME", help="UTC; default: 30 years ago, intraday 30 days ago."
        ),
    ] = None,
    end: Annotated[
        datetime | None,
        typer.Option("--to", parser=moment, metavar="TIME", help="UTC, not included; default: now."),
    ] = None,
    tier: Annotated[Tier, typer.Option("--tier", help="T0 is the most urgent, T3 the least.")] = "T2",
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the bars are there.")] = False,
    timeout_s: Annotated[float, typer.Option(min=1, help="Longest wait, in seconds.")] = 600.0,
    as_json: JsonOption = False,
) -> None:
    """Fetch the bars of a range anew; what is there already is compared and not written twice.

    The range goes into a queue that the workers of the running system empty. A range that waits there already
    is not queued again.
    """
    from cluster import settings
    from cluster.cli.api import Api
    from cluster.clock import SystemClock

    end = end or _last_grid_point(SystemClock().now(), interval)
    start = start or end - (_WHOLE_HISTORY if interval.is_daily else _INTRADAY_HISTORY)
    if start >= end:
        raise typer.BadParameter(
            f"--from {terminal.when(start)} is not before --to {terminal.when(end)}, which is not included"
        )
    wanted = {
        "symbol": symbol,
        "interval": interval,
        "start": start.isoformat(),
        "end": end.isoformat(),
        "priority": tier,
    }
    with Api(settings.load()) as api:
        jobs = api.post("/ops/backfill", wanted, admin=True)["jobs"]
        if wait:
            jobs = _wait(api, jobs, timeout_s)
    terminal.emit(jobs, as_json=as_json, text=_table(jobs))
    dead = [job for job in jobs if job["state"] == "dead"]
    if dead:
        raise FinSightError(f"{len(dead)} of {len(jobs)} jobs were given up, for the reasons above.")
    if not wait and not as_json:
        terminal.talk(f"Queued. `finsight gaps {symbol} --interval {interval}` tells what is still missing.")


def _last_grid_point(now: datetime, interval: Interval) -> datetime:
    """No running bar begins before it, and the same request again is the same range and finds its jobs."""
    return (
        now.replace(hour=0, minute=0, second=0, microsecond=0) if interval.is_daily else interval.floor(now)
    )


def _table(jobs: Sequence[Any]) -> Any:
    columns = ("job", "symbol", "interval", "from", "to", "tier", "state", "bars written", "why")
    names = ("id", "symbol", "interval", "start", "end", "priority", "state", "rows_written", "reason")
    times = ("start", "end")
    rows = [[terminal.when(job[name]) if name in times else job[name] for name in names] for job in jobs]
    return terminal.table(columns, rows)


def _wait(api: Any, jobs: Sequence[Any], timeout_s: float) -> list[Any]:
    """The jobs when each is done or dead; a job that was merged meanwhile is answered as the one it is in."""
    ids = [job["id"] for job in jobs]
    began = taken_at = time.monotonic()
    with terminal.progress() as tell:
        while True:
            found = {job["id"]: job for job in (api.get(f"/ops/backfill/{each}") for each in ids)}
            ended = [job for job in found.values() if job["state"] in ("done", "dead")]
            waits = [job for job in found.values() if job["state"] == "ready"]
            why = next((job["reason"] for job in waits if job["reason"]), None)
            written = sum(job["rows_written"] or 0 for job in ended)
            tell(len(ended) / len(found), why or f"{len(ended)} of {len(found)} jobs, {written} bars written")
            if len(ended) == len(found):
                return list(found.values())
            now = time.monotonic()
            if why or len(waits) + len(ended) < len(found) or ended:
                taken_at = now
            _give_up(now - began, now - taken_at, timeout_s)
            time.sleep(_POLL_S)


def _give_up(waited_s: float, untouched_s: float, timeout_s: float) -> None:
    if waited_s > timeout_s:
        raise NotRunning(f"Not finished within {timeout_s:g} s; the jobs stay queued. Wait again, or longer.")
    if untouched_s > _NOBODY_TAKES_IT_S:
        raise NotRunning(
            f"No backfill worker has taken a job for {_NOBODY_TAKES_IT_S:g} s; the jobs stay queued. "
            "`finsight status` tells whether a worker runs, `finsight up` starts one."
        )
