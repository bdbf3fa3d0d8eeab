from __future__ import annotations

from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from cluster.market.intervals import Interval
from cluster.storage import known_gaps
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_merge import Span
from cluster.storage.database import Database
from cluster.storage.known_gaps import Hole
from tests.commands import finsight
from tests.integration.cli.conftest import on

pytestmark = pytest.mark.postgres

DECEMBER = ("--from", "2018-12-01", "--to", "2019-01-01")


def day(number: int) -> datetime:
    return datetime(2018, 12, number, tzinfo=UTC)


def found(environment: dict[str, str], *words: str) -> list[tuple[str, str, int, str]]:
    said = finsight("gaps", "--json", *words, **environment)
    return [(each["start"], each["end"], each["missing"], each["cause"]) for each in said.json]


def test_days_that_are_lost_are_found_and_holidays_are_not(environment: dict[str, str]) -> None:
    said = finsight("gaps", "SPX", *DECEMBER, "--json", **environment)
    assert said.json == [
        {
            "symbol": "SPX",
            "interval": "1d",
            "tier": "T2",
            "start": "2018-12-10T14:30:00Z",
            "end": "2018-12-12T14:30:00Z",
            "missing": 2,
            "cause": "open",
        }
    ]


def test_the_range_begins_with_the_oldest_bar_unless_it_is_given(environment: dict[str, str]) -> None:
    assert len(found(environment, "SPX", "--to", "2019-01-01")) == 1
    first = found(environment, "SPX", "--from", "2018-11-29", "--to", "2019-01-01")[0]
    assert first == ("2018-11-29T14:30:00Z", "2018-12-01T14:30:00Z", 2, "open")


def test_what_is_under_way_or_known_is_told_as_the_cause(environment: dict[str, str]) -> None:
    async def explain(database: Database) -> None:
        await BackfillQueue(database).enqueue("SPX", Interval.D1, day(10), day(11))
        async with database.transaction() as connection:
            hole = Hole(Span(day(11), day(12)), "no_data")
            await known_gaps.record(connection, "SPX", Interval.D1, "sample", hole.span, [hole])

    on(environment["DATABASE_URL"], explain)
    assert found(environment, "SPX", *DECEMBER) == [
        ("2018-12-10T14:30:00Z", "2018-12-11T14:30:00Z", 1, "in the queue"),
        ("2018-12-11T14:30:00Z", "2018-12-12T14:30:00Z", 1, "sample has none"),
    ]


def test_a_symbol_without_bars_gets_the_command_that_fetches_them(environment: dict[str, str]) -> None:
    said = finsight("gaps", **environment)
    assert "`finsight backfill IXIC --interval 1d`" in said.err
    assert [line.split()[0] for line in said.out.splitlines()] == ["symbol", "SPX", "SPX"]


def test_without_a_gap_it_says_so_and_the_json_is_an_empty_list(environment: dict[str, str]) -> None:
    week = ("--from", "2018-12-12", "--to", "2018-12-30")
    said = finsight("gaps", "SPX", *week, **environment)
    assert (said.status, said.out, said.err) == (0, "", "No 1d bar is missing.\n")
    assert finsight("gaps", "SPX", *week, "--json", **environment).json == []


def test_an_unknown_symbol_is_an_error(environment: dict[str, str]) -> None:
    said = finsight("gaps", "AAPL", **environment)
    assert (said.status, said.out) == (1, "")
    assert "Symbol AAPL is not in the universe" in said.err


def test_an_unknown_calendar_is_told_of_the_symbol_that_is_named_and_hides_no_other(
    environment: dict[str, str],
) -> None:
    async def add(database: Database) -> None:
        await database.pool.execute(
            "INSERT INTO symbol_universe (symbol, exchange, asset_type, calendar) "
            "VALUES ('AAPL', 'X', 'equity', 'NOPE')"
        )

    on(environment["DATABASE_URL"], add)
    with capture_logs() as logs:
        everybody = finsight("gaps", *DECEMBER, "--json", **environment)
    assert {each["symbol"] for each in everybody.json} == {"SPX", "IXIC"}
    assert [(each["event"], each["first"]) for each in logs] == [("calendar_unknown", "AAPL")]
    named = finsight("gaps", "AAPL", *DECEMBER, **environment)
    assert (named.status, "calendar 'NOPE' is not known" in named.err) == (1, True), named.err
