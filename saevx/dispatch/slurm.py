"""Slurm's own commands: what waits and runs, by one squeue for all; finding and cancelling jobs.

An array whose submitter died before it knew the job's id is found by its name.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from store.names import user_name

from ..errors import HowError

TIMEOUT_S = 20.0
"""Of one command. A slurmctld that is starting again answers later than that, or not at all."""

GONE_AFTER_S = 20.0
"""An array that was written down so long ago, and that Slurm does not know, was not submitted."""

WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"})
RUNNING = frozenset(
    {"COMPLETING", "CONFIGURING", "RESIZING", "RUNNING", "SIGNALING", "STAGE_OUT", "STOPPED"}
    | {"SUSPENDED"}
)


class SlurmError(HowError):
    """Slurm did not do what it was asked for."""


class JobState(NamedTuple):
    """An element that Slurm knows as waiting or running."""

    running: bool
    reason: str
    """Why it waits, as Slurm says."""
    node: str


class Job(NamedTuple):
    """An element as Slurm names it."""

    array: str
    at: int


AT_SLURM = "slurm:"


def written(array: str) -> str:
    """An array's id as the folder of a run has it."""
    return AT_SLURM + array


def array_of(job: str) -> str:
    """The id of an array from what the folder of a run has; "" where it is not at Slurm."""
    return job.removeprefix(AT_SLURM) if job.startswith(AT_SLURM) else ""


def states(jobs: Iterable[str], users: Iterable[str]) -> dict[Job, JobState] | None:
    """The waiting and running elements of arrays of some users, by one squeue.

    None where it gives no answer.
    """
    wanted = set(jobs)
    if not wanted:
        return {}
    # By user, since squeue fails where it is asked for one job that it has forgotten.
    by = f"--user={','.join(sorted(users))}"
    out = ask(["squeue", "--noheader", "--array", by, "--format=%F|%K|%T|%r|%N"])
    if out is None:
        return None
    found: dict[Job, JobState] = {}
    for line in out.splitlines():
        array, index, state, reason, node = (line.split("|", 4) + [""] * 5)[:5]
        if array in wanted and index.isdigit() and state in WAITING | RUNNING:
            found[Job(array, int(index))] = JobState(state in RUNNING, reason, node)
    return found


def answers() -> bool:
    return states({"0"}, {user_name()}) is not None


def find_waiting(name: str, user: str) -> str | None:
    """Job id of a user's job of that name that waits or runs."""
    out = ask(["squeue", "--noheader", f"--user={user}", f"--name={name}", "--format=%A"])
    return out.split()[0] if out and out.split() else None


def escaped(path: Path) -> str:
    """A path for --output, where `%` begins a replacement."""
    return str(path).replace("%", "%%")


@contextmanager
def outside_of_jobs() -> Iterator[None]:
    """Within a job, what Slurm has set for that job must not reach the ones submitted from it."""
    kept = dict(os.environ)
    for name in kept:
        if name.startswith(("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_")) and name != "SLURM_CONF":
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(kept)


def find_by_name(name: str, written: float, user: str) -> str | None:
    """Job id of an array that was submitted under a name; "" when it surely was not.

    None where that cannot be known yet: Slurm does not answer, or the submission is young.
    """
    out = ask(["squeue", "--noheader", f"--user={user}", f"--name={name}", "--format=%F"])
    if out is None:
        return None
    if out.split():
        return out.split()[0]
    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(written - 86400))
    chosen = [f"--name={name}", f"--starttime={since}", "--format=JobID"]
    out = ask(["sacct", "-a", "-X", "-P", "-n", *chosen])
    if out and out.split():
        return out.split()[0].partition("_")[0]
    # An sbatch outlives a submitter that was killed, and may be on its way.
    return "" if time.time() - written > GONE_AFTER_S else None


def cancel(jobs: Iterable[Job]) -> None:
    """Cancel elements. Raises SlurmError."""
    scancel([f"{job.array}_{job.at}" for job in jobs])


def scancel(names: list[str]) -> None:
    """Cancel what has these names or ids. Raises SlurmError."""
    for start in range(0, len(names), 500):
        try:
            subprocess.run(
                ["scancel", *names[start : start + 500]],
                check=True,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise SlurmError(f"scancel failed: {getattr(error, 'stderr', '') or error}") from error


def max_array_size() -> int:
    """One more than the largest index that the cluster allows in an array."""
    if not _max_array_size:
        out = ask(["scontrol", "show", "config"])
        match = re.search(r"^MaxArraySize\s*=\s*(\d+)", out or "", re.MULTILINE)
        if out is None:
            return 1001  # Slurm's default, until it answers
        _max_array_size.append(int(match[1]) if match else 1001)
    return _max_array_size[0]


_max_array_size: list[int] = []


def ask(command: list[str]) -> str | None:
    """What a command of Slurm prints; None where it fails or takes too long."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            env={**os.environ, "SLURM_BITSTR_LEN": "0"},  # lists of indices in full
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None
