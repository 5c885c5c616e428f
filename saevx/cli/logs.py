"""saevx logs: what the job that makes an artifact has printed."""

from __future__ import annotations

import time
from pathlib import Path

import click

from .options import clear_errors, store_option

LOOK_S = 1.0


@click.command()
@click.argument("key")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has ended.")
@store_option
@clear_errors
def logs(key: str, follow: bool, store: str | None) -> None:
    """Print the log of the latest job that makes, or made, the artifact KEY (a prefix will do).

    Where several jobs share its parts, the logs of all of them.
    """
    from ..config import open_store
    from ..dispatch.logs import existing_logs
    from ..dispatch.status import find_latest
    from ..dispatch.tasks import in_words

    flights = find_latest(open_store(store), key)
    read: dict[Path, int] = {}
    told = ""
    while True:
        over = all(f.folder.outcome(f.element.array, f.element.at) for f in flights)
        for flight in flights:
            parts = in_words(flight.parts)
            array, index = flight.element.array, flight.element.at
            for file in existing_logs(flight.folder, array, index, flight.job):
                if parts != told and file.stat().st_size > read.get(file, 0):
                    click.echo(f"== {parts}")
                    told = parts
                read[file] = read.get(file, 0) + _print_from(file, read.get(file, 0))
        if over or not follow:
            break
        time.sleep(LOOK_S)
    if not any(read.values()):
        first = flights[0]
        where = first.folder.log(first.element.array, first.element.at)
        click.echo(f"nothing printed yet; it will be in {where}", err=True)


def _print_from(file: Path, start: int) -> int:
    """Print what a file holds from a place on; how many bytes that was."""
    try:
        with open(file, "rb") as opened:
            opened.seek(start)
            data = opened.read()
    except FileNotFoundError:
        return 0
    if data:
        click.echo(data.decode(errors="replace"), nl=False)
    return len(data)
