"""Arrays at Slurm: which of their elements wait and run, what they are called, and their end.

An array whose submitter died before it knew the job's id is found by its name.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from store.errors import NoAnswer, SlurmError
from store.locks.slurm import QueuedJob, ask, call, queue
from store.names import user_name

GONE_AFTER_S = 20.0
"""An array that was written down so long ago, and that Slurm does not know, was not submitted."""

AT_SLURM = "slurm:"


class SlurmTask(NamedTuple):
    """An element as Slurm names it."""

    array: str
    number: int


def written(array: str) -> str:
    """An array's id as the folder of a run has it."""
    return AT_SLURM + array


def array_of(job: str) -> str:
    """The id of an array from what the folder of a run has; "" where it is not at Slurm."""
    return job.removeprefix(AT_SLURM) if job.startswith(AT_SLURM) else ""


def states(arrays: Iterable[str], users: Iterable[str]) -> dict[SlurmTask, QueuedJob]:
    """The waiting and running elements of arrays of some users, by one squeue. Raises NoAnswer."""
    wanted = set(arrays)
    if not wanted:
        return {}
    # By user, since squeue fails where it is asked for one job that it has forgotten.
    queued = queue(f"--user={','.join(sorted(users))}")
    return {
        SlurmTask(one.array, int(one.task)): one
        for one in queued
        if one.array in wanted and one.task.isdigit()
    }


def answers() -> bool:
    try:
        queue(f"--user={user_name()}")
    except NoAnswer:
        return False
    return True


def escaped(path: Path) -> str:
    """A path for --output, where `%` begins a replacement."""
    return str(path).replace("%", "%%")


def environment_outside_jobs() -> dict[str, str]:
    """What Slurm has set for the job that this is must not reach the ones submitted from it."""
    of_a_job = ("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(of_a_job)}
    if "SLURM_CONF" in os.environ:
        kept["SLURM_CONF"] = os.environ["SLURM_CONF"]
    return kept


def find_by_name(name: str, written: float, user: str) -> str | None:
    """Job id of an array that was submitted under a name; "" when it surely was not.

    None where that cannot be known yet: Slurm does not answer, or the submission is young.
    """
    try:
        found = [job.array for job in queue(f"--user={user}", f"--name={name}")]
        found = found or _accounted(name, written)
    except NoAnswer:
        return None
    if found:
        return found[0]
    # An sbatch outlives a submitter that was killed, and may be on its way.
    return "" if time.time() - written > GONE_AFTER_S else None


def _accounted(name: str, written: float) -> list[str]:
    """Ids of the arrays of that name that accounting knows; none where it gives no answer."""
    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(written - 86400))
    chosen = [f"--name={name}", f"--starttime={since}", "--format=JobID"]
    try:
        out = ask("sacct", "-a", "-X", "-P", "-n", *chosen)
    except NoAnswer:
        return []  # there are clusters without
    return [line.partition("_")[0] for line in out.split()]


def cancel(names: list[str]) -> None:
    """Cancel jobs and elements by their ids. Raises SlurmError."""
    for start in range(0, len(names), 500):
        done = call("scancel", *names[start : start + 500])
        over = ("Invalid job id", "already completing or completed")
        told = [line for line in done.stderr.splitlines() if not any(one in line for one in over)]
        if done.returncode != 0 and (told or not done.stderr):
            raise SlurmError("\n".join(["scancel failed", *told]))


def max_array_size() -> int:
    """One more than the largest index that the cluster allows in an array."""
    if not _max_array_size:
        try:
            out = ask("scontrol", "show", "config")
        except NoAnswer:
            return 1001  # Slurm's default, until it answers
        match = re.search(r"^MaxArraySize\s*=\s*(\d+)", out, re.MULTILINE)
        _max_array_size.append(int(match[1]) if match else 1001)
    return _max_array_size[0]


_max_array_size: list[int] = []
