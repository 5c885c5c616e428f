"""The end of runs: what became of everything that they sent, wanted still or not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from saevx.dispatch.executors import EXECUTORS, post_mortem, statuses
from saevx.dispatch.executors.base import JobState
from saevx.dispatch.jobs.job import unfinished_jobs
from saevx.dispatch.jobs.recover import reconcile_all
from saevx.dispatch.run_folder import RunFolder, active_runs

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
            if not folder.submitter_may_be_alive:
                folder.end()
            continue
        if not folder.is_finished:
            _look_after(folder)
        if folder.is_finished:
            folder.end()


def _look_after(folder: RunFolder) -> None:
    """Write down what became of elements that are gone and left no outcome."""
    reconcile_all(folder)
    flights = unfinished_jobs(folder)
    seen = statuses(flights)
    gone = [flight for flight in flights if seen[flight.task].state is JobState.GONE]
    deaths = EXECUTORS[folder.info.executor].deaths(gone)
    for flight in gone:
        lost = time.time() - flight.submitted >= FORGOTTEN_S
        outcome = post_mortem(flight, deaths, lost)
        # Its own may have come meanwhile.
        if outcome is not None and not folder.outcome(*flight.position):
            folder.write_outcome(*flight.position, outcome)
