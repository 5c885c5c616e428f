"""Cancelling what is queued or running."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from saevx.dispatch.executors import executor_of, slurm
from saevx.dispatch.executors.base import ExitInfo
from saevx.dispatch.follow.find import Follower, find_followers
from saevx.dispatch.jobs.job import unfinished_jobs
from saevx.dispatch.jobs.recover import reconcile_all
from saevx.dispatch.messages import TaskStatus
from saevx.dispatch.run_folder import RunFolder, active_runs
from saevx.errors import StoreError
from store.errors import SlurmError

if TYPE_CHECKING:
    from store import Store


@dataclass
class Cancelled:
    """What was cancelled."""

    jobs: int = 0
    """Elements; those of local runs count, too."""
    keys: dict[str, str] = field(default_factory=dict)
    """Key -> type of what they were to make."""
    paths: set[str] = field(default_factory=set)
    """Experiment files whose runs they belonged to."""
    followers: list[Follower] = field(default_factory=list)
    """Slurm jobs that waited for them."""
    refused: list[str] = field(default_factory=list)
    """What could not be cancelled, and why."""


def cancel(
    store: Store,
    chosen: Callable[[RunFolder, list[str]], bool],
    followed: Callable[[Follower], bool] = lambda one: False,
) -> Cancelled:
    """Cancel the elements that are `chosen` by run and keys, and before them the followers.

    What cannot be cancelled keeps nothing else from it.
    """
    done = Cancelled()
    try:
        # First who would submit them anew.
        followers = [one for one in find_followers(store) if followed(one)]
        slurm.cancel([one.job for one in followers])
        done.followers = followers
    except SlurmError as error:
        done.refused.append(f"jobs of --follow: {error}")
    for folder in active_runs(store):
        try:
            _cancel_in(folder, chosen, done)
        except (SlurmError, StoreError, OSError) as error:
            why = (isinstance(error, OSError) and error.strerror) or error
            done.refused.append(f"{folder.info.name}, a run of {folder.info.user}: {why}")
    return done


def _cancel_in(
    folder: RunFolder, chosen: Callable[[RunFolder, list[str]], bool], done: Cancelled
) -> None:
    if not any(chosen(folder, flight.keys) for flight in unfinished_jobs(folder)):
        return
    done.paths.add(folder.info.path)
    reconcile_all(folder)
    flights = unfinished_jobs(folder)
    wanted = [flight for flight in flights if chosen(folder, flight.keys)]
    if wanted:
        executor_of(wanted[0]).cancel(folder, wanted, whole=len(wanted) == len(flights))
    for flight in wanted:
        done.jobs += 1
        done.keys |= dict.fromkeys(flight.keys, flight.recipe)
        if not folder.outcome(*flight.position):
            info = ExitInfo(TaskStatus.CANCELLED, "by `saevx cancel`")
            folder.write_outcome(*flight.position, info.outcome(flight.keys))
    if folder.is_finished:
        folder.end()
