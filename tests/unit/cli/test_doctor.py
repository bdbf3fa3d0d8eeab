from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.cli import machine
from cluster.ports import free_port
from tests.commands import finsight


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_free_port_is_fine() -> None:
    assert machine.port(free_port(), "HTTP API", "FINSIGHT_API_PORT", set()).state == "ok"


def test_a_port_of_the_instance_itself_is_fine(taken: int) -> None:
    found = machine.port(taken, "HTTP API", "FINSIGHT_API_PORT", {os.getpid()})
    assert (found.state, found.detail) == ("ok", "this instance listens")


def test_a_port_of_somebody_else_names_holder_and_setting(taken: int) -> None:
    found = machine.port(taken, "HTTP API", "FINSIGHT_API_PORT", {1})
    assert found.state == "failed"
    assert f"pid {os.getpid()}" in found.detail
    assert "FINSIGHT_API_PORT" in found.remedy


def test_room_is_looked_for_where_the_folder_will_be(tmp_path: Path) -> None:
    assert machine.disk(tmp_path / "not" / "yet" / "there").state == "ok"


def test_small_shared_memory_is_a_warning(tmp_path: Path) -> None:
    assert machine.shared_memory(2**20, tmp_path).state == "ok"
    assert machine.shared_memory(2**60, tmp_path).state == "warning"
    assert machine.shared_memory(2**20, tmp_path / "missing").state == "warning"


def test_this_environment_has_all_packages() -> None:
    assert [finding.state for finding in machine.installation()] == ["ok", "ok"]


def _settings(home: Path) -> dict[str, str]:
    names = ("API", "DASHBOARD", "MLFLOW", "METRICS")
    return {"FINSIGHT_HOME": str(home), **{f"FINSIGHT_{name}_PORT": str(free_port()) for name in names}}


def test_a_machine_where_nothing_runs_is_healthy(tmp_path: Path) -> None:
    said = finsight("doctor", "--json", **_settings(tmp_path / "home"))
    states = {each["name"]: each["state"] for each in said.json}
    servers = ("PostgreSQL", "Valkey", "MLflow", "Ray", "HTTP API")
    assert (said.status, {name: states[name] for name in servers}) == (0, dict.fromkeys(servers, "off"))
    assert not (tmp_path / "home").exists()


def test_servers_that_are_set_but_do_not_answer_are_a_failure_without_their_passwords(tmp_path: Path) -> None:
    dead = free_port()
    said = finsight(
        "doctor",
        DATABASE_URL=f"postgresql://me:secret@127.0.0.1:{dead}/x",
        REDIS_URL=f"redis://:secret@127.0.0.1:{dead}/0",
        MLFLOW_TRACKING_URI=f"http://me:secret@127.0.0.1:{dead}",
        **_settings(tmp_path),
    )
    failed = [line for line in said.out.splitlines() if line.startswith("failed")]
    assert (said.status, len(failed)) == (1, 3)
    assert "secret" not in said.out + said.err


def test_wrong_settings_are_a_finding_not_a_crash(tmp_path: Path) -> None:
    said = finsight("doctor", "--json", FINSIGHT_HOME=str(tmp_path), LOG_LEVEL="loud")
    (failed,) = [each for each in said.json if each["state"] == "failed"]
    assert (said.status, failed["name"]) == (1, "settings")
    assert "LOG_LEVEL" in failed["detail"]
