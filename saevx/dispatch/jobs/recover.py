"""Recovery: what other runs have submitted, or have seen fail, and how they ended.

A submitter may be killed at any point. An array is recorded before it is submitted, and its handle
afterwards; in between, only the executor knows whether it was submitted.
"""

from __future__ import annotations

import time
from itertools import groupby
from typing import TYPE_CHECKING

from saevx.dispatch.executors import EXECUTORS, executor_of, statuses
from saevx.dispatch.executors.base import JobState
from saevx.dispatch.jobs.job import Job, jobs_of, unfinished_jobs
from saevx.dispatch.jobs.monitor import JobMonitor, diagnose
from saevx.dispatch.jobs.progress import RunProgress
from saevx.dispatch.messages import Array, TaskStatus
from saevx.dispatch.run_folder import RunFolder, active_runs, all_runs

if TYPE_CHECKING:
    from store import Store

REMEMBERED_RUNS = 5
"""The failures of so many earlier runs of the same file are looked up."""

FORGOTTEN_S = 3600.0
"""A job that was submitted so long ago, and that neither squeue nor sacct knows, has vanished."""


def recover(store: Store, progress: RunProgress, monitor: JobMonitor) -> set[str]:
    """Let a monitor watch the jobs of all runs that make what a run lacks.

    Return the keys for which it is not known yet whether another run has submitted them.
    """
    unsure: set[str] = set()
    for folder in active_runs(store):
        for name, group in groupby(jobs_of(folder), key=lambda job: job.task.array):
            jobs = [
                job
                for job in group
                if job.task not in monitor.known and progress.left.keys() & set(job.keys)
            ]
            array = folder.array(name)
            if not jobs or array is None:
                continue
            handle = jobs[0].handle or reconcile(folder, array)
            for job in jobs:
                if handle:
                    job.handle = handle
                    _recover_job(job, progress, monitor)
                elif handle is None:
                    unsure.update(job.keys)
    return unsure


def _recover_job(job: Job, progress: RunProgress, monitor: JobMonitor) -> None:
    monitor.known.add(job.task)
    outcome, submitter = job.folder.outcome(*job.position), job.folder.submitter
    if outcome is not None:
        progress.record(job, outcome)
    # Local jobs on another host are guarded by the leases of what they make.
    elif executor_of(job).outlives_submitter or (submitter and submitter.runs()):
        monitor.add(job)
    elif not job.folder.submitter_may_be_alive:
        diagnose([job], lambda job: True)


def reconcile(folder: RunFolder, array: Array) -> str | None:
    """Return the handle of an array whose submitter was killed before it recorded it.

    "" if it was not submitted, None while that cannot be known.
    """
    handle = EXECUTORS[folder.info.executor].find(array, folder)
    if handle:
        folder.set_handle(array.name, handle)
    elif handle == "":
        folder.drop(array.name)
    return handle


def reconcile_all(folder: RunFolder) -> None:
    for array in list(folder.arrays()):
        if folder.handle_of(array.name) is None:
            reconcile(folder, array)


def recall_failures(store: Store, progress: RunProgress) -> None:
    """Give up what failed with an error in earlier runs of the same code: it would fail again."""
    for folder in all_runs(store, progress.prefix)[-REMEMBERED_RUNS:]:
        if not folder.ended or folder.info.code != progress.code or progress.retry_failed:
            continue
        for job in jobs_of(folder):
            outcome = folder.outcome(*job.position)
            for key, result in (outcome.results if outcome else {}).items():
                is_wanted = key in progress.left and not progress.is_present(key)
                if outcome and result.status is TaskStatus.ERROR and is_wanted:
                    progress.record_failure(key, job, outcome, result)


def end_runs(store: Store, prefix: str) -> None:
    """Mark as ended every run of an experiment file that has no queued or running job.

    Jobs that are no longer needed are not monitored: their ends are found out here.
    """
    for folder in active_runs(store):
        if not folder.name.startswith(prefix):
            continue
        if not any(folder.arrays()):
            is_over = not folder.submitter_may_be_alive  # else it may be about to submit
        else:
            _diagnose_jobs(folder)
            is_over = folder.is_finished
        if is_over:
            folder.end()


def _diagnose_jobs(folder: RunFolder) -> None:
    """Write the missing outcomes of the jobs of a run that are gone."""
    reconcile_all(folder)
    jobs = unfinished_jobs(folder)
    seen = statuses(jobs)
    gone = [job for job in jobs if seen[job.task].state is JobState.GONE]
    diagnose(gone, lambda job: time.time() - job.submitted >= FORGOTTEN_S)
