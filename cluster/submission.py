"""Jobs on the Ray cluster: submit one, follow it, stop it, list them.

Speaks the REST interface of Ray's dashboard itself: Ray's own client costs a second of imports, lets
`RAY_ADDRESS` override the address it is given, and waits for ever.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import httpx

from cluster.errors import ConfigError, InputError, NotReady, NotRunning
from cluster.log_tail import LogTail

JOBS = ("ingest", "features", "train", "evaluate")
"""What can be submitted: the modules `jobs.<name>`."""

_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is: the share that is done (0..1) and what it does."""

    share: float
    what: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended; `status` is SUCCEEDED, FAILED or STOPPED, `message` says why it did not succeed."""

    submission_id: str
    status: str
    message: str
    result: Mapping[str, Any] | None

    @property
    def ok(self) -> bool:
        """Whether the job did what it was asked for."""
        return self.status == "SUCCEEDED"


@dataclass(frozen=True, slots=True)
class Submission:
    """A job as Ray lists it; times are None until they are known."""

    submission_id: str
    job: str
    arguments: str
    """Shell-quoted, as they were given."""
    status: str
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    message: str
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.status in _ENDED


class Submissions:
    """The jobs of one cluster, by its dashboard's URL.

    With `RAY_AUTH_MODE=token` in the environment the token of `RAY_AUTH_TOKEN` or `RAY_AUTH_TOKEN_PATH` is
    sent along. Every method raises `NotRunning` when the dashboard does not answer, `ConfigError` when it
    refuses the token, `NotReady` for an id that it does not know.
    """

    def __init__(
        self,
        dashboard_url: str,
        *,
        environment: Mapping[str, str] = MappingProxyType({}),
        poll_s: float = 0.25,
        patience_s: float = 60.0,
        start_s: float = 180.0,
    ) -> None:
        """`environment` is for the jobs, on top of what Ray was started with."""
        self._environment = dict(environment)
        self._url = dashboard_url.rstrip("/")
        self._poll_s = poll_s
        self._start_s = start_s
        self._patience_s = patience_s
        # trust_env would send the token through a proxy, or replace it by an entry of ~/.netrc.
        self._headers = _authorization()
        self._http = httpx.Client(
            base_url=self._url,
            headers=self._headers,
            timeout=30.0,
            trust_env=False,
            limits=httpx.Limits(max_keepalive_connections=0),  # so that there is nothing to close
        )

    def submit(self, job: str, arguments: Sequence[str] = ()) -> str:
        """Start `jobs.<job>` with `arguments`, or find the one that already runs with the same; its id.

        Callers at the very same moment choose the same id, and Ray gives it to one of them.
        """
        if job not in JOBS:
            raise InputError(f"there is no job {job!r}; there are {', '.join(JOBS)}")
        quoted = shlex.join(arguments)
        known = self.listed()
        for one in known:
            if (one.job, one.arguments) == (job, quoted) and not one.ended:
                return one.submission_id
        submission_id = _next_id(job, quoted, [one.submission_id for one in known])
        request = {
            "submission_id": submission_id,
            # exec: the stop signal reaches the job and not a shell in front of it
            "entrypoint": f"exec {shlex.join([sys.executable, '-m', f'jobs.{job}', *arguments])}",
            "metadata": {"finsight_job": job, "arguments": quoted},
            "runtime_env": {"env_vars": self._environment},
        }
        self._patiently(lambda: self._ask("POST", "", json=request))
        return submission_id

    def follow(
        self,
        submission_id: str,
        *,
        on_progress: Callable[[Progress], None] = lambda _progress: None,
        on_talk: Callable[[str], None] = lambda _line: None,
    ) -> Outcome:
        """Wait until the job has ended, handing on what it says, line by line.

        The job's status decides, never its log. A dashboard that is away for less than `patience_s` seconds
        is waited for; interrupting this leaves the job alone.
        """
        log = _Log(submission_id, on_progress, on_talk)
        url = f"ws{self._url.removeprefix('http')}/api/jobs/{submission_id}/logs/tail"
        with closing(LogTail(url, self._headers)) as tail:
            while not (job := self._patiently(lambda: self.get(submission_id))).ended:
                log.feed(*tail.read(self._poll_s))
        log.feed(0, self._patiently(lambda: self.logs(submission_id)))  # after the status: so it is complete
        return log.outcome(job)

    def get(self, submission_id: str) -> Submission:
        """One job."""
        return _submission(self._ask("GET", submission_id))

    def listed(self) -> list[Submission]:
        """Every job of FinSight that the cluster remembers, the newest first."""
        ours = [one for one in self._ask("GET", "") if (one.get("metadata") or {}).get("finsight_job")]
        return [
            _submission(one) for one in sorted(ours, key=lambda one: one["start_time"] or 0, reverse=True)
        ]

    def logs(self, submission_id: str) -> str:
        """All that the job has written so far, both streams together."""
        return str(self._ask("GET", f"{submission_id}/logs")["logs"])

    def stop(self, submission_id: str) -> None:
        """Have the job end: it gets SIGTERM, and is killed when it is not gone some seconds later."""
        self._ask("POST", f"{submission_id}/stop")

    def _ask(self, method: str, path: str, **request: Any) -> Any:
        try:
            answer = self._http.request(method, f"/api/jobs/{path}", **request)
        except httpx.TransportError as error:
            raise NotRunning(f"Ray's dashboard at {self._url} does not answer: {error}. {_START}") from error
        if answer.status_code in {401, 403}:
            raise ConfigError(
                f"Ray's dashboard at {self._url} refuses the token ({answer.status_code}); "
                "RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH must be those that Ray was started with"
            )
        if answer.status_code == 404:
            wanted = path.partition("/")[0] or "jobs"
            raise NotReady(f"Ray at {self._url} knows no {wanted}; `finsight jobs` lists those it has")
        if answer.status_code != 200 and _TAKEN in answer.text:
            return {}  # somebody has just asked for the same, or we have and did not hear the answer
        if answer.status_code != 200:
            raise NotRunning(f"Ray's dashboard at {self._url} failed: {_last_line(answer.text)}")
        return answer.json()

    def _patiently(self, ask: Callable[[], _T]) -> _T:
        deadline_s = time.monotonic() + self._patience_s
        while True:
            try:
                return ask()
            except NotRunning:
                if time.monotonic() >= deadline_s:
                    raise
            time.sleep(min(1.0, self._patience_s))


_START = "`finsight up` starts it"
_TAKEN = "Please use a different submission_id"


class _Log:
    """A job's log as it grows: hands every complete line on once, and keeps result and error."""

    def __init__(
        self,
        submission_id: str,
        on_progress: Callable[[Progress], None],
        on_talk: Callable[[str], None],
    ) -> None:
        self._entry = f"Running entrypoint for job {submission_id}: "  # Ray's own lines end with this one
        self._begun = False
        self._read = 0
        self._rest = ""
        self._on_progress = on_progress
        self._on_talk = on_talk
        self._result: Mapping[str, Any] | None = None
        self._error: str | None = None

    def feed(self, at: int, text: str) -> None:
        """Take `text`, which begins with character `at` of the log; what was taken before is left out."""
        *lines, self._rest = (self._rest + text[self._read - at :]).split("\n")
        self._read = max(self._read, at + len(text))
        for line in lines:
            if self._begun:
                self._take(line)
            self._begun = self._begun or line.startswith(self._entry)

    def outcome(self, job: Submission) -> Outcome:
        if job.status == "SUCCEEDED":
            return Outcome(job.submission_id, job.status, "", self._result)
        return Outcome(job.submission_id, job.status, self._error or _last_line(job.message), None)

    def _take(self, line: str) -> None:
        match spoken(line):
            case {"progress": float() | int() as share, "what": str() as what}:
                self._on_progress(Progress(float(share), what))
            case {"result": dict() as result}:
                self._result = result
            case {"error": str() as error}:
                self._error = error
            case _:
                self._on_talk(line)


