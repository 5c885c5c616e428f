"""Old runs: their folders hold logs and copies of code, of no use to anyone after a while."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from saevx.dispatch.executors import EXECUTORS, statuses
from saevx.dispatch.executors.base import JobState
from saevx.dispatch.jobs.job import jobs_of
from saevx.dispatch.run_folder import LEAVING, RunFolder, all_runs, runs_dir, take_submit_lease
from saevx.errors import StoreError

if TYPE_CHECKING:
    from store import Store

KEPT_S = 30 * 86400.0
"""For so long after its end a run's logs and failures are remembered."""


def remove_old_runs(store: Store, older_than_s: float = KEPT_S) -> list[str]:
    """Remove the folders of runs that ended so long ago, and of which nothing is live any more.

    Returns their names. What cannot be removed, or is not known to be over, stays: it is tried
    again after some later run.
    """
    with suppress(OSError, StoreError):
        _sweep(store)
        old = [run for run in all_runs(store) if _is_old(run, older_than_s)]
        lock = take_submit_lease(store) if old else None
        if lock is None:
            return []  # nothing to do; or another run submits, and may do so in one of these
        with lock:
            gone = [run for run in _not_live(old) if _is_old(run, older_than_s)]
            for run in gone:
                # In one step, so that nobody reads half a run.
                os.rename(run.path, run.path.with_name(LEAVING + run.name))
        _sweep(store)
        return [run.name for run in gone]
    return []


def _is_old(run: RunFolder, older_than_s: float) -> bool:
    with suppress(StoreError, OSError):  # what cannot be read may be anything
        # A submitter that was killed before it described its run has submitted nothing.
        ended = run.ended_at if run.is_described else run.path.stat().st_mtime
        return ended is not None and time.time() - ended > older_than_s
    return False


def _not_live(runs: list[RunFolder]) -> list[RunFolder]:
    """Those of which no job goes on, as far as is known, and whose own process is gone."""
    # Of a run that was never described nothing was submitted.
    described = [run for run in runs if run.is_described]
    detached = [run for run in described if EXECUTORS[run.info.executor].looks_ahead]
    seen = statuses([flight for run in detached for flight in jobs_of(run)])
    live = {element.run for element, one in seen.items() if one.state is not JobState.GONE}
    live |= {run.name for run in described if run.submitter_may_be_alive}
    return [run for run in runs if run.name not in live]


def _sweep(store: Store) -> None:
    """Remove what is on its way out, also what an earlier call could not remove whole."""
    for name in os.listdir(runs_dir(store)):
        if name.startswith(LEAVING):
            shutil.rmtree(runs_dir(store) / name, ignore_errors=True)
