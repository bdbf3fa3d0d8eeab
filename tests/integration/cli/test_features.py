"""`finsight features SYMBOL` runs the job as a child process, on a real database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from cluster.market.intervals import Interval
from cluster.providers.sample import SampleProvider
from cluster.storage import bars
from cluster.storage.database import Database
from tests.commands import finsight
from tests.integration.cli.conftest import on

pytestmark = pytest.mark.postgres


@pytest.fixture
def inherited(environment: dict[str, str]) -> dict[str, str]:
    """The environment with 2016 to 2018 of SPX stored."""

    async def fill(database: Database) -> None:
        start, end = datetime(2016, 1, 1, tzinfo=UTC), datetime(2019, 1, 1, tzinfo=UTC)
        table = await SampleProvider().bars("SPX", Interval.D1, start, end)
        async with database.transaction() as connection:
            await bars.write(connection, table)

    on(environment["DATABASE_URL"], fill)
    return environment


def test_a_file_has_the_time_and_all_features_of_every_bar(
    inherited: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").write_text("raise RuntimeError('not the jobs of FinSight')")
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "spx features.parquet"

    said = finsight("features", "SPX", "--out", str(out), "--json", **inherited)

    assert (said.status, said.json["symbols"]) == (0, {"SPX": {"rows": 754}}), said.err
    table = pq.read_table(out)
    assert (table.column_names[0], table.num_columns, table.num_rows) == ("ts", 51, 754)
    assert table["ts"][0].as_py() == datetime(2016, 1, 4, 14, 30, tzinfo=UTC)


def test_the_childs_error_is_told_once_and_its_status_is_ours(
    environment: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    said = finsight("features", "AAPL", **environment)
    assert (said.status, said.out) == (1, "")
    told = capfd.readouterr().err + said.err
    assert told.count("AAPL") == 1


def test_ctrl_c_ends_the_child_too(inherited: dict[str, str]) -> None:
    program = (
        "from tests.commands import app; import sys; print('ready', flush=True); "
        "sys.exit(app(['features', 'SPX', '--json']))"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, **inherited},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with command:
        assert command.stdout is not None
        assert command.stdout.readline() == "ready\n"
        _wait_for_a_child_of(command.pid)
        os.killpg(command.pid, signal.SIGINT)  # as a terminal does
        assert command.wait(60) == 130, command.stdout.read()


def _wait_for_a_child_of(pid: int) -> None:
    deadline_s = time.monotonic() + 60
    while not psutil.Process(pid).children():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
