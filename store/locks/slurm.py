"""Slurm, asked by its commands. Every command that saevx runs goes through `call`.

"Slurm knows no such job" and "Slurm gives no answer" are told apart: the first is an empty answer,
the second raises NoAnswer.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from typing import NamedTuple

from store.errors import NoAnswer

TIMEOUT_S = 20.0
"""Of every command. A slurmctld that is starting again answers later than that, or not at all."""

REMEMBER_S = 10.0
"""An answer is used again for so long: many leases name one job, and squeue burdens the cluster."""

WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"})
RUNNING = frozenset(
    {"COMPLETING", "CONFIGURING", "RESIZING", "RUNNING", "SIGNALING", "STAGE_OUT", "STOPPED"}
    | {"SUSPENDED"}
)

_FIELDS = "%A|%F|%K|%T|%u|%N|%r|%j"
_ANY_JOB = ""
_answers: dict[str, tuple[float, bool | None]] = {}


class QueuedJob(NamedTuple):
    """A job, or one task of a job array, that waits or runs."""

    id: str
    array: str
    """Id of its array; its own where it is in none."""
    task: str
    """Its index in the array; "N/A" where it is in none."""
    state: str
    user: str
    node: str
    reason: str
    """Why it waits, as Slurm says."""
    name: str

    @property
    def running(self) -> bool:
        return self.state in RUNNING


def call(*command: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command of Slurm. Raises NoAnswer where it cannot be run, or takes too long."""
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
            env=env,
            start_new_session=True,  # a terminal's Ctrl-C is for us, who then end the command
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NoAnswer(f"Slurm gives no answer: {command[0]}: {error}") from error


def ask(*command: str) -> str:
    """What a command prints that only looks. Raises NoAnswer, also where it fails."""
    # Lists of indices in full.
    done = call(*command, env={**os.environ, "SLURM_BITSTR_LEN": "0"})
    if done.returncode != 0:
        raise NoAnswer(f"Slurm gives no answer: {command[0]}: {done.stderr.strip()}")
    return done.stdout


def queue(*selection: str) -> list[QueuedJob]:
    """The selected jobs that wait or run, by one squeue. Raises NoAnswer."""
    try:
        out = ask("squeue", "--noheader", "--array", f"--format={_FIELDS}", *selection)
    except NoAnswer as error:
        # Slurm forgets a job some minutes after its end.
        if "Invalid job id" in str(error):
            return []
        raise
    rows = [line.strip().split("|", 7) for line in out.splitlines()]
    jobs = [QueuedJob(*row) for row in rows if len(row) == len(QueuedJob._fields)]
    return [job for job in jobs if job.state in WAITING | RUNNING]


def this_job() -> tuple[str, str] | None:
    """Id of the job that this process runs in, and how often it was put back into the queue."""
    job = os.environ.get("SLURM_JOB_ID")
    return (job, os.environ.get("SLURM_RESTART_COUNT", "0")) if job else None


def job_runs(job: str) -> bool | None:
    """False when the job has ended or waits to run again; None where Slurm gives no answer."""
    for one in (job, _ANY_JOB):
        asked, answer = _answers.get(one, (0.0, None))
        if one in _answers and time.monotonic() - asked < REMEMBER_S:
            return answer
    try:
        # The id of an array's last task is that of the array, and lists all of its tasks.
        answer = any(one.id == job and one.running for one in queue(f"--jobs={job}"))
    except NoAnswer:
        job, answer = _ANY_JOB, None  # nor would it give one about another job
    _answers[job] = (time.monotonic(), answer)
    return answer
