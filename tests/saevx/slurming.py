"""What tests on a real Slurm share. Without one they are skipped."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from dispatching import Place


def _slurm_answers() -> bool:
    if shutil.which("sinfo") is None:
        return False
    return subprocess.run(["sinfo"], capture_output=True, check=False).returncode == 0


marks = [
    pytest.mark.slurm,
    # Where the Slurm was set up for these tests, they fail without it.
    pytest.mark.skipif(
        "SAEVX_SLURM_CONTROL" not in os.environ and not _slurm_answers(),
        reason="no Slurm answers to sinfo",
    ),
]

PROFILE = """
profile = "cluster"

[profiles.cluster]
memory_gb = 0.3
"""

# Too often for a cluster that others use.
POLL_OFTEN = """
from saevx.dispatch.executors.slurm import Slurm
Slurm.poll_s = 1.0
"""


def cluster_place(folder: Path) -> Place:
    """A place whose runs go to Slurm."""
    place = Place(folder)
    place.profile(PROFILE)
    place.code = POLL_OFTEN
    return place


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def running(place: Place) -> list[str]:
    """Ids of the running tasks of a place."""
    jobs = place.jobs()
    if not jobs:
        return []
    out = slurm("squeue", "-h", "-r", "-t", "R", f"--jobs={','.join(jobs)}", "--format=%F_%K")
    return out.split()


def communicate(process: subprocess.Popen[str], place: Place, seconds: float) -> tuple[str, str]:
    """Wait for a run. Slurm holds requeued jobs for two minutes; release them at once."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        jobs = ",".join(place.jobs())
        out = slurm("squeue", "-h", "-r", "-t", "PD", f"--jobs={jobs}", "--format=%A %r")
        held = [line.split()[0] for line in out.splitlines() if line.endswith("BeginTime")]
        time.sleep(3)  # sooner, Slurm would start it before it has done with its last go
        for job in held:
            # It may have begun meanwhile, which is as well.
            subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=False)
    return process.communicate()
