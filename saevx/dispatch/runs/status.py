"""What is queued, running and over, for people and programs. Reads only."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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


_WELL = {TaskStatus.MADE, TaskStatus.MADE_ELSEWHERE, TaskStatus.PART}


@dataclass
class TaskState:
    """One element that has not ended well."""

    recipe: str
    keys: list[str]
    state: str
    """`running`, `waiting`, `unknown` (`told` says why), or an `TaskStatus`."""
    job: str
    parts: list[int] = field(default_factory=list)
    """Which parts it makes; none where it makes whole artifacts."""
    node: str = ""
    told: str = ""
    """Why it waits, or why it failed."""
    done: int = 0
    total: int = 0
    unit: str = ""
    n_made: int = 0
    rate: float = 0.0
    wall_s: float = 0.0
    log: str = ""

    @property
    def left_s(self) -> float | None:
        """Seconds until the batch that runs is done, at its present rate."""
        return (self.total - self.done) / self.rate if self.rate > 0 else None

    @property
    def document(self) -> dict[str, Any]:
        return {**self.__dict__, "left_s": self.left_s}


@dataclass
class RunState:
    """One run."""

    run: str
    name: str
    executor: str
    user: str
    began: float
    path: str
    follower: Follower | None = None
    """The Slurm job that runs `saevx run` of its file."""
    standing: dict[str, set[str]] = field(default_factory=dict)
    """State -> keys of artifacts that stand so; those made in parts may stand in several ways."""
    elements: list[TaskState] = field(default_factory=list)

    @property
    def artifacts(self) -> dict[str, int]:
        """How many artifacts stand how."""
        return {state: len(keys) for state, keys in self.standing.items()}

    @property
    def document(self) -> dict[str, Any]:
        told = {name: value for name, value in self.__dict__.items() if name != "standing"}
        elements = [element.document for element in self.elements]
        follower = self.follower.document if self.follower else None
        told |= {"follower": follower, "artifacts": self.artifacts, "elements": elements}
        return told


def run_states(store: Store) -> list[RunState]:
    """The runs of which something may go on, oldest first."""
    folders = active_runs(store)
    live = statuses([flight for folder in folders for flight in unfinished_jobs(folder)])
    runs = [_run_state(folder, live) for folder in folders]
    try:
        followers = find_followers(store)
    except NoAnswer as error:
        warnings.warn(f"jobs of --follow are not shown: {error}", SaevxWarning, stacklevel=2)
        followers = []
    for follower in followers:
        followed = [run for run in runs if run.run.startswith(follower.prefix)]
        if not followed:  # nothing is sent off yet, or it is between two stages
            runs.append(RunState("", follower.name, "slurm", follower.user, 0.0, ""))
        (followed or runs)[-1].follower = follower
    return runs


def _run_state(folder: RunFolder, live: dict[ArrayTask, JobStatus]) -> RunState:
    info = folder.info
    seen = RunState(folder.name, info.name, info.executor, info.user, info.began, info.path)
    done = folder.finished_tasks()
    for flight in jobs_of(folder):
        outcome = folder.outcome(*flight.position) if flight.position in done else None
        if outcome is not None:
            _count(seen, outcome)
            ends = {result.status for result in outcome.results.values()}
            if not ends <= _WELL:
                seen.elements.append(_over(flight, outcome))
            continue
        element = _live(flight, live.get(flight.task, JobStatus(JobState.UNKNOWN)))
        seen.standing.setdefault(element.state, set()).update(flight.keys)
        seen.elements.append(element)
    return seen


def _count(seen: RunState, outcome: Outcome) -> None:
    for key, result in outcome.results.items():
        if result.status is not TaskStatus.PART:
            seen.standing.setdefault(result.status.value, set()).add(key)


def _over(flight: Job, outcome: Outcome) -> TaskState:
    bad = [r for r in outcome.results.values() if r.status not in _WELL]
    return TaskState(
        recipe=flight.recipe,
        keys=flight.keys,
        state=bad[0].status.value,
        job=executor_of(flight).job_id(flight) or outcome.job,
        parts=flight.parts,
        node=outcome.host,
        told=", ".join(filter(None, (bad[0].message.strip().rpartition("\n")[2], _facts(outcome)))),
        wall_s=outcome.wall_s,
        log=str(flight.folder.log(*flight.position)),
    )


def _facts(outcome: Outcome) -> str:
    return facts(outcome) if outcome.exit_code else ""


def _live(flight: Job, status: JobStatus) -> TaskState:
    element = TaskState(
        recipe=flight.recipe,
        keys=flight.keys,
        state="unknown" if status.state is JobState.GONE else status.state.value,
        job=executor_of(flight).job_id(flight),
        parts=flight.parts,
        node=status.node,
        told="" if status.state is JobState.RUNNING else status.reason,
        log=str(flight.folder.log(*flight.position)),
    )
    progress = flight.folder.progress(*flight.position)
    if status.state is JobState.GONE:
        element.told = "it left no outcome; `saevx run` finds out why"
    elif status.state is JobState.RUNNING and progress is not None:
        element.job, element.node = element.job or progress.job, element.node or progress.host
        element.done, element.total, element.unit = progress.done, progress.total, progress.unit
        element.rate, element.n_made = progress.rate, progress.n_made
        element.wall_s = round(time.time() - progress.began, 1)
    return element


def find_flights(store: Store, key: str) -> Iterator[Job]:
    """The elements that made, make or will make what has keys that begin so; the latest first."""
    for folder in reversed(all_runs(store)):
        found = [f for f in jobs_of(folder) if any(one.startswith(key) for one in f.keys)]
        yield from sorted(found, key=lambda flight: -flight.submitted)


def latest_jobs(store: Store, key: str) -> list[Job]:
    """The latest element for a key: several where they share its parts.

    Raises StoreError for none, or several keys.
    """
    flights = list(find_flights(store, key))
    if not flights:
        raise StoreError(
            f"no job in {store.root} was to make something whose key begins with {key!r}; "
            "`saevx status` shows those that go on"
        )
    keys = {one for f in flights for one in f.keys if one.startswith(key)}
    if len(keys) > 1:
        raise StoreError(f"{len(keys)} keys begin with {key!r}; give more digits")
    latest = flights[0].task
    return [f for f in flights if f.task[:2] == latest[:2]]
