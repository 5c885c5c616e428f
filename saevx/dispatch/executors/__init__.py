"""Executors: Slurm and the processes of this machine, behind one interface."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from saevx.dispatch.executors.base import Executor, JobStatus
from saevx.dispatch.executors.local import Local
from saevx.dispatch.executors.slurm import Slurm
from saevx.dispatch.jobs.job import Job
from saevx.dispatch.messages import ArrayTask

EXECUTORS: dict[str, Executor] = {"slurm": Slurm(), "local": Local(0)}
"""By name, for jobs that any run has submitted."""


def executor_of(job: Job) -> Executor:
    return EXECUTORS[job.executor]


def statuses(
    jobs: Collection[Job], executors: Mapping[str, Executor] = EXECUTORS
) -> dict[ArrayTask, JobStatus]:
    """Ask the executors of jobs for their state."""
    found: dict[ArrayTask, JobStatus] = {}
    for name, executor in executors.items():
        found |= executor.statuses([job for job in jobs if job.executor == name])
    return found


def logs_of(job: Job) -> list[Path]:
    """The files with output of a job, the most relevant first; none where it has no output."""
    return executor_of(job).logs(job)


def where(job: Job) -> str:
    """The id and the log of a job, for people."""
    job_id = executor_of(job).job_id(job)
    log = next(iter(logs_of(job)), job.folder.log(*job.position))
    return f"Slurm job {job_id}, log: {log}" if job_id else f"log: {log}"
