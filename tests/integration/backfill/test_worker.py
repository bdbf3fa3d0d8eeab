"""A worker on a real queue and real tables; only the provider is a list of answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pytest

from cluster import metrics
from cluster.backfill.scan import scan
from cluster.backfill.worker import Worker
from cluster.clock import FakeClock
from cluster.errors import (
    FinSightError,
    Interrupted,
    InvalidSymbol,
    Malformed,
    NotEntitled,
    ProviderDown,
    RateLimited,
    Unauthorized,
)
from cluster.market import bars, calendars
from cluster.market.instants import Instants, to_instant
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.providers.protocol import BarSource
from cluster.storage import bars as stored_bars
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_records import JobStatus, Lease
from cluster.storage.database import Database

pytestmark = pytest.mark.postgres

M1 = Interval.M1
T = datetime(2025, 10, 8, 14, tzinfo=UTC)
NOW = datetime(2025, 10, 9, tzinfo=UTC)
BITCOIN = Instrument("BTC-USD", "SYNTHETIC", "crypto", "24/7")


def minute(number: int) -> datetime:
    return T + timedelta(minutes=number)


def table(numbers: list[int], *, symbol: str = "BTC-USD", close: float = 11.0) -> pa.Table:
    """Minute bars at `numbers` minutes after `T`; a close above 12 is above the bar's high."""
    ts = to_instant(T) + np.array(numbers, dtype="timedelta64[m]")
    flat = np.full(len(numbers), 11.0)
    return bars.from_columns(
        symbol, M1, ts, flat, flat + 1, flat - 1, np.full(len(numbers), close), flat, source="test"
    )


def written_so_far() -> float:
    return metrics.REGISTRY.get_sample_value("bars_written_total", {"source": "test"}) or 0.0


