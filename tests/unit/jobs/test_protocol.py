from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

JOB = """
import argparse, asyncio, sys
from cluster.errors import NotReady
from jobs import protocol

async def in_a_coroutine(progress):
    progress(0, 'begun')
    await asyncio.sleep(60)

def work(options, settings, progress):
    {work}

protocol.run(argparse.Namespace(), work)
"""


def started(work: str, home: Path) -> subprocess.Popen[str]:
    """A process that does `work` as a job."""
    environment = {"FINSIGHT_HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[3])}
    source = JOB.format(work=work)
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", source],
        stdin=pipe,  # open for as long as the test: nothing is ever read from it
        stdout=pipe,
        stderr=pipe,
        text=True,
        env=environment,
    )


def ended(work: str, home: Path) -> tuple[int, list[dict[str, object]], str]:
    """Exit status, what was said on standard output, and the talk."""
    with started(work, home) as process:
        out, talk = process.communicate(timeout=60)
    return process.returncode, [json.loads(line) for line in out.splitlines()], talk


def test_progress_then_the_result_and_nothing_else_on_standard_output(tmp_path: Path) -> None:
    work = "print('printed'); progress(0, 'a'); progress(0, 'a'); progress(1/3, 'b'); return {'n': 2}"
    status, said, talk = ended(work, tmp_path)
    assert status == 0
    assert said == [
        {"progress": 0, "what": "a"},
        {"progress": 0.3333, "what": "b"},
        {"result": {"n": 2}},
    ]
    assert talk == "printed\n"


def test_our_own_error_is_one_sentence_and_status_1(tmp_path: Path) -> None:
    status, said, talk = ended("raise NotReady('no bars; run `finsight ingest`')", tmp_path)
    assert (status, said) == (1, [{"error": "no bars; run `finsight ingest`"}])
    assert talk == "no bars; run `finsight ingest`\n"


def test_what_nobody_expected_keeps_its_words_to_the_log(tmp_path: Path) -> None:
    status, said, talk = ended("raise KeyError('postgresql://me:hush@host/db')", tmp_path)
    assert (status, said) == (1, [{"error": "unexpected KeyError; the log of the job has the traceback"}])
    assert "Traceback" in talk
    assert "in work" in talk
    assert "hush" not in talk


def test_a_wrong_setting_is_an_error_of_the_job(tmp_path: Path) -> None:
    settings = tmp_path / "wrong.yaml"
    settings.write_text("nonsense: 1\n")
    source = JOB.format(work="return {}")
    environment = {
        "FINSIGHT_HOME": str(tmp_path),
        "FINSIGHT_CONFIG": str(settings),
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    done = subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "nonsense" in json.loads(done.stdout)["error"]


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "begin",
    ["progress(0, 'begun'); sys.stdin.read()", "asyncio.run(in_a_coroutine(progress))"],
    ids=["waiting", "in a coroutine"],
)
def test_a_stop_signal_ends_the_work_after_its_cleaning_up(
    tmp_path: Path, stop: signal.Signals, begin: str
) -> None:
    work = f"""
    try:
        {begin}
    finally:
        progress(1, 'cleaned up')"""
    with started(work.strip(), tmp_path) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == {"progress": 0, "what": "begun"}
        process.send_signal(stop)
        out, talk = process.communicate(timeout=60)
    assert process.returncode == 130
    assert [json.loads(line) for line in out.splitlines()] == [{"progress": 1, "what": "cleaned up"}]
    assert talk == "stopped\n"


def test_a_reader_that_went_away_ends_the_job_without_complaint(tmp_path: Path) -> None:
    with started("sys.stdin.read(); return {}", tmp_path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.close()  # now it has something to say
        talk = process.stderr.read()
    assert (process.returncode, talk) == (1, "")