def spoken(line: str) -> dict[str, Any] | None:
    """What a job says to programs in `line`: an object with progress, result or error; None if it is talk."""
    if not line.startswith(('{"progress"', '{"result"', '{"error"')):
        return None
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _authorization() -> dict[str, str]:
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN")
    if not token:
        path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
        try:
            token = path.read_text()
        except OSError as error:
            raise ConfigError(f"Ray's token {path} cannot be read: {error.strerror}. {_START}") from error
    return {"Authorization": f"Bearer {token.strip()}"}


def _next_id(job: str, arguments: str, before: Sequence[str]) -> str:
    """The same for all who ask for the same: the number after those of the jobs there were `before`."""
    kind = f"{job}-{sha256(arguments.encode()).hexdigest()[:8]}" if arguments else job
    numbers = [each.removeprefix(f"{kind}-") for each in before]
    return f"{kind}-{max((int(each) for each in numbers if each.isdecimal()), default=0) + 1}"


def _submission(details: Mapping[str, Any]) -> Submission:
    metadata = details.get("metadata") or {}
    return Submission(
        submission_id=str(details["submission_id"]),
        job=metadata.get("finsight_job", ""),
        arguments=metadata.get("arguments", ""),
        status=str(details["status"]),
        message=details.get("message") or "",
        started_at=_moment(details.get("start_time")),
        ended_at=_moment(details.get("end_time")),
    )


def _moment(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1_000, UTC) if milliseconds else None


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "it says nothing")
