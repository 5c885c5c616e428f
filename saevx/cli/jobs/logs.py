"""saevx logs: what the job that makes an artifact has printed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from saevx.cli.common.options import clear_errors, json_option, store_option

if TYPE_CHECKING:
    from saevx.dispatch.jobs.job import Job

LOOK_S = 1.0


@click.command()
@click.argument("key")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has ended.")
@store_option
@json_option
@clear_errors
def logs(key: str, follow: bool, store: str | None, as_json: bool) -> None:
    """Print the log of the latest job that makes, or made, the artifact KEY (a prefix will do).

    Where several jobs share its parts, the logs of all of them.
    """
    if follow and as_json:
        raise click.UsageError("--follow prints what comes: use --json without it")
    from saevx.config import open_store
    from saevx.dispatch.executors import where
    from saevx.dispatch.jobs.monitor import JobMonitor
    from saevx.dispatch.runs.status import latest_jobs

    jobs = latest_jobs(open_store(store), key)
    if as_json:
        click.echo(json.dumps([document for job in jobs for document in _documents(job)]))
        return
    monitor = JobMonitor()
    for job in jobs:
        monitor.add(job)
    printing = _Printing(jobs)
    while True:
        # Asked before the logs are read, so that the last lines of a job are printed.
        goes_on = follow and monitor.any_active()
        printing.go_on()
        if not goes_on:
            break
        time.sleep(LOOK_S)
    if not any(printing.read.values()):
        log = jobs[0].folder.log(*jobs[0].position)
        click.echo(f"nothing printed yet; it will be in {log}", err=True)
    for job in monitor.gone:
        click.echo(
            f"the job has ended without an outcome ({where(job)}); "
            "`saevx run` makes what is missing",
            err=True,
        )


class _Printing:
    """Prints the logs of jobs as they grow."""

    def __init__(self, jobs: list[Job]) -> None:
        self._jobs = jobs
        self._told = ""
        self.read: dict[Path, int] = {}
        """How many bytes of each file are printed."""

    def go_on(self) -> None:
        from saevx.dispatch.batching import parts_text
        from saevx.dispatch.executors import logs_of

        for job in self._jobs:
            parts = parts_text(job.parts)
            for file in logs_of(job):
                data = _read_from(file, self.read.get(file, 0))
                if data and parts != self._told:
                    click.echo(f"== {parts}")
                    self._told = parts
                click.echo(data.decode(errors="replace"), nl=False)
                self.read[file] = self.read.get(file, 0) + len(data)


def _documents(job: Job) -> list[dict[str, Any]]:
    from saevx.dispatch.executors import executor_of, logs_of

    told = job.folder.outcome(*job.position) or job.folder.progress(*job.position)
    job_id = executor_of(job).job_id(job) or (told.job if told else "")
    return [
        {
            "parts": job.parts,
            "job": job_id,
            "file": str(file),
            "text": _read_from(file, 0).decode(errors="replace"),
        }
        for file in logs_of(job)
    ]


def _read_from(file: Path, start: int) -> bytes:
    """What a file holds from a place on."""
    try:
        with open(file, "rb") as opened:
            opened.seek(start)
            return opened.read()
    except FileNotFoundError:
        return b""
