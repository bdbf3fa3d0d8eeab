from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

import pytest
from rich.console import Console

from cluster.cli import terminal

NEW_YORK_WINTER = timezone(timedelta(hours=-5))


@dataclass(frozen=True)
class Bar:
    close: float
    ts: datetime


def test_json_is_one_document_with_times_in_utc_and_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar(float("nan"), datetime(2018, 12, 31, 9, 30, tzinfo=NEW_YORK_WINTER))
    terminal.emit([bar], as_json=True, text="for people")
    assert json.loads(capsys.readouterr().out) == [{"close": None, "ts": "2018-12-31T14:30:00Z"}]


def test_text_is_taken_literally(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.emit({}, as_json=False, text="[bold]not a style[/bold] :warning: 17")
    assert capsys.readouterr().out == "[bold]not a style[/bold] :warning: 17\n"


def test_a_row_in_a_pipe_is_one_line_however_long(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.emit({}, as_json=False, text=terminal.table(("name", "why"), [("SPX", "x" * 500)]))
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["name", "why"]
    assert row == "SPX   " + "x" * 500


def test_only_columns_of_numbers_stand_at_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(7, "a", None), (1200, 5, 3)]
    terminal.emit({}, as_json=False, text=terminal.table(("number", "mixed", "missing"), rows))
    assert capsys.readouterr().out.splitlines() == [
        "number  mixed  missing",
        "     7  a            -",
        "  1200  5            3",
    ]


def test_talk_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.talk("working on [it]")
    assert capsys.readouterr() == ("", "working on [it]\n")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (float("nan"), "-"),
        (True, "yes"),
        (0.1 + 0.2, "0.3"),
        ([], "-"),
        ({"sample": {}}, '{"sample": {}}'),
        (["SPX", None], "SPX, -"),
        (datetime(2018, 12, 31, tzinfo=UTC), "2018-12-31"),
        (datetime(2018, 12, 31, 9, 30, tzinfo=NEW_YORK_WINTER), "2018-12-31 14:30Z"),
        (datetime(2018, 12, 31, 14, 30, 7, 999_999, tzinfo=UTC), "2018-12-31 14:30:07Z"),
    ],
)
def test_values_read_well(value: object, text: str) -> None:
    assert terminal.shown(value) == text


def test_a_mapping_is_shown_by_dotted_names(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.emit({}, as_json=False, text=terminal.facts({"name": "m", "metrics": {"mae": 0.01}}))
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["name", "m"],
        ["metrics.mae", "0.01"],
    ]


def test_without_a_terminal_progress_is_a_line_for_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.progress() as tell:
        for percent in range(0, 101, 4):
            tell(percent / 100, f"step {percent}")
        tell(1.0, "the end, again")
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split()[0] for line in err.splitlines()] == [
        "0%", "12%", "24%", "36%", "48%", "60%", "72%", "84%", "96%", "100%"
    ]  # fmt: skip


def test_on_a_terminal_progress_is_a_bar_that_leaves_nothing_behind() -> None:
    program = (
        "from cluster.cli import terminal\n"
        "with terminal.progress() as tell:\n"
        "    tell(0.5, 'lstm [fold 1]')\n"
        "print('data')\n"
    )
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    child = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=theirs, env=environment, check=True
    )
    os.close(theirs)
    shown = os.read(ours, 65_536).decode()
    os.close(ours)
    assert child.stdout == b"data\n"
    assert "50%" in shown
    assert "lstm [fold 1]" in shown
    assert "\x1b[2K" in shown  # the line is erased at the end


def test_on_a_narrow_terminal_the_first_column_stays_whole() -> None:
    table = terminal.table(("id", "why"), [("train-20261121T061500-ab12", "a reason " * 20)])
    narrow = Console(width=60, file=io.StringIO())
    with narrow.capture() as shown:
        narrow.print(table)
    assert "train-20261121T061500-ab12  a reason" in shown.get()
    assert max(len(line) for line in shown.get().splitlines()) <= 60
