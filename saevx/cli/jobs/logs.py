"""saevx logs: print the log of the job that makes an artifact."""

from __future__ import annotations

import json
import time
from codecs import IncrementalDecoder, getincrementaldecoder
from collections import defaultdict
from pathlib import Path
from typing import Any

import click

from saevx.cli.common.options import clear_errors, json_option, store_option
from saevx.dispatch.batching import parts_text
from saevx.dispatch.executors import executor_of, logs_of, where
from saevx.dispatch.jobs.job import Job
from saevx.dispatch.jobs.monitor import JobMonitor
from saevx.dispatch.runs.status import latest_jobs

POLL_S = 1.0
"""Seconds between two reads of --follow."""


@click.command()
@click.argument("key")
@click.option("--follow", "-f", is_flag=True, help="Print until the job has ended.")
@store_option
@json_option
@clear_errors
def logs(key: str, follow: bool, store: str | None, as_json: bool) -> None:
    """Print the log of the latest job for the artifact KEY, or a prefix of it.

    If several jobs make parts of the artifact, print the logs of all of them.
    """
    if follow and as_json:
        raise click.UsageError("--follow prints text as it is written: use --json without it")
    from saevx.config import open_store

    jobs = latest_jobs(open_store(store), key)
    if as_json:
        click.echo(json.dumps([document for job in jobs for document in _documents(job)]))
        return
    monitor = JobMonitor()
    for job in jobs:
        monitor.add(job)
    printer = _LogPrinter(jobs)
    while True:
        # Asked before the logs are read, so that the last lines of a job are printed.
        active = monitor.any_active() and follow
        printer.print_new()
        if not active:
            break
        time.sleep(POLL_S)
    if not any(printer.n_bytes.values()):
        log = jobs[0].folder.log(*jobs[0].position)
        click.echo(f"nothing printed yet; it will be in {log}", err=True)
    for job in monitor.gone:
        click.echo(
            f"the job has ended without an outcome ({where(job)}); `saevx run` submits it again",
            err=True,
        )


class _LogPrinter:
    """Prints what jobs have written to their logs since the last call."""

    def __init__(self, jobs: list[Job]) -> None:
        self._jobs = jobs
        self._heading = ""
        self.n_bytes: dict[Path, int] = {}
        """Bytes of each file that are printed."""
        # A character may be split between two reads.
        self._decoders: defaultdict[Path, IncrementalDecoder] = defaultdict(
            lambda: getincrementaldecoder("utf-8")(errors="replace")
        )

    def print_new(self) -> None:
        for job in self._jobs:
            heading = parts_text(job.parts)
            for file in logs_of(job):
                start = self.n_bytes.get(file, 0)
                data = _read(file, start)
                if data and heading != self._heading:
                    click.echo(f"== {heading}")
                    self._heading = heading
                click.echo(self._decoders[file].decode(data), nl=False)
                self.n_bytes[file] = start + len(data)


def _documents(job: Job) -> list[dict[str, Any]]:
    message = job.folder.outcome(*job.position) or job.folder.progress(*job.position)
    job_id = executor_of(job).job_id(job) or (message.job if message else "")
    return [
        {
            "parts": job.parts,
            "job": job_id,
            "file": str(file),
            "text": _read(file).decode(errors="replace"),
        }
        for file in logs_of(job)
    ]


def _read(file: Path, start: int = 0) -> bytes:
    """Return the bytes of a file from `start`; none if it does not exist."""
    try:
        with open(file, "rb") as opened:
            opened.seek(start)
            return opened.read()
    except FileNotFoundError:
        return b""
