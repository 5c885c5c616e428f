"""One flight: an element that was submitted, wherever it runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from saevx.dispatch.messages import Array, ArrayTask
from saevx.dispatch.run_folder import RunFolder, element_keys
from saevx.dispatch.runs.logs import existing_logs


@dataclass
class Job:
    """An element that was submitted and has not ended, as far as is known."""

    folder: RunFolder
    element: ArrayTask
    job: str
    """As in `RunFolder.job_of`; "" where that was never written down."""
    running: bool = False
    reason: str = ""
    node: str = ""
    gone_since: float | None = None
    """When its executor first did not know it any more."""

    @property
    def at(self) -> tuple[str, int]:
        """Array and index: how the folder of its run names it."""
        return self.element.array, self.element.at

    @property
    def executor(self) -> str:
        """Name of the executor that it was given to."""
        return self.folder.info.executor

    @property
    def keys(self) -> list[str]:
        return element_keys(self.folder, self.element)

    @property
    def array(self) -> Array | None:
        return self.folder.array(self.element.array)

    @property
    def recipe(self) -> str:
        """Type of the specs that it makes."""
        return self.array.recipe if self.array else ""

    @property
    def submitted(self) -> float:
        return self.array.submitted if self.array else 0.0

    @property
    def parts(self) -> list[int]:
        """Which parts it makes; none where it makes whole artifacts."""
        return self.array.parts_of(self.element.at) if self.array else []

    @property
    def logs(self) -> list[Path]:
        """What it printed, the best file first; none where it printed nothing."""
        return existing_logs(self.folder, *self.at, self.job)


def flights_of(folder: RunFolder) -> Iterator[Job]:
    """All elements that a run has submitted, or may have."""
    for array in folder.arrays():
        job = folder.job_of(array.name) or ""
        for index in range(len(array.elements)):
            yield Job(folder, ArrayTask(folder.name, array.name, index), job)


def unfinished(folder: RunFolder) -> list[Job]:
    """Its elements that have no outcome."""
    done = folder.outcome_names()
    return [flight for flight in flights_of(folder) if flight.at not in done]
