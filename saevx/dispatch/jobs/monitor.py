"""The monitor: finds out how jobs end, from the outcomes that workers write or else from executors.

It watches the jobs that make what a run needs, whichever run submitted them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from saevx.dispatch.executors import EXECUTORS, statuses
from saevx.dispatch.executors.base import Executor, ExitInfo, JobState
from saevx.dispatch.jobs.job import Job
from saevx.dispatch.messages import ArrayTask, Outcome, TaskStatus

LOST_S = 15.0
"""A job that is gone for so long, and whose end no executor knows, counts as vanished."""


@dataclass
class JobMonitor:
    """The active jobs that one process waits for."""

    executors: Mapping[str, Executor] = field(default_factory=lambda: EXECUTORS)
    """By name."""
    jobs: dict[ArrayTask, Job] = field(default_factory=dict)
    known: set[ArrayTask] = field(default_factory=set)
    """All jobs that were ever added, or found to be over."""
    unanswered_s: float = 0.0
    """For how long an executor has not answered."""
    _polled: float = float("-inf")
    _answered: float = field(default_factory=time.monotonic)

    def add(self, job: Job) -> None:
        self.jobs[job.task] = job
        self.known.add(job.task)

    def by_key(self) -> dict[str, list[Job]]:
        """Key -> the jobs that make it: several where each makes some of its parts."""
        found: dict[str, list[Job]] = {}
        for job in self.jobs.values():
            for key in job.keys:
                found.setdefault(key, []).append(job)
        return found

    def is_shared(self, job: Job) -> bool:
        """Whether a running job of the same array makes other parts of the same artifacts."""
        return bool(job.parts) and any(
            other.running and other.task[:2] == job.task[:2] and set(job.keys) & set(other.keys)
            for other in self.jobs.values()
        )

    def take_ended(self) -> list[tuple[Job, Outcome]]:
        """Remove the jobs that have ended, and return them with their outcomes."""
        ended = self._take_finished()
        if self._poll():
            diagnosed = diagnose(self.gone, self._is_lost, self.executors)
            for job, _ in diagnosed:
                del self.jobs[job.task]
            ended += diagnosed
        return ended

    def any_active(self) -> bool:
        """Whether some jobs have not ended yet. Writes nothing, unlike `ended`."""
        self._poll()
        self._take_finished()
        return len(self.gone) < len(self.jobs)

    @property
    def gone(self) -> list[Job]:
        """Jobs that no executor runs any more, and whose outcome should be there by now."""
        now = time.monotonic()
        return [
            job
            for job in self.jobs.values()
            if job.gone_since is not None
            and now - job.gone_since >= self.executors[job.executor].grace_s
        ]

    def _take_finished(self) -> list[tuple[Job, Outcome]]:
        """Remove the jobs that have written an outcome, and return them."""
        folders = {job.task.run: job.folder for job in self.jobs.values()}
        written = {run: folder.finished_tasks() for run, folder in folders.items()}
        finished = [
            (job, outcome)
            for job in self.jobs.values()
            if job.position in written[job.task.run]
            and (outcome := job.folder.outcome(*job.position)) is not None
        ]
        for job, _ in finished:
            del self.jobs[job.task]
        return finished

    def _poll(self) -> bool:
        """Ask the executors about all jobs; False where it is too early to ask again."""
        now = time.monotonic()
        used = {job.executor for job in self.jobs.values()}
        poll_s = max((self.executors[name].poll_s for name in used), default=0.0)
        if now - self._polled < poll_s:
            return False
        seen = statuses(self.jobs.values(), self.executors)
        self._polled = now = time.monotonic()
        for task, (state, reason, node) in seen.items():
            job = self.jobs[task]
            if state is JobState.GONE:
                job.gone_since = job.gone_since or now
            elif state is not JobState.UNKNOWN:
                job.running, job.reason, job.node = state is JobState.RUNNING, reason, node
                job.gone_since = None
        if all(status.state is not JobState.UNKNOWN for status in seen.values()):
            self._answered = now
        self.unanswered_s = now - self._answered
        return True

    def _is_lost(self, job: Job) -> bool:
        return time.monotonic() - (job.gone_since or 0.0) >= LOST_S


def diagnose(
    gone: Sequence[Job],
    is_lost: Callable[[Job], bool],
    executors: Mapping[str, Executor] = EXECUTORS,
) -> list[tuple[Job, Outcome]]:
    """Find out how jobs that are gone have ended, and write the outcomes that they did not write.

    Return those of which it is known. A lost job, about whose end nothing is known, has vanished.
    """
    found = []
    for name, executor in executors.items():
        jobs = [job for job in gone if job.executor == name]
        infos = executor.exit_infos(jobs)
        for job in jobs:
            outcome = job.folder.outcome(*job.position)  # it may have come in the meantime
            if outcome is None:
                outcome = _missing_outcome(job, infos, is_lost(job))
                if outcome is None:
                    continue
                job.folder.write_outcome(*job.position, outcome)
            found.append((job, outcome))
    return found


def _missing_outcome(
    job: Job, infos: Mapping[ArrayTask, ExitInfo] | None, is_lost: bool
) -> Outcome | None:
    """What an executor says of a job; None where it says nothing, and the job is not lost."""
    info = (infos or {}).get(job.task)
    if info is None or info.status is None:
        if not is_lost:
            return None
        if infos is None:
            why = "Slurm's accounting gives no answer"
        else:
            why = info.message if info else "Slurm's accounting does not know it"
        message = f"the job is over and left no outcome; {why}"
        info = (info or ExitInfo())._replace(status=TaskStatus.VANISHED, message=message)
    return info.outcome(job.keys)
