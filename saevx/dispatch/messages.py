"""What dispatch writes down, as JSON: nothing of it is pickled, and any host can read it.

A run is one call of `saevx run` that sent work elsewhere. It sends arrays; an array has elements,
each of which is one job (or one turn of a local process) and makes one or several batches of specs.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

import msgspec


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The run, as its workers need to know it."""

    name: str
    """Of the experiment."""
    path: str
    """Of the experiment file, "" where there is none."""
    experiment: str
    """Its copy in the run's code, "" where no spec type or recipe is defined outside of saevx."""
    executor: str
    owner: str
    """Process that submits."""
    user: str
    code: str
    """Digest of the code."""
    origin: dict[str, Any]
    """Commits of the code, as an Origin records them."""
    folder: str
    """Where the run was started; jobs run there."""
    store_root: str
    store_roots: dict[str, str]
    data_roots: dict[str, str]
    began: float


class Array(msgspec.Struct, frozen=True, kw_only=True):
    """Several jobs that ask for the same, known to Slurm as one job array."""

    name: str
    """Unique: what tells a submission that was not recorded from one that was not made."""
    recipe: str
    """Type of the specs."""
    elements: list[list[list[str]]]
    """Index of an element -> its batches -> keys."""
    parts: list[list[int]] = []
    """Index of an element -> which parts it makes of the artifacts of its only batch; none for
    whole artifacts. Empty where no element makes parts."""
    documents: dict[str, dict[str, Any]]
    """Key -> the spec's document."""
    resources: str
    """JSON, as it was asked for."""
    memory_gb: float | None
    submitted: float

    def parts_of(self, index: int) -> list[int]:
        return self.parts[index] if self.parts else []


class TaskStatus(Enum):
    """How the making of one artifact ended."""

    MADE = "made"
    CAME = "came"
    """Another process had made it."""
    PART = "part made"
    """Its parts are there; other elements make the others, and the last one the artifact."""
    BLOCKED = "blocked"
    """An input was not there."""
    ERROR = "error"
    """The recipe failed: making it again would fail again."""
    OUT_OF_MEMORY = "out of memory"
    TIME_LIMIT = "time limit"
    PREEMPTED = "preempted"
    NODE_FAILURE = "node failure"
    KILLED = "killed"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"
    """The run whose process it was has ended."""
    UNSEEN = "not seen"
    """A job said that it made it, and the store does not show it."""
    VANISHED = "vanished"
    """Slurm does not know the job any more, and it left nothing behind."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How it ended for one key."""

    end: TaskStatus
    message: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How an element ended: written by its worker, or, where that died silently, for it."""

    results: dict[str, Result]
    host: str = ""
    job: str = ""
    wall_s: float = 0.0
    peak_memory_bytes: int = 0
    memory_bytes: int = 0
    """What its job had asked for; 0 where that is not known."""
    exit_code: str = ""
    """As Slurm writes it, `code:signal`; "" where it wrote its outcome itself."""
    progressed: bool = False
    """Whether something was made before it was cut off, so that another go gets further."""
    ended: float = 0.0


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a running element has come."""

    host: str
    job: str
    began: float
    done: int = 0
    total: int = 0
    unit: str = ""
    n_made: int = 0
    """Artifacts of the element that are done with."""
    rate: float = 0.0
    """Units a second in the batch that runs."""


class ArrayTask(NamedTuple):
    """Place of an element: which run, which array, which index."""

    run: str
    array: str
    at: int
