"""Jobs on behalf of the user: submitted to Ray and followed, or run as a child process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import typer
from rich.console import RenderableType

from cluster.cli import terminal
from cluster.errors import FinSightError

if TYPE_CHECKING:
    from cluster.settings import Settings
    from cluster.submission import Outcome, Submissions

INTERRUPTED = 130
"""Exit status after Ctrl-C, as in every shell."""

Result: TypeAlias = Mapping[str, Any]
Shown: TypeAlias = Callable[[Result], RenderableType]


def submissions(settings: Settings | None = None) -> Submissions:
    """The jobs of the cluster that the settings name."""
    from cluster.local.instance import Instance, ray_environment
    from cluster.settings import load
    from cluster.submission import Submissions

    settings = settings or load()
    environment = ray_environment(settings.home)
    if not Path(environment["RAY_AUTH_TOKEN_PATH"]).exists():
        return Submissions(settings.url("dashboard"))
    for name, value in environment.items():
        os.environ.setdefault(name, value)  # who set one means another cluster
    return Submissions(settings.url("dashboard"), environment=Instance(settings.home).work_environment())


def options(**given: object) -> list[str]:
    """Options of a job for what was given: `symbols="A,B"` as `--symbols=A,B`; None is left out."""
    return [
        f"--{name.replace('_', '-')}={value.isoformat() if hasattr(value, 'isoformat') else value}"
        for name, value in given.items()
        if value is not None
    ]


def submit(job: str, arguments: Sequence[str], *, wait: bool, as_json: bool, shown: Shown) -> None:
    """Submit `jobs.<job>`, follow it to its end and print its result; without `wait` print its id.

    Raises `FinSightError` with the job's own words when it does not succeed.
    """
    cluster = submissions()
    submission_id = cluster.submit(job, arguments)
    if not wait:
        terminal.emit({"submission_id": submission_id}, as_json=as_json, text=submission_id)
        return
    terminal.talk(f"Job {submission_id}")
    result = follow(cluster, submission_id)
    terminal.emit({"submission_id": submission_id, **result}, as_json=as_json, text=shown(result))


def follow(cluster: Submissions, submission_id: str) -> Result:
    """Show progress and talk of a job until it ends; its result. Ctrl-C ends only the looking on.

    Raises `FinSightError` with the job's own words when it does not succeed.
    """
    said: deque[str] = deque(maxlen=100)

    def on_talk(line: str) -> None:
        said.append(line)
        terminal.talk(line)

    try:
        with terminal.progress() as tell:
            outcome = cluster.follow(
                submission_id,
                on_progress=lambda progress: tell(progress.share, progress.what),
                on_talk=on_talk,
            )
    except KeyboardInterrupt:
        terminal.talk(
            f"The job goes on. `finsight jobs logs {submission_id}` shows what it says, "
            f"`finsight jobs stop {submission_id}` ends it."
        )
        raise typer.Exit(INTERRUPTED) from None
    if not outcome.ok:
        raise FinSightError(failure(outcome, "\n".join(said)))
    return outcome.result or {}


def failure(outcome: Outcome, said: str) -> str:
    """Why a job did not succeed, unless it is part of what was `said` before, and where to look."""
    id_ = outcome.submission_id
    if outcome.status == "STOPPED":
        return f"Job {id_} was stopped before its end."
    why = "as it says above" if outcome.message in said else f"with: {outcome.message}"
    return f"Job {id_} failed, {why}. `finsight jobs logs {id_}` has all that it said."


def run_here(job: str, arguments: Sequence[str], *, as_json: bool, shown: Shown) -> None:
    """Run `jobs.<job>` as a child process and print its result; ends with the child's exit status.

    What the child says on stderr passes through, its errors too.
    """
    # -P: a folder named `jobs` where the user happens to be is not ours
    command = [sys.executable, "-P", "-m", f"jobs.{job}", *arguments]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None  # noqa: S101 - it is a pipe
            try:
                result = _listen(child.stdout)
                status = child.wait()
            except KeyboardInterrupt:
                child.wait()  # the terminal has told the child too, which ends cleanly
                raise
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    if status:
        if status < 0:
            terminal.talk(f"jobs.{job} was killed by signal {-status}.")
        raise typer.Exit(status if status > 0 else 1)
    terminal.emit(result, as_json=as_json, text=shown(result))


def _listen(lines: IO[str]) -> Result:
    from cluster.submission import spoken

    result: Result = {}
    with terminal.progress() as tell:
        for line in lines:
            match spoken(line):
                case {"progress": int() | float() as share, "what": str() as what}:
                    tell(float(share), what)
                case {"result": dict() as found}:
                    result = found
                case {"error": _}:
                    pass  # told on stderr as well
                case _:
                    terminal.talk(line.rstrip("\n"))
    return result
