from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.storage.database import Database
from tests.commands import finsight
from tests.integration.cli.conftest import on

pytestmark = pytest.mark.postgres


def written(folder: Path, *lines: str) -> str:
    path = folder / "changes.csv"
    path.write_text("\n".join(["calendar,session,open,close,reason", *lines, ""]))
    return str(path)


def test_changed_sessions_are_listed_taken_back_and_in_the_audit_log(
    environment: dict[str, str], tmp_path: Path
) -> None:
    storm = "XNYS,2018-12-10,,,storm"
    early = "XNYS,2018-12-11,2018-12-11T14:30Z,2018-12-11T17:00Z,power cut"
    said = finsight("config", "calendars", "import", written(tmp_path, storm, early), **environment)
    assert (said.status, "2 of 2 sessions changed" in said.err) == (0, True)
    finsight("config", "calendars", "import", written(tmp_path, storm), **environment)  # changes nothing
    finsight("config", "calendars", "remove", written(tmp_path, early), **environment)

    listed = finsight("config", "calendars", "list", "--json", **environment).json
    assert listed == [
        {"calendar": "XNYS", "session": "2018-12-10", "open": None, "close": None, "reason": "storm"}
    ]

    async def check(database: Database) -> None:
        query = "SELECT action, target, detail FROM audit_log ORDER BY id"
        rows = [(row[0], row[1], json.loads(row[2])) for row in await database.pool.fetch(query)]
        assert rows == [
            ("calendar.change", "XNYS", {"sessions": ["2018-12-10", "2018-12-11"]}),
            ("calendar.restore", "XNYS", {"sessions": ["2018-12-11"]}),
        ]

    on(environment["DATABASE_URL"], check)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("NOWHERE,2018-12-10,,,storm", "calendar 'NOWHERE' is not known"),
        ("XNYS,2018-12-10,2018-12-10T17:00Z,2018-12-10T14:30Z,x", "line 3: open must be before close"),
    ],
)
def test_a_wrong_session_changes_nothing(
    environment: dict[str, str], tmp_path: Path, line: str, said: str
) -> None:
    wrong = finsight(
        "config", "calendars", "import", written(tmp_path, "XNYS,2018-12-11,,,x", line), **environment
    )
    assert wrong.status == 1
    assert said in wrong.err
    assert finsight("config", "calendars", "list", "--json", **environment).json == []
