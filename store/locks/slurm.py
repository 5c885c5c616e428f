"""Query Slurm through its commands. Every Slurm command that saevx runs goes through `call`.

An unknown job is an empty answer; when Slurm does not answer, NoAnswer is raised.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from typing import NamedTuple

from store.errors import NoAnswer

TIMEOUT_S = 20.0
"""Time limit of a command. A restarting slurmctld may take longer, or not answer at all."""

REMEMBER_S = 10.0
"""How long an answer is cached: many leases name one job, and squeue loads the controller."""

WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"})
RUNNING = frozenset(
    {"COMPLETING", "CONFIGURING", "RESIZING", "RUNNING", "SIGNALING", "STAGE_OUT", "STOPPED"}
    | {"SUSPENDED"}
)

_FIELDS = "%A|%F|%K|%T|%u|%N|%r|%j"
_ANY_JOB = ""
_answers: dict[str, tuple[float, bool | None]] = {}


class QueuedJob(NamedTuple):
    """A pending or running job, or one task of a job array."""

    id: str
    array: str
    """Id of its job array; its own id where it has none."""
    task: str
    """Its index in the array; "N/A" where it has none."""
    state: str
    user: str
    node: str
    reason: str
    """Why it is pending, in Slurm's words."""
    name: str

    @property
    def running(self) -> bool:
        return self.state in RUNNING


def call(*command: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a Slurm command. Raises NoAnswer where it cannot be run or exceeds the time limit."""
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
            env=env,
            start_new_session=True,  # Ctrl-C ends saevx, which then ends the command
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NoAnswer(f"Slurm gives no answer: {command[0]}: {error}") from error


def ask(*command: str) -> str:
    """Return the output of a query command. Raises NoAnswer, also where the command fails."""
    # Print lists of array indices in full.
    done = call(*command, env={**os.environ, "SLURM_BITSTR_LEN": "0"})
    if done.returncode != 0:
        raise NoAnswer(f"Slurm gives no answer: {command[0]}: {done.stderr.strip()}")
    return done.stdout


def queue(*selection: str) -> list[QueuedJob]:
    """Return the selected pending or running jobs, by one squeue. Raises NoAnswer."""
    try:
        out = ask("squeue", "--noheader", "--array", f"--format={_FIELDS}", *selection)
    except NoAnswer as error:
        # Slurm forgets a job some minutes after it has ended.
        if "Invalid job id" in str(error):
            return []
        raise
    rows = [line.strip().split("|", 7) for line in out.splitlines()]
    jobs = [QueuedJob(*row) for row in rows if len(row) == len(QueuedJob._fields)]
    return [job for job in jobs if job.state in WAITING | RUNNING]


def this_job() -> tuple[str, str] | None:
    """Return the id of the job that this process runs in, and how often it was requeued."""
    job = os.environ.get("SLURM_JOB_ID")
    return (job, os.environ.get("SLURM_RESTART_COUNT", "0")) if job else None


def job_runs(job: str) -> bool | None:
    """Return False when the job has ended or is pending again; None where Slurm does not answer."""
    for one in (job, _ANY_JOB):
        asked, answer = _answers.get(one, (0.0, None))
        if one in _answers and time.monotonic() - asked < REMEMBER_S:
            return answer
    try:
        # The last task of an array has the id of the array, which selects all of its tasks.
        answer = any(one.id == job and one.running for one in queue(f"--jobs={job}"))
    except NoAnswer:
        job, answer = _ANY_JOB, None  # it would not answer about another job either
    _answers[job] = (time.monotonic(), answer)
    return answer
