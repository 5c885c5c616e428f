"""Remove the folders of old runs: they hold logs and copies of code."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from saevx.dispatch.executors import EXECUTORS, statuses
from saevx.dispatch.executors.base import JobState
from saevx.dispatch.jobs.job import jobs_of
from saevx.dispatch.run_folder import REMOVED, RunFolder, acquire_submit_lease, all_runs, runs_dir
from saevx.errors import StoreError

if TYPE_CHECKING:
    from store import Store

KEPT_S = 30 * 86400.0
"""Seconds after its end for which a run's logs and failures are kept."""


def remove_old_runs(store: Store, older_than_s: float = KEPT_S) -> list[str]:
    """Remove the folders of runs that ended so long ago and have no live jobs.

    Returns their names. A folder stays if it cannot be removed, or if its run may not be over; the
    next call tries again.
    """
    with suppress(OSError, StoreError):
        _delete_removed(store)
        old = [run for run in all_runs(store) if _is_old(run, older_than_s)]
        lease = acquire_submit_lease(store) if old else None
        if lease is None:
            return []  # nothing is old, or another run submits, maybe in one of these folders
        with lease:
            gone = [run for run in _without_jobs(old) if _is_old(run, older_than_s)]
            for run in gone:
                # A rename first, so that nobody reads half a folder.
                os.rename(run.path, run.path.with_name(REMOVED + run.name))
        _delete_removed(store)
        return [run.name for run in gone]
    return []


def _is_old(run: RunFolder, older_than_s: float) -> bool:
    with suppress(StoreError, OSError):  # a run that cannot be read stays
        # A run without run.json has submitted nothing.
        ended = run.ended_at if run.has_info and run.info else run.path.stat().st_mtime
        return ended is not None and time.time() - ended > older_than_s
    return False


def _without_jobs(runs: list[RunFolder]) -> list[RunFolder]:
    """Return the runs of which no job is known and no process lives."""
    begun = [run for run in runs if run.has_info]
    detached = [run for run in begun if EXECUTORS[run.info.executor].outlives_submitter]
    seen = statuses([job for run in detached for job in jobs_of(run)])
    live = {task.run for task, one in seen.items() if one.state is not JobState.GONE}
    live |= {run.name for run in begun if run.submitter_may_be_alive}
    return [run for run in runs if run.name not in live]


def _delete_removed(store: Store) -> None:
    """Delete renamed folders, including those that an earlier call could not delete whole."""
    for name in os.listdir(runs_dir(store)):
        if name.startswith(REMOVED):
            shutil.rmtree(runs_dir(store) / name, ignore_errors=True)
