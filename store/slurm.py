"""Whether a Slurm job runs, as `squeue` tells it."""

from __future__ import annotations

import os
import subprocess
import time

TIMEOUT_S = 5.0
REMEMBER_S = 10.0
"""An answer is used again for so long: many leases name one job, and squeue burdens the cluster."""

_RUNNING = {
    "COMPLETING",
    "CONFIGURING",
    "RESIZING",
    "RUNNING",
    "SIGNALING",
    "STAGE_OUT",
    "STOPPED",
    "SUSPENDED",
}
_answers: dict[str, tuple[float, bool | None]] = {}


def this_job() -> tuple[str, str] | None:
    """Id of the job that this process runs in, and how often it was put back into the queue."""
    job = os.environ.get("SLURM_JOB_ID")
    return (job, os.environ.get("SLURM_RESTART_COUNT", "0")) if job else None


def job_runs(job: str) -> bool | None:
    """False when the job has ended or waits to run again; None where Slurm cannot be asked."""
    now = time.monotonic()
    asked, answer = _answers.get(job, (-REMEMBER_S, None))
    if now - asked >= REMEMBER_S:
        answer = _ask(job)
        _answers[job] = (time.monotonic(), answer)
    return answer


def _ask(job: str) -> bool | None:
    try:
        done = subprocess.run(
            ["squeue", "--noheader", f"--jobs={job}", "--format=%A %T"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    if done.returncode != 0:
        # Slurm forgets a job some minutes after its end.
        return False if "Invalid job id" in done.stderr else None
    # The id of an array's last task is that of the array, and lists all of its tasks.
    lines = [line.split() for line in done.stdout.splitlines()]
    return any(len(line) == 2 and line[0] == job and line[1] in _RUNNING for line in lines)
