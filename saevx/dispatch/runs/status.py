"""The state of runs: what is queued, running and ended. Reads only."""

from __future__ import annotations

import time
import warnings
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct, field

from saevx.dispatch.executors import executor_of, statuses
from saevx.dispatch.executors.base import JobState, JobStatus
from saevx.dispatch.follow.find import Follower, find_followers
from saevx.dispatch.jobs.job import Job, jobs_of, unfinished_jobs
from saevx.dispatch.jobs.retry import facts
from saevx.dispatch.messages import ArrayTask, Outcome, TaskStatus
from saevx.dispatch.run_folder import RunFolder, active_runs, all_runs
from saevx.errors import NoAnswer, SaevxWarning, StoreError

if TYPE_CHECKING:
    from store import Store


_SUCCESSES = {TaskStatus.MADE, TaskStatus.MADE_ELSEWHERE, TaskStatus.PART}


class TaskState(Struct, kw_only=True):
    """The state of a task that is queued, running or failed."""

    recipe: str
    keys: list[str]
    state: str
    """`running`, `waiting`, `unknown` (`reason` says why), or the value of a TaskStatus."""
    job: str
    parts: list[int]
    """The parts that it makes; none if it makes whole artifacts."""
    node: str
    reason: str = field(name="told", default="")
    """Why it waits, or why it failed."""
    done: int = 0
    total: int = 0
    unit: str = ""
    n_made: int = 0
    rate: float = 0.0
    wall_s: float = 0.0
    left_s: float | None = None
    """Seconds until the present batch is done, at its present rate."""
    log: str


class RunState(Struct):
    """The state of a run."""

    run: str
    name: str
    executor: str
    user: str
    began: float
    path: str
    follower: Follower | None = None
    """The Slurm job that runs `saevx run` of its file."""
    artifacts: dict[str, int] = {}
    """State -> number of artifacts in it. One that is made in parts may be in several states."""
    tasks: list[TaskState] = field(name="elements", default_factory=list)

    @property
    def document(self) -> Any:
        return msgspec.to_builtins(self)


def run_states(store: Store) -> list[RunState]:
    """Return the runs of which something may be queued or running, oldest first."""
    folders = active_runs(store)
    live = statuses([job for folder in folders for job in unfinished_jobs(folder)])
    runs = [_run_state(folder, live) for folder in folders]
    try:
        followers = find_followers(store)
    except NoAnswer as error:
        warnings.warn(f"jobs of --follow are not shown: {error}", SaevxWarning, stacklevel=2)
        followers = []
    for follower in followers:
        followed = [run for run in runs if run.run.startswith(follower.prefix)]
        if not followed:  # it has not submitted anything yet, or is between two stages
            runs.append(RunState("", follower.name, "slurm", follower.user, 0.0, ""))
        (followed or runs)[-1].follower = follower
    return runs


def _run_state(folder: RunFolder, live: dict[ArrayTask, JobStatus]) -> RunState:
    info = folder.info
    run = RunState(folder.name, info.name, info.executor, info.user, info.began, info.path)
    finished = folder.finished_tasks()
    keys: dict[str, set[str]] = defaultdict(set)
    for job in jobs_of(folder):
        outcome = folder.outcome(*job.position) if job.position in finished else None
        if outcome is None:
            task = _unfinished(job, live.get(job.task, JobStatus(JobState.UNKNOWN)))
            keys[task.state].update(job.keys)
            run.tasks.append(task)
            continue
        for key, result in outcome.results.items():
            if result.status is not TaskStatus.PART:
                keys[result.status.value].add(key)
        if not {result.status for result in outcome.results.values()} <= _SUCCESSES:
            run.tasks.append(_failed(job, outcome))
    run.artifacts = {state: len(members) for state, members in keys.items()}
    return run


def _failed(job: Job, outcome: Outcome) -> TaskState:
    first = next(one for one in outcome.results.values() if one.status not in _SUCCESSES)
    last_line = first.message.strip().rpartition("\n")[2]
    exit_facts = facts(outcome) if outcome.exit_code else ""
    return TaskState(
        recipe=job.recipe,
        keys=job.keys,
        state=first.status.value,
        job=executor_of(job).job_id(job) or outcome.job,
        parts=job.parts,
        node=outcome.host,
        reason=", ".join(filter(None, (last_line, exit_facts))),
        wall_s=outcome.wall_s,
        log=str(job.folder.log(*job.position)),
    )


def _unfinished(job: Job, status: JobStatus) -> TaskState:
    task = TaskState(
        recipe=job.recipe,
        keys=job.keys,
        state=status.state.value,
        job=executor_of(job).job_id(job),
        parts=job.parts,
        node=status.node,
        reason=status.reason,
        log=str(job.folder.log(*job.position)),
    )
    if status.state is JobState.GONE:
        task.state, task.reason = "unknown", "it left no outcome; `saevx run` finds out why"
    if status.state is not JobState.RUNNING:
        return task
    task.reason = ""
    if (progress := job.folder.progress(*job.position)) is not None:
        task.job, task.node = task.job or progress.job, task.node or progress.host
        task.done, task.total, task.unit = progress.done, progress.total, progress.unit
        task.rate, task.n_made = progress.rate, progress.n_made
        task.left_s = (task.total - task.done) / task.rate if task.rate > 0 else None
        task.wall_s = round(time.time() - progress.began, 1)
    return task


def latest_jobs(store: Store, key: str) -> list[Job]:
    """Return the latest job for a key, given by its prefix; several if they share its parts.

    Raises StoreError if there is none, or if the prefix has several keys.
    """
    jobs = [job for folder in all_runs(store) for job in jobs_of(folder)]
    jobs = [job for job in jobs if any(one.startswith(key) for one in job.keys)]
    if not jobs:
        raise StoreError(
            f"no job in {store.root} was submitted for a key that begins with {key!r}; "
            "`saevx status` shows those that are queued or running"
        )
    keys = {one for job in jobs for one in job.keys if one.startswith(key)}
    if len(keys) > 1:
        raise StoreError(f"{len(keys)} keys begin with {key!r}; give more digits")
    latest = max(jobs, key=lambda job: job.submitted)
    return [job for job in jobs if job.task[:2] == latest.task[:2]]
