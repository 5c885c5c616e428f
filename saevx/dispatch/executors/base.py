"""The interface of executors: all that the rest of dispatch knows of where jobs run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from saevx.dispatch.executors.sacct import ExitInfo
from saevx.dispatch.jobs.job import Job
from saevx.dispatch.messages import Array, ArrayTask, Outcome
from saevx.dispatch.profiles import Resources
from saevx.dispatch.run_folder import RunFolder


class JobState(Enum):
    """Whether the job of an element goes on."""

    WAITING = "waiting"
    RUNNING = "running"
    GONE = "gone"
    """It does not, and will not again."""
    UNKNOWN = "unknown"
    """There was no answer: nothing may be concluded."""


class JobStatus(NamedTuple):
    """What an executor says of the job of an element."""

    state: JobState
    reason: str = ""
    """Why it waits, or is not known."""
    node: str = ""


class Executor(Protocol):
    """Runs elements of arrays somewhere else.

    The methods about jobs are for those that any run gave to an executor of that name.
    """

    name: str
    looks_ahead: bool
    """Whether it can be given elements whose inputs are still being made, and its jobs go on
    without the process that submitted them."""
    poll_s: float
    """Seconds between two questions about what is live: they burden a cluster."""
    grace_s: float
    """For so long after a job has gone its outcome may be on its way through a file server."""

    @property
    def largest_array(self) -> int: ...

    @property
    def width(self) -> int:
        """How many elements may as well share a batch, where there are fewer batches."""
        ...

    def submit(
        self, array: Array, folder: RunFolder, resources: Resources, after: Collection[str]
    ) -> str:
        """Submit an array, to run after other jobs. Returns its job as `RunFolder.handle_of` does.

        Raises SlurmError; NoAnswer where it may have been submitted all the same.
        """
        ...

    def find(self, array: Array, folder: RunFolder) -> str | None:
        """The job of an array whose submitter died before it wrote it down.

        "" for none, None where that cannot be known yet.
        """
        ...

    def statuses(self, flights: Sequence[Job]) -> dict[ArrayTask, JobStatus]:
        """Whether jobs are gone: the one place that says so."""
        ...

    def deaths(self, flights: Sequence[Job]) -> dict[ArrayTask, ExitInfo] | None:
        """How jobs ended that are gone, as far as is known; None where there was no answer."""
        ...

    def cancel(self, folder: RunFolder, flights: Sequence[Job], whole: bool) -> None:
        """End jobs of one run; `whole` says that those are all. Raises SlurmError, StoreError."""
        ...

    def job_id(self, flight: Job) -> str:
        """For people: what the cluster calls its job; "" where there is no such name."""
        ...

    def memory_gb(self, flight: Job, outcome: Outcome) -> float | None:
        """The memory that a job had; None where that is not known, or was the machine's."""
        ...

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        ...

    def close(self) -> None:
        """End what must not outlive this process."""
        ...
