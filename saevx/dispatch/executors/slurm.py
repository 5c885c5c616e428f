"""The executor of Slurm: job arrays."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from saevx.dispatch.executors import sacct, sbatch
from saevx.dispatch.executors.base import Executor, ExitInfo, JobState, JobStatus, not_empty
from saevx.dispatch.executors.sacct import SlurmTask
from saevx.dispatch.jobs.job import Job
from saevx.dispatch.messages import Array, ArrayTask, Outcome
from saevx.dispatch.profiles import Resources
from saevx.dispatch.run_folder import RunFolder
from store.errors import NoAnswer, SlurmError
from store.locks.slurm import TIMEOUT_S, ask, call, queue
from store.names import user_name

GONE_AFTER_S = 3 * TIMEOUT_S
"""An array that was recorded so long ago, and that Slurm does not know, was not submitted. Its
submitter may have been killed while sbatch, which gets TIMEOUT_S, went on."""

PREFIX = "slurm:"
"""Of the handles of arrays in the folders of runs."""


class Slurm(Executor):
    """Job arrays of Slurm."""

    name = "slurm"
    outlives_submitter = True
    poll_s = 4.0
    grace_s = 3.0
    jobs_per_batch = 1
    _max_array_size = 0

    @property
    def max_array_size(self) -> int:
        """The cluster's MaxArraySize; Slurm's default of 1001 while it does not answer."""
        if not self._max_array_size:
            try:
                config = ask("scontrol", "show", "config")
            except NoAnswer:
                return 1001
            match = re.search(r"^MaxArraySize\s*=\s*(\d+)", config, re.MULTILINE)
            self._max_array_size = int(match[1]) if match else 1001
        return self._max_array_size

    def submit(
        self, array: Array, folder: RunFolder, resources: Resources, after: Collection[str]
    ) -> str:
        ids = [_array_id(handle) for handle in after if handle.startswith(PREFIX)]
        return PREFIX + sbatch.submit(array, folder, resources, ids)

    def find(self, array: Array, folder: RunFolder) -> str | None:
        try:
            named = queue(f"--user={folder.info.user}", f"--name={array.name}")
        except NoAnswer:
            return None
        if found := [job.array for job in named] or _recorded_by_sacct(array):
            return PREFIX + found[0]
        return "" if time.time() - array.submitted > GONE_AFTER_S else None

    def is_available(self) -> bool:
        try:
            queue(f"--user={user_name()}")
        except NoAnswer:
            return False
        return True

    def statuses(self, jobs: Sequence[Job]) -> dict[ArrayTask, JobStatus]:
        # By user, since squeue fails when asked for a single job that it has forgotten.
        users = ",".join(sorted({job.folder.info.user for job in jobs if job.handle}))
        try:
            queued = queue(f"--user={users}") if users else []
        except NoAnswer:
            unknown = JobStatus(JobState.UNKNOWN, "Slurm gives no answer")
            return {job.task: unknown for job in jobs}
        live = {(one.array, one.task): one for one in queued}
        found = {}
        for job in jobs:
            if one := live.get((_array_id(job.handle), str(job.task.number))):
                state = JobState.RUNNING if one.running else JobState.WAITING
                found[job.task] = JobStatus(state, one.reason, one.node)
            elif not job.handle and time.time() - job.submitted <= GONE_AFTER_S:
                found[job.task] = JobStatus(JobState.UNKNOWN, "it is being submitted")
            else:
                found[job.task] = JobStatus(JobState.GONE)
        return found

    def exit_infos(self, jobs: Sequence[Job]) -> dict[ArrayTask, ExitInfo] | None:
        named = [job for job in jobs if job.handle]
        tasks = {job.task: SlurmTask(_array_id(job.handle), job.task.number) for job in named}
        found = sacct.exit_infos(tasks.values())
        if found is None:
            return None
        return {task: found[one] for task, one in tasks.items() if one in found}

    def cancel(self, folder: RunFolder, jobs: Sequence[Job], whole: bool) -> None:
        if not all(job.handle for job in jobs):
            raise NoAnswer("Slurm gives no answer: a job whose id is not known cannot be ended")
        cancel([self.job_id(job) for job in jobs])

    def job_id(self, job: Job) -> str:
        return f"{_array_id(job.handle)}_{job.task.number}" if job.handle else ""

    def memory_gb(self, job: Job, outcome: Outcome) -> float | None:
        if job.array is not None and job.array.memory_gb is not None:
            return job.array.memory_gb
        n_bytes = outcome.memory_bytes
        if not n_bytes:  # a worker that wrote its outcome itself does not know its limit
            info = (self.exit_infos([job]) or {}).get(job.task)
            n_bytes = info.memory_bytes if info else 0
        return n_bytes / 2**30 or None

    def logs(self, job: Job) -> list[Path]:
        # The second holds what Slurm, `setup`, and a worker that could not begin have printed.
        slurms = job.folder.logs / "slurm" / f"{self.job_id(job)}_0_log.out"
        return not_empty([job.folder.log(*job.position), slurms])


def cancel(jobs: list[str]) -> None:
    """Cancel jobs and tasks by their ids. Raise SlurmError; ended ones are no error."""
    for start in range(0, len(jobs), 500):
        done = call("scancel", *jobs[start : start + 500])
        over = ("Invalid job id", "already completing or completed")
        errors = [line for line in done.stderr.splitlines() if not any(one in line for one in over)]
        if done.returncode != 0 and (errors or not done.stderr):
            raise SlurmError("\n".join(["scancel failed", *errors]))


def _array_id(handle: str) -> str:
    """The job id of an array."""
    return handle.removeprefix(PREFIX)


def _recorded_by_sacct(array: Array) -> list[str]:
    """Ids of the arrays of that name in Slurm's accounting, which some clusters do not have."""
    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(array.submitted - 86400))
    chosen = [f"--name={array.name}", f"--starttime={since}", "--format=JobID"]
    try:
        out = ask("sacct", "-a", "-X", "-P", "-n", *chosen)
    except NoAnswer:
        return []
    return [line.partition("_")[0] for line in out.split()]
