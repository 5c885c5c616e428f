"""Executors: where elements run. The coordinator knows them by these few methods."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Collection
from contextlib import redirect_stderr
from typing import Protocol

from store.owner import Life, Owner

from . import accounting, sbatch, slurm
from .folder import RunFolder
from .local import Pool, exit_in_words
from .profiles import Resources
from .records import Array, End, Outcome, Result


class Executor(Protocol):
    """Runs elements of arrays somewhere else."""

    name: str
    looks_ahead: bool
    """Whether it can be given elements whose inputs are still being made."""
    poll_s: float
    """Seconds between two questions about what is live: they burden a cluster."""

    @property
    def largest_array(self) -> int: ...

    @property
    def width(self) -> int:
        """How many elements may as well share a batch, where there are fewer batches."""
        ...

    def submit(
        self, array: Array, folder: RunFolder, resources: Resources, after: Collection[str]
    ) -> str:
        """Submit an array, to run after other jobs. Returns its job as `RunFolder.job_of` does."""
        ...

    def owns(self, folder: RunFolder) -> bool:
        """Whether the elements of a run are processes of this one."""
        ...

    def live(self) -> set[tuple[str, int]]:
        """Of the run that it owns, the elements that wait or run."""
        ...

    def running(self) -> set[tuple[str, int]]: ...

    def death(self, folder: RunFolder, array: str, index: int) -> accounting.Death | None:
        """How the process of an element ended under it, where it was one of this one's."""
        ...

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        ...

    def close(self) -> None:
        """End what must not outlive this process."""
        ...


class Slurm:
    """Job arrays of Slurm."""

    name = "slurm"
    looks_ahead = True
    poll_s = 4.0
    width = 1

    @property
    def largest_array(self) -> int:
        return slurm.max_array_size()

    def submit(
        self, array: Array, folder: RunFolder, resources: Resources, after: Collection[str]
    ) -> str:
        jobs = [job for job in map(slurm.array_of, after) if job]
        said = io.StringIO()
        try:
            # submitit prints what sbatch says against it: that belongs in the error.
            with redirect_stderr(said):
                return slurm.written(sbatch.submit(array, folder, resources, jobs))
        except slurm.SlurmError as error:
            lines = [line for line in said.getvalue().splitlines() if line not in str(error)]
            raise slurm.SlurmError("\n".join([str(error), *lines])) from error

    def owns(self, folder: RunFolder) -> bool:
        return False

    def live(self) -> set[tuple[str, int]]:
        return set()

    def running(self) -> set[tuple[str, int]]:
        return set()

    def death(self, folder: RunFolder, array: str, index: int) -> accounting.Death | None:
        return None

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        pass


class Local:
    """Processes on this machine. They end with this one."""

    name = "local"
    looks_ahead = False
    poll_s = 0.0
    largest_array = 10_000

    def __init__(self, n: int) -> None:
        self.width = n
        self._pool: Pool | None = None

    def submit(
        self, array: Array, folder: RunFolder, resources: Resources, after: Collection[str]
    ) -> str:
        if self._pool is None:
            self._pool = Pool(folder, self.width)
        self._pool.submit(array, resources)
        return f"local:{Owner.here()}"

    def owns(self, folder: RunFolder) -> bool:
        return self._pool is not None and self._pool.folder.name == folder.name

    def live(self) -> set[tuple[str, int]]:
        return self._pool.live() if self._pool else set()

    def running(self) -> set[tuple[str, int]]:
        return self._pool.running if self._pool else set()

    def withdraw(self, elements: set[tuple[str, int]]) -> None:
        if self._pool is not None:
            self._pool.withdraw(elements)

    def death(self, folder: RunFolder, array: str, index: int) -> accounting.Death | None:
        code = self._pool.died.get((array, index)) if self._pool else None
        if code is None:
            return None
        progress = folder.progress(array, index)
        wall_s = time.time() - progress.began if progress else 0.0
        return accounting.Death(
            end=End.KILLED,
            message=exit_in_words(code),
            exit_code=f"{code}:0" if code >= 0 else f"0:{-code}",
            wall_s=round(wall_s, 1),
            peak_memory_bytes=0,
            memory_bytes=0,
            node=os.uname().nodename,
        )

    def wait(self, seconds: float) -> None:
        if self._pool is None:
            time.sleep(seconds)
        else:
            self._pool.tick(seconds)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()


def local_life(job: str) -> Life:
    """Whether the process that a local run belongs to still runs.

    Of one on another host nobody knows: its leases say what it is making.
    """
    try:
        return Owner.parse(job.removeprefix("local:")).life()
    except ValueError:
        return Life.DEAD


def death_outcome(
    keys: Collection[str], end: End, message: str, death: accounting.Death | None = None
) -> Outcome:
    """The outcome of an element that could not write its own."""
    return Outcome(
        results={key: Result(end=end, message=message) for key in keys},
        host=death.node if death else "",
        wall_s=death.wall_s if death else 0.0,
        peak_memory_bytes=death.peak_memory_bytes if death else 0,
        memory_bytes=death.memory_bytes if death else 0,
        exit_code=death.exit_code if death else "",
        ended=time.time(),
    )
