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
    from saevx.dispatch.jobs.unattended import UnattendedJobs
    from saevx.dispatch.runs.status import latest_jobs

    flights = latest_jobs(open_store(store), key)
    if as_json:
        click.echo(json.dumps([document for flight in flights for document in _documents(flight)]))
        return
    waiting = UnattendedJobs(flights)
    printing = _Printing(flights)
    over = not follow
    while True:
        over = over or waiting.over()  # looked at first: what it printed before is printed below
        printing.go_on()
        if over:
            break
        time.sleep(LOOK_S)
    if not any(printing.read.values()):
        log = flights[0].folder.log(*flights[0].position)
        click.echo(f"nothing printed yet; it will be in {log}", err=True)
    for flight in waiting.lost:
        click.echo(
            f"it ended without a word, or never began, and nobody runs it any more "
            f"({where(flight)}); `saevx run` makes what is missing",
            err=True,
        )


class _Printing:
    """Prints the logs of flights, as far as they are there."""

    def __init__(self, flights: list[Job]) -> None:
        self._flights = flights
        self._told = ""
        self.read: dict[Path, int] = {}
        """How many bytes of each file are printed."""

    def go_on(self) -> None:
        from saevx.dispatch.batching import parts_text

        for flight in self._flights:
            parts = parts_text(flight.parts)
            for file in flight.logs:
                data = _read_from(file, self.read.get(file, 0))
                if data and parts != self._told:
                    click.echo(f"== {parts}")
                    self._told = parts
                click.echo(data.decode(errors="replace"), nl=False)
                self.read[file] = self.read.get(file, 0) + len(data)


def _documents(flight: Job) -> list[dict[str, Any]]:
    from saevx.dispatch.executors import executor_of

    told = flight.folder.outcome(*flight.position) or flight.folder.progress(*flight.position)
    job = executor_of(flight).job_id(flight) or (told.job if told else "")
    return [
        {
            "parts": flight.parts,
            "job": job,
            "file": str(file),
            "text": _read_from(file, 0).decode(errors="replace"),
        }
        for file in flight.logs
    ]


def _read_from(file: Path, start: int) -> bytes:
    """What a file holds from a place on."""
    try:
        with open(file, "rb") as opened:
            opened.seek(start)
            return opened.read()
    except FileNotFoundError:
        return b""
