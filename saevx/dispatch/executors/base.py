"""The interface of executors: all that the rest of dispatch knows of where jobs run."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import NamedTuple, Protocol

from saevx.dispatch.jobs.job import Job
from saevx.dispatch.messages import Array, ArrayTask, Outcome, Result, TaskStatus
from saevx.dispatch.profiles import Resources
from saevx.dispatch.run_folder import RunFolder


class JobState(Enum):
    """Whether a job is active."""

    WAITING = "waiting"
    RUNNING = "running"
    GONE = "gone"
    """It has ended, and does not start again."""
    UNKNOWN = "unknown"
    """The executor did not answer: nothing may be concluded."""


class JobStatus(NamedTuple):
    """What an executor says of a job."""

    state: JobState
    reason: str = ""
    """Why it waits, or is not known."""
    node: str = ""


class ExitInfo(NamedTuple):
    """What an executor says of a job that is over and left no outcome."""

    status: TaskStatus | None = None
    """None when it ended well, or is not over."""
    message: str = ""
    exit_code: str = ""
    wall_s: float = 0.0
    peak_memory_bytes: int = 0
    memory_bytes: int = 0
    """Requested memory; 0 where that is not known."""
    host: str = ""

    def outcome(self, keys: Iterable[str]) -> Outcome:
        """The outcome to record on behalf of a worker that could not write one."""
        assert self.status is not None
        return Outcome(
            results={key: Result(status=self.status, message=self.message) for key in keys},
            host=self.host,
            wall_s=self.wall_s,
            peak_memory_bytes=self.peak_memory_bytes,
            memory_bytes=self.memory_bytes,
            exit_code=self.exit_code,
            ended=time.time(),
        )


class Executor(Protocol):
    """Runs the tasks of arrays in other processes.

    Methods that take jobs work for the jobs of any run that used an executor of the same name.
    """

    name: str
    outlives_submitter: bool
    """Whether its jobs outlive the process that submits them. Then they may also be submitted
    before their inputs exist."""
    poll_s: float
    """Seconds between two queries of all jobs: queries burden a cluster."""
    grace_s: float
    """For so long after the end of a job its outcome may be in transit through a file server."""
    jobs_per_batch: int
    """How many jobs may share one batch, where there are fewer batches than that."""

    @property
    def max_array_size(self) -> int: ...

    def submit(
        self, array: Array, folder: RunFolder, resources: Resources, after: Collection[str]
    ) -> str:
        """Submit an array, to run after the arrays with the handles `after`. Return its handle.

        Raise SlurmError; NoAnswer where it may have been submitted all the same.
        """
        ...

    def find(self, array: Array, folder: RunFolder) -> str | None:
        """Return the handle of an array whose submitter was killed before it recorded it.

        "" if it was not submitted, None while that cannot be known.
        """
        ...

    def is_available(self) -> bool:
        """Whether it takes submissions now."""
        return True

    def statuses(self, jobs: Sequence[Job]) -> dict[ArrayTask, JobStatus]:
        """Return the state of jobs. No other method judges whether a job is gone."""
        ...

    def exit_infos(self, jobs: Sequence[Job]) -> dict[ArrayTask, ExitInfo] | None:
        """Return how gone jobs ended, as far as is known; None without an answer."""
        ...

    def cancel(self, folder: RunFolder, jobs: Sequence[Job], whole: bool) -> None:
        """End jobs of one run; `whole` if those are all of its jobs.

        Raise SlurmError or StoreError where that is not possible.
        """
        ...

    def job_id(self, job: Job) -> str:
        """Return what the cluster calls a job, for people; "" where there is no cluster."""
        return ""

    def memory_gb(self, job: Job, outcome: Outcome) -> float | None:
        """Return the memory limit of a job; None where there was none, or it is not known."""
        return None

    def logs(self, job: Job) -> list[Path]:
        """Return the files with output of a job, the most relevant first. None is empty."""
        ...

    def wait(self, seconds: float) -> None:
        """Wait that long, or until something happens."""
        time.sleep(seconds)

    def close(self) -> None:
        """End what must not outlive this process."""
        return


def not_empty(files: Iterable[Path]) -> list[Path]:
    """Those of the files that exist and hold something."""
    found = []
    for file in files:
        with suppress(OSError):
            if file.stat().st_size:
                found.append(file)
    return found
