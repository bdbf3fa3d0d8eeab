from __future__ import annotations

from datetime import UTC, datetime

import pytest
import typer

from cluster.cli import arguments
from cluster.cli.submitting import options
from cluster.market.intervals import Interval
from tests.commands import finsight


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2018-12-31", datetime(2018, 12, 31, tzinfo=UTC)),
        ("2018-12-31T14:30", datetime(2018, 12, 31, 14, 30, tzinfo=UTC)),
        ("2018-12-31T09:30-05:00", datetime(2018, 12, 31, 14, 30, tzinfo=UTC)),
        ("2018-12-31T14:30:00Z", datetime(2018, 12, 31, 14, 30, tzinfo=UTC)),
    ],
)
def test_a_time_without_a_zone_is_utc(text: str, moment: datetime) -> None:
    assert arguments.moment(text) == moment
    assert arguments.moment(text).tzinfo is UTC


def test_a_list_of_symbols_may_have_blanks() -> None:
    assert arguments.symbols("SPX, IXIC") == "SPX,IXIC"
    with pytest.raises(typer.BadParameter, match="'ixic' is not valid"):
        arguments.symbols("SPX,ixic")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("predict", "spx"), "is not valid"),
        (("predict", "SPX", "--interval", "7m"), "'7m' is not one of"),
        (("predict", "SPX", "--model-type", "magic"), "'magic' is not one of"),
        (("gaps", "--from", "yesterday"), "is no date or time"),
        (
            ("backfill", "SPX", "--from", "2018-01-02", "--to", "2018-01-02"),
            "--from 2018-01-02 is not before",
        ),
        (("features", "--out", "x.parquet"), "name it"),
        (("evaluate", "--version", "newest"), "is no version"),
        (("train", "--size", "huge"), "'huge' is not one of"),
        (("train", "--seed", "-1"), "--seed"),
        (("models", "promote", "champion"), "VERSION"),
        (("symbols", "set", "SPX"), "nothing to change"),
        (("symbols", "set", "SPX", "--tier", "T4"), "'T4' is not one of"),
        (
            ("symbols", "add", "SPX", "--exchange", "X", "--calendar", "XNOPE"),
            "calendar 'XNOPE' is not known",
        ),
        (("jobs", "stop"), "ID"),
        (("symbols", "lst"), "lst"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_done(words: tuple[str, ...], text: str) -> None:
    said = finsight(*words)
    one_line = " ".join(word for word in said.err.replace("│", " ").split())
    assert (said.status, said.out) == (2, "")
    assert text in one_line


@pytest.mark.parametrize("family", ["config", "symbols", "models", "jobs"])
def test_the_help_of_a_family_is_not_taken_by_its_default_command(family: str) -> None:
    said = finsight(family, "--help")
    assert said.status == 0
    assert "COMMAND [ARGS]" in said.out


def test_options_of_a_job_leave_out_what_was_not_given() -> None:
    given = options(
        interval=Interval.D1, symbols="A,B", seed=0, start=datetime(2018, 1, 1, tzinfo=UTC), name=None
    )
    assert given == ["--interval=1d", "--symbols=A,B", "--seed=0", "--start=2018-01-01T00:00:00+00:00"]
