from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from cluster.errors import InputError, NotReady, NotRunning, ProviderError, UnknownSymbol
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.providers.sample import SampleProvider
from cluster.providers.synthetic import SyntheticProvider
from cluster.storage import bars, universe, universe_versions
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.database import Database
from jobs.ingest import Patience, Wanted, ingest
from tests.integration.jobs.conftest import Working

pytestmark = pytest.mark.postgres

START, END = datetime(2024, 3, 4, tzinfo=UTC), datetime(2024, 3, 6, tzinfo=UTC)
TWO_DAYS = Wanted(Interval.H1, (), START, END)


async def test_every_bar_of_the_sample_is_stored_and_a_second_time_nothing_is_to_be_done(
    database: Database, working: Working
) -> None:
    """Both indices have 5 031 sessions from 1999 to 2018."""
    provider = SampleProvider()
    async with working(provider):
        first = await ingest(database, provider, Wanted(Interval.D1))
    assert (first["symbols"], first["added"]) == (["IXIC", "SPX"], ["IXIC", "SPX"])
    assert (first["expected"], first["missing"], first["written"]) == (10_062, 10_062, 10_062)
    assert len(await bars.opens(database, "SPX", Interval.D1)) == 5_031

    again = await ingest(database, provider, Wanted(Interval.D1))  # no worker: there is nothing to do
    assert (again["expected"], again["missing"], again["written"], again["jobs"]) == (10_062, 0, 0, 0)


async def test_the_universe_gets_what_is_new_and_keeps_what_a_user_has_set(
    database: Database, working: Working
) -> None:
    provider = SyntheticProvider(symbols=3)
    mine = dataclasses.replace(provider.instruments()[0], tier="T0", active=False, name="mine")
    await universe.add(database, mine)
    async with working(provider):
        result = await ingest(database, provider, TWO_DAYS)
        await ingest(database, provider, TWO_DAYS)
    assert result["symbols"] == result["added"] == ["SYN0002", "SYN0003"]
    assert result["written"] == 2 * 48
    assert await universe.get(database, "SYN0001") == mine
    version, _ = await universe_versions.listed(database)
    assert version.source_meta == {
        "source": "ingest",
        "provider": "synthetic",
        "added": ["SYN0002", "SYN0003"],
    }


async def test_a_named_symbol_is_fetched_even_when_it_is_switched_off(
    database: Database, working: Working
) -> None:
    provider = SyntheticProvider(symbols=2)
    await universe.add(database, dataclasses.replace(provider.instruments()[1], active=False))
    async with working(provider):
        wanted = dataclasses.replace(TWO_DAYS, symbols=("SYN0002",))
        assert (await ingest(database, provider, wanted))["symbols"] == ["SYN0002"]
    assert len(await bars.opens(database, "SYN0001", Interval.H1)) == 0


async def test_progress_ends_with_all_jobs_done(database: Database, working: Working) -> None:
    told: list[tuple[float, str]] = []
    provider = SyntheticProvider(symbols=2)
    async with working(provider):
        await ingest(database, provider, TWO_DAYS, progress=lambda share, what: told.append((share, what)))
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert told[-1] == (1.0, "2 of 2 jobs")


async def test_jobs_that_were_given_up_fail_it_with_their_reasons(
    database: Database, working: Working
) -> None:
    provider = SyntheticProvider(symbols=1)
    await universe.add(database, Instrument("AAPL", "NASDAQ", "equity", "24/7"))
    wanted = dataclasses.replace(TWO_DAYS, symbols=("AAPL", "SYN0001"))
    async with working(provider):
        with pytest.raises(ProviderError, match=r"^1 of 2 backfill jobs were given up\. AAPL: .*SYN0001"):
            await ingest(database, provider, wanted)
    assert len(await bars.opens(database, "SYN0001", Interval.H1)) == 48


async def test_without_a_worker_it_says_so_and_the_jobs_stay(database: Database) -> None:
    patience = Patience(total_s=60.0, unattended_s=0.0)
    with pytest.raises(NotRunning, match=r"no backfill worker is running; `finsight up`"):
        await ingest(database, SyntheticProvider(symbols=1), TWO_DAYS, patience=patience)
    assert (await BackfillQueue(database).depth())["T3"].waiting == 1


async def test_a_worker_that_is_busy_elsewhere_is_no_missing_worker(database: Database) -> None:
    queue = BackfillQueue(database)
    await queue.enqueue("OTHER", Interval.H1, START, END)
    await queue.claim("busy", 1)
    patience = Patience(total_s=0.5, unattended_s=0.0)
    with pytest.raises(NotReady, match=r"1 of 1 backfill jobs are not done after 0\.5 s"):
        await ingest(database, SyntheticProvider(symbols=1), TWO_DAYS, patience=patience)


async def test_a_job_that_another_request_absorbs_is_followed(database: Database, working: Working) -> None:
    """Jobs before, behind and in the gap between them end up as one."""
    provider = SyntheticProvider(symbols=1)
    queue = BackfillQueue(database)
    [before] = await queue.enqueue("SYN0001", Interval.H1, START, END, provider="synthetic")
    [other] = await queue.enqueue(
        "SYN0001", Interval.H1, END + timedelta(hours=1), END + timedelta(hours=3), provider="synthetic"
    )
    await queue.enqueue("SYN0001", Interval.H1, END, END + timedelta(hours=1), provider="synthetic")
    found = await queue.get_many([before.id, other.id, 10**9])
    assert set(found) == {before.id, other.id}
    assert found[before.id] == found[other.id]
    async with working(provider):
        result = await ingest(database, provider, TWO_DAYS)
    assert (result["jobs"], result["written"]) == (1, 51)


async def test_what_the_provider_does_not_offer_is_refused(database: Database) -> None:
    sample = SampleProvider()
    with pytest.raises(InputError, match="sample has no 1h bars; it has 1d"):
        await ingest(database, sample, Wanted(Interval.H1))
    with pytest.raises(UnknownSymbol, match="NOPE; see `finsight symbols`"):
        await ingest(database, sample, Wanted(Interval.D1, ("NOPE", "SPX")))
    with pytest.raises(InputError, match="ends at 2019-01-01"):
        await ingest(database, sample, Wanted(Interval.D1, start=datetime(2020, 1, 1, tzinfo=UTC)))
