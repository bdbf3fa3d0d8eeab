"""Programs in the background, their end, and work in threads."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from cluster.errors import NotRunning
from cluster.local import background, processes
from cluster.local.work import Background


def python(code: str, log: Path, ready: bool = False) -> background.Starting:
    return background.start(
        "The part", [sys.executable, "-c", code], log=log, environment={"PART": "it"}, ready=lambda: ready
    )


def test_a_program_that_fails_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    starting = python("import os, sys; print(os.environ['PART']); sys.exit('no disk')", tmp_path / "log")

    with pytest.raises(NotRunning, match=r"The part ended with status 1: it \| no disk\. See "):
        starting.wait(30)


def test_a_program_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    starting = python("import signal; signal.pause()", tmp_path / "log")
    assert starting.process is not None
    with starting.process as process:
        with pytest.raises(NotRunning, match="The part is not ready after 0 s"):
            starting.wait(0)
        process.kill()


def test_a_program_that_was_there_before_is_only_waited_for(tmp_path: Path) -> None:
    background.Starting("The part", tmp_path / "log", lambda: True).wait(0)


def test_what_does_not_stop_when_it_is_asked_is_killed() -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        alive = processes.end([psutil.Process(process.pid)], grace_s=0.1)

    assert alive == []


def test_what_has_ended_already_is_no_error() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        known = psutil.Process(process.pid)

    assert processes.end([known]) == []


def test_an_error_of_background_work_is_raised_where_it_is_waited_for() -> None:
    def fail() -> None:
        raise NotRunning("no Ray")

    with pytest.raises(NotRunning, match="no Ray"):
        Background(fail).wait()


def test_work_that_takes_too_long_is_a_time_out() -> None:
    stop = threading.Event()

    def wait() -> None:
        stop.wait(60)

    work = Background(wait)
    with pytest.raises(TimeoutError):
        work.wait(0.01)
    stop.set()
