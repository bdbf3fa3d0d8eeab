from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ConfigError, InputError, NotRunning
from cluster.ports import free_port
from cluster.submission import Progress, Submission, Submissions, _Log, _next_id, spoken

ID = "train-7"
LOG = f"""2026-11-21 06:15:00 INFO job_manager.py:568 -- Runtime env is setting up.
Running entrypoint for job {ID}: exec /usr/bin/python -m jobs.train
{{"progress": 0, "what": "reading bars"}}
a library says ä
{{"event": "symbols_too_short", "level": "info"}}
{{"progress": 0.5, "what": "lstm"}}
{{"result": {{"version": "3"}}}}
"""


def job(status: str, message: str = "") -> Submission:
    return Submission(ID, "train", "", status, message, None, None)


def read(*logs: str) -> tuple[_Log, list[Progress], list[str]]:
    """A reader that has seen the log grow so, with what it handed on."""
    progress: list[Progress] = []
    talk: list[str] = []
    log = _Log(ID, progress.append, talk.append)
    for text in logs:
        log.feed(0, text)
    return log, progress, talk


@given(st.lists(st.integers(0, len(LOG)), max_size=8), st.data())
def test_every_line_is_handed_on_once_however_the_log_grows(lengths: list[int], data: st.DataObject) -> None:
    """It comes in pieces, and from an earlier character on when a connection had to be made anew."""
    log, progress, talk = read()
    known = 0
    for length in [*sorted(lengths), len(LOG)]:
        at = data.draw(st.integers(0, known))
        log.feed(at, LOG[at:length])
        known = length
    assert progress == [Progress(0.0, "reading bars"), Progress(0.5, "lstm")]
    assert talk == ["a library says ä", '{"event": "symbols_too_short", "level": "info"}']
    assert log.outcome(job("SUCCEEDED")).result == {"version": "3"}


def test_success_is_the_status_and_never_what_the_log_says() -> None:
    log, _, _ = read(LOG)
    outcome = log.outcome(job("FAILED", "the node is gone"))
    assert (outcome.ok, outcome.result, outcome.message) == (False, None, "the node is gone")
    without, _, _ = read("")
    assert (without.outcome(job("SUCCEEDED")).ok, without.outcome(job("SUCCEEDED")).result) == (True, None)


def test_the_job_s_own_error_is_the_message_of_a_failure() -> None:
    begin = f"Running entrypoint for job {ID}: x\n"
    log, _, talk = read(begin + json.dumps({"error": "no bars; run `finsight ingest`"}) + "\n")
    message = "Job entrypoint command failed with exit code 1, last available logs:\nno bars"
    assert log.outcome(job("FAILED", message)).message == "no bars; run `finsight ingest`"
    assert talk == []


@pytest.mark.parametrize(
    "line", ["", "{}", '{"progress": ', '{"event": "x", "progress": 1}', '["result"]', "NaN"]
)
def test_anything_else_is_talk(line: str) -> None:
    assert spoken(line) is None


def test_a_progress_of_a_wrong_shape_is_talk() -> None:
    _, progress, talk = read(f'Running entrypoint for job {ID}: x\n{{"progress": "half"}}\n')
    assert (progress, talk) == ([], ['{"progress": "half"}'])


def test_callers_at_the_same_moment_choose_the_same_id_and_later_ones_the_next() -> None:
    assert _next_id("train", "", []) == "train-1"
    assert _next_id("train", "", ["train-1", "train-9", "train-10"]) == "train-11"
    first = _next_id("ingest", "--provider sample", [])
    assert _next_id("ingest", "--provider sample", [first]) == first.removesuffix("1") + "2"
    assert _next_id("ingest", "--provider synthetic", []) != first


def test_only_our_jobs_can_be_submitted() -> None:
    with pytest.raises(InputError, match="no job 'rm -rf'; there are ingest, features, train, evaluate"):
        Submissions("http://127.0.0.1:9").submit("rm -rf")


def test_a_dashboard_that_does_not_answer_names_the_command() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(NotRunning, match=f"{url} does not answer: .*`finsight up`"):
        Submissions(url, patience_s=0).listed()


def test_a_token_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="none cannot be read: No such file"):
        Submissions("http://127.0.0.1:9")
