"""The end of runs: what became of everything that they sent, wanted still or not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from store.owner import Life

from . import accounting, slurm
from .adopt import reconcile
from .executors import death_outcome, local_life
from .flights import Flight, abandoned
from .folder import RunFolder, active_runs
from .records import Element, End, Outcome

if TYPE_CHECKING:
    from store import Store

FORGOTTEN_S = 3600.0
"""What was submitted so long ago, is not in the queue, and is unknown to sacct, is over."""


def end_runs(store: Store, prefix: str) -> None:
    """Mark those runs of an experiment file of which nothing is queued or running any more.

    What no experiment wants any more nobody watches: here it is found out what became of it.
    """
    for folder in active_runs(store):
        if not folder.name.startswith(prefix):
            continue
        if not any(folder.arrays()):
            # A run that is about to submit has none yet.
            if local_life(folder.info.owner) is Life.DEAD:
                folder.end()
            continue
        if not folder.is_over:
            _look_after(folder)
        if folder.is_over:
            folder.end()


def unfinished(folder: RunFolder) -> list[Flight]:
    """Its elements that have no outcome."""
    done = folder.outcome_names()
    return [
        Flight(folder, Element(folder.name, array.name, index), folder.job_of(array.name) or "")
        for array in folder.arrays()
        for index in range(len(array.elements))
        if (array.name, index) not in done
    ]


def _look_after(folder: RunFolder) -> None:
    """Write down what became of elements that have ended without a word."""
    for array in list(folder.arrays()):
        if folder.job_of(array.name) is None:
            reconcile(folder, array)
    flights = unfinished(folder)
    at_slurm = [flight for flight in flights if flight.at_slurm]
    arrays = {flight.slurm_job.array for flight in at_slurm}
    live = slurm.states(arrays, {folder.info.user})
    deaths = None
    if live is not None:
        deaths = accounting.deaths(f.slurm_job for f in at_slurm if f.slurm_job not in live)
    for flight in flights:
        outcome: Outcome | None = None
        if not flight.at_slurm:
            if local_life(flight.job) is Life.DEAD:
                outcome = abandoned(flight)
        elif live is not None and flight.slurm_job not in live:
            outcome = _post_mortem(flight, (deaths or {}).get(flight.slurm_job))
        if outcome is not None and not folder.outcome(flight.element.array, flight.element.at):
            folder.write_outcome(flight.element.array, flight.element.at, outcome)


def _post_mortem(flight: Flight, death: accounting.Death | None) -> Outcome | None:
    if death is not None and death.end is not None:
        return death_outcome(flight.keys, death.end, death.message, death)
    if time.time() - flight.submitted < FORGOTTEN_S:
        return None  # its outcome may be on its way
    return death_outcome(flight.keys, End.VANISHED, "the job is over and left no outcome", death)