class Source:
    """Gives its answers one after another, the last for ever."""

    def __init__(self, *answers: pa.Table | Exception) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[datetime, datetime]] = []

    async def fetch(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        self.asked.append((start, end))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Silent:
    """Never answers."""

    async def fetch(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        await asyncio.Event().wait()


async def every_minute(symbol: str, interval: Interval, start: datetime, end: datetime) -> Instants | None:
    return calendars.expected_opens("24/7", interval, start, end)


def worker(queue: BackfillQueue, sources: Mapping[str, BarSource]) -> Worker:
    return Worker(queue, sources, every_minute, FakeClock(NOW), fetch_timeout_s=0.05)


async def leased(queue: BackfillQueue, provider: str | None = None) -> Lease:
    await queue.enqueue("BTC-USD", M1, minute(0), minute(10), provider=provider)
    (lease,) = await queue.claim("w", 1)
    return lease


async def job(queue: BackfillQueue, lease: Lease) -> JobStatus:
    found = await queue.get(lease.id)
    assert found is not None
    return found


async def stored(database: Database) -> list[int]:
    opens = await stored_bars.opens(database, "BTC-USD", M1, minute(-100), minute(100))
    return [int(one) for one in (opens - to_instant(T)).astype("timedelta64[m]").astype(int)]


async def known(database: Database) -> list[tuple[int, int, str, int]]:
    rows = await database.pool.fetch("SELECT * FROM known_gaps ORDER BY start_ts")
    return [
        (
            (row["start_ts"] - T) // timedelta(minutes=1),
            (row["end_ts"] - T) // timedelta(minutes=1),
            row["cause"],
            row["times_seen"],
        )
        for row in rows
    ]


async def test_a_job_writes_the_bars_of_its_range_and_is_done(
    queue: BackfillQueue, database: Database
) -> None:
    lease = await leased(queue)
    source = Source(table([-1, *range(10), 10]))
    assert await worker(queue, {"test": source}).run(lease) == "done"
    assert source.asked == [(minute(0), minute(10))]
    assert await stored(database) == list(range(10))
    done = await job(queue, lease)
    assert (done.state, done.rows_written, done.reason) == ("done", 10, None)
    assert await known(database) == []


async def test_bars_that_are_stored_already_are_not_counted_as_written(
    queue: BackfillQueue, database: Database
) -> None:
    async with database.transaction() as connection:
        await stored_bars.write(connection, table([0, 1, 2]))
    lease = await leased(queue)
    await worker(queue, {"test": Source(table(list(range(10))))}).run(lease)
    assert (await job(queue, lease)).rows_written == 7


async def test_a_worker_that_lost_its_lease_writes_nothing(queue: BackfillQueue, database: Database) -> None:
    lease = await leased(queue)
    await database.pool.execute("UPDATE backfill_jobs SET lease_until = now()")
    assert await worker(queue, {"test": Source(table([1]))}).run(lease) == "lease_lost"
    assert await stored(database) == []
    assert await known(database) == []
    (heir,) = await queue.claim("heir", 1)
    assert heir.id == lease.id


async def test_a_completion_that_fails_takes_the_bars_with_it(
    database: Database, queue: BackfillQueue
) -> None:
    """The bars and the end of the job are one transaction."""
    lease = await leased(queue)

    class Breaks(BackfillQueue):
        async def complete_many(self, *_: object, **__: object) -> NoReturn:
            raise ProviderDown("power cut after the write")

    await worker(Breaks(database), {"test": Source(table([1]))}).run(lease)
    assert await stored(database) == []
    assert (await job(queue, lease)).state == "ready"


@pytest.mark.parametrize(
    ("error", "result", "state", "attempt"),
    [
        (RateLimited("budget", NOW), "snoozed", "ready", 0),  # no attempt is used
        (ProviderDown("502"), "retried", "ready", 1),
        (Malformed("HTML"), "retried", "ready", 1),
        (NotEntitled("plan"), "dead", "dead", 1),
        (InvalidSymbol("unknown"), "dead", "dead", 1),
    ],
)
async def test_each_error_of_a_provider_has_its_effect(
    queue: BackfillQueue, error: FinSightError, result: str, state: str, attempt: int
) -> None:
    lease = await leased(queue)
    assert await worker(queue, {"test": Source(error)}).run(lease) == result
    after = await job(queue, lease)
    assert (after.state, after.attempt) == (state, attempt)
    assert str(error) in str(after.reason)


@pytest.mark.parametrize("off", [timedelta(minutes=-10), timedelta(minutes=10)])
async def test_a_limit_lasts_as_long_as_told_whatever_the_clock_of_the_worker(
    queue: BackfillQueue, database: Database, off: timedelta
) -> None:
    now = datetime.now(UTC) + off
    limit = RateLimited("429", now + timedelta(minutes=2))
    lease = await leased(queue)
    wrong = Worker(queue, {"test": Source(limit)}, every_minute, FakeClock(now))
    assert await wrong.run(lease) == "snoozed"
    (waits,) = await database.pool.fetch(
        "SELECT run_at - now(), until - now() FROM backfill_jobs, backfill_pauses"
    )
    assert all(timedelta(minutes=1) < wait < timedelta(minutes=3) for wait in waits)


async def test_what_was_answered_before_an_error_is_stored_and_the_next_attempt_asks_for_the_rest(
    queue: BackfillQueue, database: Database
) -> None:
    retry_at = datetime.now(UTC) + timedelta(hours=1)
    part = Interrupted(table([0, 1, 3]), minute(4), RateLimited("budget", retry_at))
    source = Source(part, table([4, 5, 6, 7, 8, 9]))
    lease, before = await leased(queue, "test"), written_so_far()
    assert await worker(queue, {"test": source}).run(lease) == "snoozed"
    assert await stored(database) == [0, 1, 3]
    assert written_so_far() - before == 3
    waiting = await job(queue, lease)
    assert (waiting.start, waiting.end, waiting.state) == (minute(4), minute(10), "ready")
    assert waiting.reason == "RateLimited: budget"
    async with database.connection() as connection:
        await connection.execute("UPDATE backfill_jobs SET run_at = now()")
        await connection.execute("DELETE FROM backfill_pauses")
    (again,) = await queue.claim("w", 1)
    assert await worker(queue, {"test": source}).run(again) == "done"
    assert source.asked == [(minute(0), minute(10)), (minute(4), minute(10))]
    assert await stored(database) == [0, 1, 3, 4, 5, 6, 7, 8, 9]


async def test_a_part_is_not_stored_by_a_worker_that_lost_its_lease(
    queue: BackfillQueue, database: Database
) -> None:
    lease = await leased(queue, "test")
    await queue.release(lease)
    part = Interrupted(table([0, 1]), minute(2), ProviderDown("502"))
    assert await worker(queue, {"test": Source(part)}).run(lease) == "lease_lost"
    assert await stored(database) == []
    assert (await job(queue, lease)).start == minute(0)


async def test_a_provider_that_refuses_our_key_is_left_alone_by_all_jobs_and_no_attempt_is_used(
    queue: BackfillQueue, database: Database
) -> None:
    refused = Unauthorized("bad key", datetime.now(UTC) + timedelta(hours=1))
    lease = await leased(queue, "test")
    assert await worker(queue, {"test": Source(refused)}).run(lease) == "snoozed"
    assert (await job(queue, lease)).attempt == 0
    await queue.enqueue("BTC-USD", M1, minute(20), minute(30), provider="test")
    assert await queue.claim("w", 1) == []


async def test_a_provider_that_never_answers_counts_as_down(queue: BackfillQueue) -> None:
    lease = await leased(queue)
    assert await worker(queue, {"test": Silent()}).run(lease) == "retried"
    assert (await job(queue, lease)).reason == "ProviderDown: no answer within 0.05 s"


async def test_an_answer_about_another_symbol_is_malformed(queue: BackfillQueue, database: Database) -> None:
    lease = await leased(queue)
    assert await worker(queue, {"test": Source(table([1], symbol="ETH-USD"))}).run(lease) == "retried"
    assert (await job(queue, lease)).reason == "Malformed: asked for symbol BTC-USD, the answer holds ETH-USD"
    assert await database.pool.fetchval("SELECT count(*) FROM candles_intraday") == 0


async def test_the_next_provider_is_asked_when_the_first_must_not_or_cannot(
    queue: BackfillQueue, database: Database
) -> None:
    lease = await leased(queue)
    sources = {
        "plan": Source(NotEntitled("plan")),
        "other": Source(InvalidSymbol("unknown")),
        "has it": Source(table(list(range(10)))),
        "never asked": Source(ProviderDown("502")),
    }
    assert await worker(queue, sources).run(lease) == "done"
    assert await stored(database) == list(range(10))


async def test_a_job_that_names_a_provider_asks_only_that_one(queue: BackfillQueue) -> None:
    first, second = Source(table([1])), Source(ProviderDown("502"))
    lease = await leased(queue, provider="second")
    assert await worker(queue, {"first": first, "second": second}).run(lease) == "retried"
    assert first.asked == []


async def test_a_job_for_a_provider_that_is_not_configured_is_dead_and_says_so(queue: BackfillQueue) -> None:
    lease = await leased(queue, provider="nowhere")
    assert await worker(queue, {"test": Source(table([1]))}).run(lease) == "dead"
    reason = "NotEntitled: provider 'nowhere' is not configured; configured: test"
    assert (await job(queue, lease)).reason == reason


class TestKnownGaps:
    async def test_bars_that_the_provider_lacks_are_known_afterwards(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        lease = await leased(queue)
        await worker(queue, {"test": Source(table([0, 1, 5, 6, 9]))}).run(lease)
        assert await known(database) == [(2, 5, "provider_hole", 1), (7, 9, "provider_hole", 1)]

    async def test_an_empty_answer_is_a_known_gap_and_the_job_is_done(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        lease = await leased(queue)
        assert await worker(queue, {"test": Source(table([]))}).run(lease) == "done"
        assert await known(database) == [(0, 10, "no_data", 1)]

    async def test_bars_that_break_the_rules_are_not_stored_and_not_asked_for_for_ever(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        lease = await leased(queue)
        answer = pa.concat_tables([table([*range(4), *range(6, 10)]), table([4, 5], close=99.0)])
        assert await worker(queue, {"test": Source(answer)}).run(lease) == "done"
        assert await stored(database) == [0, 1, 2, 3, 6, 7, 8, 9]
        assert await known(database) == [(4, 6, "rejected", 1)]

    async def test_a_bar_that_arrives_later_ends_the_gap_and_the_rest_is_seen_once_more(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        await worker(queue, {"test": Source(table([0, 1, 8, 9]))}).run(await leased(queue))
        await queue.enqueue("BTC-USD", M1, minute(4), minute(8))
        (again,) = await queue.claim("w", 1)
        await worker(queue, {"test": Source(table([4, 5]))}).run(again)
        assert await known(database) == [(2, 4, "provider_hole", 1), (6, 8, "provider_hole", 2)]


class TestScan:
    async def test_the_deleted_minutes_are_one_job_and_the_rest_is_not_asked_for(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        """Bars from 13:30 to 14:30, then `ts BETWEEN '14:00' AND '14:10'` is deleted."""
        async with database.transaction() as connection:
            await stored_bars.write(connection, table(list(range(-30, 30))))
        await database.pool.execute(
            "DELETE FROM candles_intraday WHERE symbol = 'BTC-USD' AND interval = '1m' "
            "AND ts BETWEEN '2025-10-08 14:00:00' AND '2025-10-08 14:10:00'"
        )
        found = await scan(database, queue, BITCOIN, M1, minute(-30), minute(30), now=NOW)
        assert (found.expected, found.missing) == (60, 11)
        (queued,) = found.jobs
        assert (queued.start, queued.end) == (minute(0), minute(11))

    async def test_a_second_scan_finds_the_same_job(self, queue: BackfillQueue, database: Database) -> None:
        first = await scan(database, queue, BITCOIN, M1, minute(0), minute(10), now=NOW)
        second = await scan(database, queue, BITCOIN, M1, minute(0), minute(10), now=NOW)
        assert [one.id for one in first.jobs] == [one.id for one in second.jobs]

    async def test_what_no_provider_has_is_not_queued_again_until_it_is_due(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        await worker(queue, {"test": Source(table([0, 1, 2, 6, 7, 8, 9]))}).run(await leased(queue))
        found = await scan(database, queue, BITCOIN, M1, minute(0), minute(12), now=NOW)
        assert [(one.start, one.end) for one in found.gaps] == [(minute(10), minute(12))]
        await database.pool.execute("UPDATE known_gaps SET recheck_at = now()")
        found = await scan(database, queue, BITCOIN, M1, minute(0), minute(10), now=NOW)
        assert [(one.start, one.end) for one in found.gaps] == [(minute(3), minute(6))]

    async def test_the_range_of_a_dead_job_is_left_to_a_person_for_a_while(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        await worker(queue, {"test": Source(InvalidSymbol("unknown"))}).run(await leased(queue))
        found = await scan(database, queue, BITCOIN, M1, minute(0), minute(10), now=NOW)
        assert (found.missing, found.jobs) == (0, ())
        await database.pool.execute("UPDATE backfill_jobs SET finished_at = now() - interval '2 days'")
        assert (await scan(database, queue, BITCOIN, M1, minute(0), minute(10), now=NOW)).missing == 10

    async def test_a_bar_that_has_not_closed_is_not_missing(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        found = await scan(database, queue, BITCOIN, M1, minute(0), minute(10), now=minute(5))
        assert [(one.start, one.end) for one in found.gaps] == [(minute(0), minute(3))]
        nothing = await scan(database, queue, BITCOIN, M1, minute(0), minute(10), now=minute(-5))
        assert (nothing.expected, nothing.jobs) == (0, ())

    async def test_a_bar_that_is_not_final_is_fetched_again_but_not_all_the_time(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        answer = table(list(range(10)))
        final = pa.array([number != 9 for number in range(10)])
        answer = answer.set_column(answer.schema.get_field_index("is_final"), "is_final", final)
        await worker(queue, {"test": Source(answer.cast(bars.BAR_SCHEMA))}).run(await leased(queue))
        assert await database.pool.fetchval("SELECT count(*) FROM candles_intraday") == 10
        assert await known(database) == [(9, 10, "provider_hole", 1)]
        assert (await scan(database, queue, BITCOIN, M1, minute(0), minute(10), now=NOW)).missing == 0
        await database.pool.execute("UPDATE known_gaps SET recheck_at = now()")
        found = await scan(database, queue, BITCOIN, M1, minute(0), minute(10), now=NOW)
        assert [(one.start, one.end) for one in found.gaps] == [(minute(9), minute(10))]
