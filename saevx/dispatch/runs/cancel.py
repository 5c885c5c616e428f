"""Cancel what is queued or running."""

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
    """What was cancelled, and what could not be."""

    jobs: int = 0
    """Number of jobs; the tasks of local runs count, too."""
    keys: dict[str, str] = field(default_factory=dict)
    """Key -> type of what they were to make."""
    paths: set[str] = field(default_factory=set)
    """Experiment files of their runs."""
    followers: list[Follower] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """What could not be cancelled, and why."""


def cancel(
    store: Store,
    chosen: Callable[[RunFolder, list[str]], bool],
    followed: Callable[[Follower], bool] = lambda follower: False,
) -> Cancelled:
    """Cancel the jobs whose run and keys are `chosen`, and the followers that are `followed`.

    An error with one run does not stop the others from being cancelled.
    """
    done = Cancelled()
    try:
        # Followers first: they would submit the jobs again.
        followers = [follower for follower in find_followers(store) if followed(follower)]
        slurm.cancel([follower.job for follower in followers])
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
    if not any(chosen(folder, job.keys) for job in unfinished_jobs(folder)):
        return
    done.paths.add(folder.info.path)
    reconcile_all(folder)
    jobs = unfinished_jobs(folder)
    wanted = [job for job in jobs if chosen(folder, job.keys)]
    if wanted:
        executor_of(wanted[0]).cancel(folder, wanted, whole=len(wanted) == len(jobs))
    for job in wanted:
        done.jobs += 1
        done.keys |= dict.fromkeys(job.keys, job.recipe)
        if not folder.outcome(*job.position):
            info = ExitInfo(TaskStatus.CANCELLED, "by `saevx cancel`")
            folder.write_outcome(*job.position, info.outcome(job.keys))
    if folder.is_finished:
        folder.end()
