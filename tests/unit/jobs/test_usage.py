from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from cluster.market.intervals import Interval
from jobs import evaluate, features, ingest, train


def test_ingest_takes_the_sample_by_default() -> None:
    options = ingest.parse([])
    assert (options.provider, options.interval, options.symbols) == ("sample", Interval.D1, [])
    assert (options.start, options.end, options.timeout_s) == (None, None, 600.0)


def test_moments_are_utc_unless_they_say_otherwise() -> None:
    options = ingest.parse(["--start", "2020-01-02", "--end", "2020-01-03T04:05+02:00"])
    assert options.start == datetime(2020, 1, 2, tzinfo=UTC)
    assert options.end == datetime(2020, 1, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))


def test_symbols_have_commas_between_them() -> None:
    assert train.parse(["--symbols", "AAPL, BRK.B,"]).symbols == ["AAPL", "BRK.B"]


@pytest.mark.parametrize("words", [["train"], ["--interval", "2d"], ["--seed", "x"], ["--size", "huge"]])
def test_train_refuses_what_it_does_not_know(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        train.parse(words)
    assert stop.value.code == 2


@pytest.mark.parametrize(("word", "told"), [("aapl", "upper case"), ("A/B", "upper case")])
def test_a_misspelled_symbol_is_wrong_usage(word: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        features.parse([word])
    assert stop.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["SPX", "IXIC"]])
def test_a_file_holds_exactly_one_symbol(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        features.parse([*words, "--out", "x.parquet"])
    assert stop.value.code == 2
    assert "exactly one SYMBOL" in capsys.readouterr().err


@pytest.mark.parametrize("version", ["newest", "-1", "1.0", ""])
def test_a_version_is_a_number_or_the_latest(version: str) -> None:
    assert evaluate.parse(["--version", "12"]).version == "12"
    assert evaluate.parse([]).version == "latest"
    with pytest.raises(SystemExit) as stop:
        evaluate.parse([f"--version={version}"])
    assert stop.value.code == 2
