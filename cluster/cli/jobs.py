"""`finsight jobs`: the jobs on the Ray cluster."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.cli import terminal
from cluster.cli.arguments import JsonOption, group
from cluster.cli.submitting import follow, submissions

if TYPE_CHECKING:
    from cluster.submission import Submission

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Of `finsight jobs`.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    family = group(app, "jobs", "List, follow and stop the jobs of ingest, features, train and evaluate.")
    family.command("list")(list_jobs)
    family.command()(logs)
    family.command()(stop)


def list_jobs(
    limit: Annotated[int, typer.Option(min=1, help="Only the newest so many.")] = 20,
    *,
    as_json: JsonOption = False,
) -> None:
    """List the jobs, the newest first."""
    found = submissions().listed()[:limit]
    columns = ("id", "job", "arguments", "status", "started", "took")
    rows = [
        (each.submission_id, each.job, each.arguments, each.status, each.started_at, _took(each))
        for each in found
    ]
    terminal.emit([asdict(each) for each in found], as_json=as_json, text=terminal.table(columns, rows))
    if not found and not as_json:
        terminal.talk("There are none yet. `finsight ingest` and `finsight train` submit one.")


def _took(job: Submission) -> str | None:
    return f"{(job.ended_at - job.started_at).seconds} s" if job.started_at and job.ended_at else None


def logs(
    submission_id: IdArgument,
    *,
    watch: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print all that a job has said."""
    cluster = submissions()
    cluster.get(submission_id)  # says so when there is none
    if watch and not as_json:
        follow(cluster, submission_id)
        return
    text = cluster.logs(submission_id)
    terminal.emit({"submission_id": submission_id, "logs": text}, as_json=as_json, text=text.rstrip("\n"))


def stop(submission_id: IdArgument, *, as_json: JsonOption = False) -> None:
    """End a job; what it has finished so far stays."""
    cluster = submissions()
    job = cluster.get(submission_id)
    if not job.ended:
        cluster.stop(submission_id)
    text = f"{submission_id} had ended before: {job.status}" if job.ended else f"Stopping {submission_id}"
    terminal.emit({"submission_id": submission_id, "stopping": not job.ended}, as_json=as_json, text=text)
