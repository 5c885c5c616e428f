"""Cancelling what is queued or running."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from store.owner import Life, Owner

from ..errors import StoreError
from . import slurm
from .executors import death_outcome
from .flights import Flight
from .folder import RunFolder, active_runs
from .records import Element, End

if TYPE_CHECKING:
    from store import Store


def cancel(store: Store, chosen: Callable[[RunFolder, list[str]], bool]) -> int:
    """Cancel the elements that are `chosen` by run and keys. Returns how many there were.

    Raises SlurmError, and StoreError for a local run of which a part was chosen, or that belongs
    to another host.
    """
    jobs: list[slurm.Job] = []
    touched: list[RunFolder] = []
    n = 0
    for folder in active_runs(store):
        flights = list(_unfinished(folder))
        wanted = [flight for flight in flights if chosen(folder, flight.keys)]
        if not wanted:
            continue
        n += len(wanted)
        touched.append(folder)
        if folder.info.executor == "local":
            _end_local(folder, whole=len(wanted) == len(flights))
        for flight in wanted:
            # First the word, so that nobody who watches takes it for dead and tries again.
            end = death_outcome(flight.keys, End.CANCELLED, "by `saevx cancel`")
            folder.write_outcome(flight.element.array, flight.element.at, end)
            if flight.job.startswith("slurm:"):
                jobs.append(flight.slurm_job)
    slurm.cancel(jobs)
    for folder in touched:
        if folder.is_over:
            folder.end()
    return n


def _unfinished(folder: RunFolder) -> list[Flight]:
    done = folder.outcome_names()
    return [
        Flight(folder, Element(folder.name, array.name, index), folder.job_of(array.name) or "")
        for array in folder.arrays()
        for index in range(len(array.elements))
        if (array.name, index) not in done
    ]


def _end_local(folder: RunFolder, whole: bool) -> None:
    owner = Owner.parse(folder.info.owner)
    if owner.life() is Life.UNKNOWN:
        raise StoreError(f"{folder.info.name} runs on {owner.host}: cancel it there")
    if owner.life() is Life.DEAD:
        return
    if not whole:
        raise StoreError(
            f"{folder.info.name} runs in processes of this machine, which can be cancelled only "
            f"together: `saevx cancel {folder.info.path}`, or Ctrl-C where it runs"
        )
    with suppress(ProcessLookupError):
        os.kill(owner.pid, signal.SIGTERM)  # its workers end with it
