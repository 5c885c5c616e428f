"""The JSON records of dispatch. Nothing is pickled, and any host can read them.

A run is one call of `saevx run` that gives work to other processes. It submits job arrays. Each
task of an array is one job of Slurm, or one request to a local worker, and makes the specs of one
or several batches.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

from msgspec import Struct, field


class RunInfo(Struct, frozen=True, kw_only=True):
    """What workers need to know of a run."""

    name: str
    """Of the experiment."""
    path: str
    """Of the experiment file; "" where there is none."""
    experiment: str
    """Its copy in the run's code; "" where no spec type or recipe is defined outside of saevx."""
    executor: str
    owner: str
    """Process that submits."""
    user: str
    code: str
    """Digest of the code."""
    origin: dict[str, Any]
    """Commits of the code, as the fields of a CodeVersion."""
    folder: str
    """Working directory of the run and of its jobs."""
    store_root: str
    store_roots: dict[str, str]
    data_roots: dict[str, str]
    began: float


class Array(Struct, frozen=True, kw_only=True):
    """A job array: tasks that make specs of one type and ask for the same resources."""

    name: str
    """Unique: by it, Slurm tells whether an array whose job id was not recorded was submitted."""
    recipe: str
    """Type of the specs."""
    tasks: list[list[list[str]]] = field(name="elements")
    """Task -> its batches -> keys."""
    parts: list[list[int]] = []
    """Task -> the parts that it makes of the artifacts of its only batch; none for whole
    artifacts. Empty where no task makes parts."""
    documents: dict[str, dict[str, Any]]
    """Key -> the spec's document."""
    resources: str
    """JSON, as requested."""
    memory_gb: float | None
    submitted: float

    def keys_of(self, index: int) -> list[str]:
        return [key for batch in self.tasks[index] for key in batch]

    def parts_of(self, index: int) -> list[int]:
        return self.parts[index] if self.parts else []


class TaskStatus(Enum):
    """How the making of one artifact ended."""

    MADE = "made"
    MADE_ELSEWHERE = "made elsewhere"
    """Another process had made it."""
    PART = "part made"
    """The task made its parts. Other tasks make the others, and the last one the artifact."""
    BLOCKED = "blocked"
    """An input was missing."""
    ERROR = "error"
    """The recipe failed, and would fail again."""
    OUT_OF_MEMORY = "out of memory"
    TIME_LIMIT = "time limit"
    PREEMPTED = "preempted"
    NODE_FAILURE = "node failure"
    KILLED = "killed"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"
    """The run whose local process made it has ended."""
    NOT_SEEN = "not seen"
    """A job reported it as made, and the store does not show it."""
    VANISHED = "vanished"
    """Slurm does not know the job any more, and the job left no outcome."""


class Result(Struct, frozen=True, kw_only=True):
    """How the making of one key ended."""

    status: TaskStatus = field(name="end")
    message: str = ""


class Outcome(Struct, frozen=True, kw_only=True):
    """How a task ended: written by its worker, or on behalf of a worker that was killed."""

    results: dict[str, Result]
    host: str = ""
    job: str = ""
    wall_s: float = 0.0
    peak_memory_bytes: int = 0
    memory_bytes: int = 0
    """Requested by its job; 0 where that is not known."""
    exit_code: str = ""
    """As Slurm writes it, `code:signal`; "" where the worker wrote this itself."""
    progressed: bool = False
    """Whether it made something before it was interrupted, so that a retry gets further."""
    ended: float = 0.0


class Progress(Struct, frozen=True, kw_only=True):
    """How far a running task is."""

    host: str
    job: str
    began: float
    done: int = 0
    total: int = 0
    unit: str = ""
    n_made: int = 0
    """Artifacts of the task that are finished or failed."""
    rate: float = 0.0
    """Units per second in the present batch."""


class ArrayTask(NamedTuple):
    """A task: its run, its array, and its number in the array."""

    run: str
    array: str
    number: int
