"""Jobs: the tasks of arrays that runs have submitted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from saevx.dispatch.messages import Array, ArrayTask
from saevx.dispatch.run_folder import RunFolder


@dataclass
class Job:
    """A task that was submitted, and what its executor last said of it."""

    folder: RunFolder
    task: ArrayTask
    handle: str
    """Of its array, as in `RunFolder.handle_of`; "" where that was never recorded."""
    running: bool = False
    reason: str = ""
    """Why it waits."""
    node: str = ""
    gone_since: float | None = None
    """When its executor first did not know it any more."""

    @property
    def position(self) -> tuple[str, int]:
        """Array and number, by which the folder of its run names it."""
        return self.task.array, self.task.number

    @property
    def executor(self) -> str:
        """Name of the executor that runs it."""
        return self.folder.info.executor

    @property
    def keys(self) -> list[str]:
        return self.array.keys_of(self.task.number) if self.array else []

    @property
    def array(self) -> Array | None:
        return self.folder.array(self.task.array)

    @property
    def recipe(self) -> str:
        """Type of the specs that it makes."""
        return self.array.recipe if self.array else ""

    @property
    def submitted(self) -> float:
        return self.array.submitted if self.array else 0.0

    @property
    def parts(self) -> list[int]:
        """The parts that it makes; none where it makes whole artifacts."""
        return self.array.parts_of(self.task.number) if self.array else []


def jobs_of(folder: RunFolder) -> Iterator[Job]:
    """All jobs that a run has submitted, or may have submitted."""
    for array in folder.arrays():
        handle = folder.handle_of(array.name) or ""
        for number in range(len(array.tasks)):
            yield Job(folder, ArrayTask(folder.name, array.name, number), handle)


def unfinished_jobs(folder: RunFolder) -> list[Job]:
    """The jobs of a run that have no outcome."""
    done = folder.finished_tasks()
    return [job for job in jobs_of(folder) if job.position not in done]
