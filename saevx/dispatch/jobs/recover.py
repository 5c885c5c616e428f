"""Adoption: taking in what other runs of the store have submitted, or have seen fail.

A coordinator may have died at any point. An array is written down before it is submitted, and its
job after; in between, only Slurm knows whether there is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from saevx.dispatch.executors import EXECUTORS, executor_of, post_mortem, where
from saevx.dispatch.jobs.job import Job
from saevx.dispatch.jobs.monitor import JobMonitor
from saevx.dispatch.jobs.progress import RunProgress
from saevx.dispatch.jobs.retry import Attempt, earlier
from saevx.dispatch.messages import Array, ArrayTask, TaskStatus
from saevx.dispatch.run_folder import RunFolder, active_runs, all_runs

if TYPE_CHECKING:
    from store import Store

REMEMBERED_RUNS = 5
"""The failures of so many earlier runs of the same file are looked up."""


def recover(store: Store, ledger: RunProgress, flights: JobMonitor) -> set[str]:
    """Take in the elements of all runs that make, or may have made, what a ledger lacks.

    Returns the keys of which it is not known yet whether another run has submitted them.
    """
    unsure: set[str] = set()
    for folder in active_runs(store):
        for array in folder.arrays():
            wanted = [
                element
                for index, batches in enumerate(array.tasks)
                if (element := ArrayTask(folder.name, array.name, index)) not in flights.known
                and any(key in ledger.left for batch in batches for key in batch)
            ]
            if not wanted:
                continue
            job = folder.handle_of(array.name) or reconcile(folder, array)
            if job is None:
                unsure |= {key for task in wanted for key in array.keys_of(task.number)}
            for element in wanted if job else ():
                _take_over(Job(folder, element, job or ""), ledger, flights)
    return unsure


def _take_over(flight: Job, ledger: RunProgress, flights: JobMonitor) -> None:
    folder, element = flight.folder, flight.task
    flights.known.add(element)
    outcome = folder.outcome(element.array, element.number)
    if outcome is not None:
        ledger.take_in(flight, outcome)
    elif (executor := executor_of(flight)).looks_ahead or (
        folder.submitter and folder.submitter.runs()  # of one on another host the leases tell
    ):
        flights.add(flight)
    elif not folder.submitter_may_be_alive:
        abandoned = post_mortem(flight, executor.deaths([flight]), lost=True)
        if abandoned is not None:
            folder.write_outcome(element.array, element.number, abandoned)


def reconcile(folder: RunFolder, array: Array) -> str | None:
    """The job of an array whose submitter died before it wrote it down.

    "" for none, None where that cannot be known yet.
    """
    job = EXECUTORS[folder.info.executor].find(array, folder)
    if job:
        folder.set_handle(array.name, job)
    elif job == "":
        folder.drop(array.name)
    return job


def reconcile_all(folder: RunFolder) -> None:
    for array in list(folder.arrays()):
        if folder.handle_of(array.name) is None:
            reconcile(folder, array)


def recall_failures(store: Store, ledger: RunProgress) -> None:
    """Give up what failed with an error in earlier runs of the same code: it would again."""
    if ledger.retry_failed:
        return
    for folder in all_runs(store, ledger.prefix)[-REMEMBERED_RUNS:]:
        if not folder.ended or folder.info.code != ledger.code:
            continue
        for name, index in folder.finished_tasks():
            outcome = folder.outcome(name, index)
            flight = Job(folder, ArrayTask(folder.name, name, index), folder.handle_of(name) or "")
            for key, result in (outcome.results if outcome else {}).items():
                if (
                    result.status is TaskStatus.ERROR
                    and key in ledger.left
                    and not ledger.is_there(key)
                ):
                    told = earlier(where(flight))
                    ledger.fail(key, Attempt(result, False, 0.0, ledger.code, told))
