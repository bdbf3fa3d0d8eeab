"""What belongs to an instance."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cluster.errors import ConfigError
from cluster.local.instance import MARK, Instance, ray_environment
from cluster.settings import load, revealed


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Instance:
    monkeypatch.setattr("cluster.local.instance.TEMPORARY", tmp_path)
    return Instance(tmp_path / "home with a space")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_two_homes_have_two_marks_and_one_home_always_the_same(tmp_path: Path) -> None:
    marks = {Instance(tmp_path / name).mark for name in ("a", "b", "a")}

    assert len(marks) == 2


def test_its_folders_are_closed_to_others(instance: Instance) -> None:
    instance.prepare()

    assert [mode(path) for path in (instance.run, instance.scratch)] == [0o700, 0o700]


def test_a_scratch_folder_that_is_open_to_others_is_refused(instance: Instance) -> None:
    instance.scratch.mkdir(mode=0o755)

    with pytest.raises(ConfigError, match="open to others"):
        instance.prepare()


def test_a_scratch_folder_that_is_a_link_is_refused(instance: Instance, tmp_path: Path) -> None:
    instance.scratch.symlink_to(tmp_path)

    with pytest.raises(ConfigError, match="belongs to somebody else"):
        instance.prepare()


def test_a_home_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match="FINSIGHT_HOME"):
        Instance(tmp_path / "file" / "home").prepare()


def test_secrets_are_made_once_and_for_their_owner_only(instance: Instance) -> None:
    instance.prepare()

    assert instance.admin_key() == instance.admin_key() != instance.ray_token()
    assert [mode(path) for path in (instance.home / "admin-key", instance.ray_token_path)] == [0o600, 0o600]


def test_the_running_instance_goes_before_what_is_shipped_and_after_what_is_asked(instance: Instance) -> None:
    instance.prepare()
    instance.write_endpoints(
        {"database_url": "postgresql://a@b/c", "api_port": 8123, "providers": {"synthetic": {}}}
    )
    environ = {"FINSIGHT_HOME": str(instance.home)}

    assert mode(instance.endpoints) == 0o600
    assert load(environ=environ).url("api") == "http://127.0.0.1:8123"
    assert load(environ=environ).providers == {"synthetic": {}}
    assert load(environ={**environ, "FINSIGHT_API_PORT": "9000"}).api_port == 9000
    assert load(environ=environ, instance=False).database_url is None


def test_ray_is_asked_with_the_token_of_the_home(instance: Instance) -> None:
    assert ray_environment(instance.home) == {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(instance.ray_token_path),
        "RAY_AUTH_TOKEN": "",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


def test_a_home_of_another_user_is_refused(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    instance.prepare()
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)

    with pytest.raises(ConfigError, match="belongs to user"):
        instance.prepare()


def test_who_looks_at_its_files_is_not_one_of_its_processes(instance: Instance) -> None:
    path = str(instance.scratch / "ray" / "gcs.log")
    with subprocess.Popen(
        [sys.executable, "-c", "input()", path], stdin=subprocess.PIPE, start_new_session=True
    ) as reader:
        found = [process.pid for process in instance.processes()]
        reader.kill()

    assert found == []


@pytest.mark.parametrize("written", ["", "{half", None])
def test_endpoints_that_say_nothing_are_no_instance(written: str | None, tmp_path: Path) -> None:
    home = tmp_path / "home"
    if written is None:
        home.touch()  # not even a folder
    else:
        (home / "run").mkdir(parents=True)
        (home / "run" / "endpoints.json").write_text(written)

    assert load(environ={"FINSIGHT_HOME": str(home)}).database_url is None


def test_settings_come_back_from_the_endpoints_with_their_secrets(instance: Instance) -> None:
    instance.prepare()
    environ = {"FINSIGHT_HOME": str(instance.home), "API_KEY": "k", "MODEL_DIR": "m", "LOG_LEVEL": "debug"}
    asked = load(environ=environ)
    instance.write_endpoints(revealed(asked))

    assert load(environ={"FINSIGHT_HOME": str(instance.home)}) == asked


def test_its_processes_are_found_by_their_mark_and_by_the_session_they_share(instance: Instance) -> None:
    # The grandchild has another environment, as after a program that overwrote it, but the same session.
    hides = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'], env={})"
    marked = {**os.environ, MARK: instance.mark}
    with (
        subprocess.Popen(
            [sys.executable, "-c", hides], env=marked, stdin=subprocess.PIPE, start_new_session=True
        ) as ours,
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as theirs,
    ):
        family = psutil.Process(ours.pid)
        try:
            while not family.children():
                assert ours.poll() is None
            wanted = {ours.pid, family.children()[0].pid}
            found = {process.pid for process in instance.processes()}
        finally:
            for process in (*family.children(), family, psutil.Process(theirs.pid)):
                process.kill()

    assert found == wanted
