"""Where an element's output is: its own log, or that of whatever should have begun it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from saevx.dispatch.run_folder import RunFolder


def existing_logs(folder: RunFolder, array: str, index: int, job: str) -> list[Path]:
    """The files that hold what an element printed, or why it never began; the best one first.

    `job` is as in `RunFolder.handle_of`. Files that are not there, or empty, are left out.
    """
    found = [file for file in _own(folder, array, index, job) if _size(file)]
    if not found and job.startswith("local:"):
        # Nobody wrote down which of the workers it was given to.
        workers = filter(_size, folder.logs.glob("worker.*.log"))
        found = sorted(workers, key=lambda file: -file.stat().st_mtime)
    return found


def _own(folder: RunFolder, array: str, index: int, job: str) -> Iterator[Path]:
    yield folder.log(array, index)
    if job.startswith("slurm:"):
        # What Slurm itself, the lines of `setup`, and a worker that could not begin have said.
        yield folder.logs / "slurm" / f"{job.removeprefix('slurm:')}_{index}_0_log.out"


def _size(file: Path) -> int:
    with suppress(OSError):
        return file.stat().st_size
    return 0
