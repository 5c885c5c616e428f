"""Slurm, through submitit and the commands of Slurm itself.

submitit writes the script of a job array and submits it. What it does not do is done here: payloads
are strings, not pickles; states are asked for by one squeue for what waits and runs, and one sacct
for what has ended; and an array whose submitter died before it knew the job's id is found by name.
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ..errors import HowError
from .folder import RunFolder
from .profiles import Resources
from .records import Array, End
from .snapshot import search_path

TIMEOUT_S = 20.0
"""Of one command. A slurmctld that is starting again answers later than that, or not at all."""

LONGEST_WARNING_S = 90
"""Seconds before its time limit at which a job is told; less for short ones."""

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


class Death(NamedTuple):
    """What sacct says of an element that is over."""

    end: End | None
    """None when it ended well, or is not over."""
    message: str
    exit_code: str
    wall_s: float
    peak_memory_bytes: int
    node: str


class Job(NamedTuple):
    """An element as Slurm names it."""

    array: str
    at: int


def submit(array: Array, folder: RunFolder, resources: Resources, after: Sequence[str]) -> str:
    """Submit an array that is written down already. Returns its job id. Raises SlurmError."""
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    class _Executor(submitit.SlurmExecutor):
        """submitit's, but that the worker gets its payload from the run's folder by name."""

        def __init__(self) -> None:
            super().__init__(folder=folder.logs / "slurm")

        def send(self, n: int) -> str:
            self.parameters["map_count"] = n
            command = shlex.join(
                [sys.executable, "-u", "-m", "saevx.dispatch.worker", str(folder.path), array.name]
            )
            return str(self._submit_command(command).job_id)

    path = os.pathsep.join(search_path(folder.code))
    environment = {**resources.environment, "SAEVX_JOB": array.name}
    setup = [
        *resources.setup,
        *(f"export {name}={shlex.quote(value)}" for name, value in environment.items()),
        f"export PYTHONPATH={shlex.quote(path)}${{PYTHONPATH:+:$PYTHONPATH}}",
    ]
    minutes = max(1, round(resources.hours * 60))
    extra: dict[str, object] = {"requeue": True}
    options = {
        "job_name": array.name,
        "time": minutes,
        "cpus_per_task": resources.cpus,
        "array_parallelism": resources.parallelism,
        "signal_delay_s": min(LONGEST_WARNING_S, minutes * 60 // 4),
        "stderr_to_stdout": True,
        "setup": setup,
        "wckey": None,
        "additional_parameters": extra,
    }
    if resources.memory_gb is not None:
        options["mem"] = f"{max(1, round(resources.memory_gb * 1024))}MB"
    if resources.gpus:
        options["gpus_per_node"] = resources.gpus
    for name in ("account", "partition", "qos", "constraint"):
        if getattr(resources, name) is not None:
            options[name] = getattr(resources, name)
    if after:
        options["dependency"] = "afterany:" + ":".join(sorted(after, key=int))
    options["srun_args"] = ["--mpi=none", f"--cpus-per-task={resources.cpus}"]
    try:
        (folder.logs / "slurm").mkdir(parents=True, exist_ok=True)
        executor = _Executor()
        executor.update_parameters(**{k: v for k, v in options.items() if v is not None})
        with outside_of_jobs():
            return executor.send(len(array.elements))
    except (FailedJobError, FailedSubmissionError, RuntimeError, OSError) as error:
        raise SlurmError(f"Slurm does not take {array.name}: {_last_line(str(error))}") from error


def slurm_log(folder: RunFolder, job: Job) -> Path:
    """What Slurm itself, and a worker that cannot begin, said about an element."""
    return folder.logs / "slurm" / f"{job.array}_{job.at}_0_log.out"


def states(jobs: Iterable[str], users: Iterable[str]) -> dict[Job, JobState] | None:
    """The waiting and running elements of arrays of some users, by one squeue.

    None where it gives no answer.
    """
    wanted = set(jobs)
    if not wanted:
        return {}
    # By user, since squeue fails where it is asked for one job that it has forgotten.
    by = f"--user={','.join(sorted(users))}"
    out = _ask(["squeue", "--noheader", "--array", by, "--format=%F|%K|%T|%r|%N"])
    if out is None:
        return None
    found: dict[Job, JobState] = {}
    for line in out.splitlines():
        array, index, state, reason, node = (line.split("|", 4) + [""] * 5)[:5]
        if array in wanted and index.isdigit() and state in WAITING | RUNNING:
            found[Job(array, int(index))] = JobState(state in RUNNING, reason, node)
    return found


def deaths(jobs: Iterable[Job]) -> dict[Job, Death] | None:
    """What became of elements, by one sacct for all; None where accounting gives no answer."""
    wanted = set(jobs)
    if not wanted:
        return {}
    fields = "JobID,State,ExitCode,ElapsedRaw,MaxRSS,ReqMem,NodeList,AllocCPUS"
    arrays = ",".join(sorted({job.array for job in wanted}, key=int))
    out = _ask(["sacct", "-a", "-P", "-n", f"--jobs={arrays}", f"--format={fields}"])
    if out is None:
        return None
    rows: dict[Job, list[list[str]]] = {}
    for line in out.splitlines():
        cells = line.split("|")
        if len(cells) == 8:
            for job in _jobs_of(cells[0]):
                rows.setdefault(job, []).append(cells)
    return {job: _death(found) for job, found in rows.items() if job in wanted}


def _jobs_of(text: str) -> list[Job]:
    """The elements that a row of sacct is about: `7_3`, `7_3.batch`, `7_[4-6,9%2]`."""
    match = re.match(r"(\d+)_\[?([\d,-]+)", text)
    if not match:
        return []
    jobs = []
    for part in match[2].split(","):
        first, _, last = part.partition("-")
        jobs += [Job(match[1], index) for index in range(int(first), int(last or first) + 1)]
    return jobs


_ENDS = {
    "OUT_OF_MEMORY": End.OUT_OF_MEMORY,
    "TIMEOUT": End.TIME_LIMIT,
    "DEADLINE": End.TIME_LIMIT,
    "PREEMPTED": End.PREEMPTED,
    "REVOKED": End.PREEMPTED,
    "NODE_FAIL": End.NODE_FAILURE,
    "BOOT_FAIL": End.NODE_FAILURE,
    "CANCELLED": End.CANCELLED,
    "FAILED": End.KILLED,
}


def _death(rows: list[list[str]]) -> Death:
    """From the rows of one element: its own, and one a step."""
    state, code, wall, _, asked, node, cpus = next(
        (row[1:] for row in rows if "." not in row[0]), rows[0][1:]
    )
    words = state.split()
    end = _ENDS.get(words[0] if words else "")
    peak = max((_bytes(row[4]) for row in rows), default=0)
    codes = [row[2] for row in rows if row[2] not in ("", "0:0")]
    limit = _bytes(asked.rstrip("nc")) * (int(cpus or 1) if asked.endswith("c") else 1)
    signals = {code.partition(":")[2] for code in codes}
    if any(row[1].startswith("OUT_OF_MEMORY") for row in rows):
        end = End.OUT_OF_MEMORY
    elif end in (End.KILLED, End.CANCELLED) and limit and peak > limit and "9" in signals:
        # Without cgroups Slurm kills what is above its memory, and calls it cancelled or failed.
        end = End.OUT_OF_MEMORY
    told = f"Slurm says {state or 'nothing'}"
    if codes:
        told += f", exit code {codes[-1]}"
    if peak:
        told += f"; it used {peak / 2**20:,.0f} MiB"
        told += f" of {limit / 2**20:,.0f}" if limit else ""
    return Death(end, told, code, float(wall or 0), peak, node)


def _bytes(text: str) -> int:
    match = re.fullmatch(r"([\d.]+)([KMGTP]?)", text.strip())
    if not match:
        return 0
    return int(float(match[1]) * 1024 ** " KMGTP".index(match[2] or " "))


def answers() -> bool:
    return states({"0"}, {getpass.getuser()}) is not None


def find_waiting(name: str, user: str) -> str | None:
    """Job id of a user's job of that name that waits or runs."""
    out = _ask(["squeue", "--noheader", f"--user={user}", f"--name={name}", "--format=%A"])
    return out.split()[0] if out and out.split() else None


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
    out = _ask(["squeue", "--noheader", f"--user={user}", f"--name={name}", "--format=%F"])
    if out is None:
        return None
    if out.split():
        return out.split()[0]
    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(written - 86400))
    chosen = [f"--name={name}", f"--starttime={since}", "--format=JobID"]
    out = _ask(["sacct", "-a", "-X", "-P", "-n", *chosen])
    if out and out.split():
        return out.split()[0].partition("_")[0]
    # An sbatch outlives a submitter that was killed, and may be on its way.
    return "" if time.time() - written > GONE_AFTER_S else None


def cancel(jobs: Iterable[Job]) -> None:
    """Cancel elements. Raises SlurmError."""
    names = [f"{job.array}_{job.at}" for job in jobs]
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


@cache
def max_array_size() -> int:
    """One more than the largest index that the cluster allows in an array."""
    out = _ask(["scontrol", "show", "config"]) or ""
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", out, re.MULTILINE)
    return int(match[1]) if match else 1001  # Slurm's default


def _ask(command: list[str]) -> str | None:
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


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    told = [line for line in lines if "error" in line.lower()]
    return (told or lines or [""])[-1]
