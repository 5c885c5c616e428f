"""Executors: where elements run. Nothing else in dispatch knows how Slurm and processes differ."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Sequence
from contextlib import suppress

from saevx.dispatch.executors import sacct as accounting
from saevx.dispatch.executors import sbatch, slurm
from saevx.dispatch.executors.base import Executor, JobState, JobStatus
from saevx.dispatch.executors.local import Pool, exit_text
from saevx.dispatch.executors.sacct import ExitInfo
from saevx.dispatch.jobs.job import Job
from saevx.dispatch.messages import Array, ArrayTask, Outcome, Result, TaskStatus
from saevx.dispatch.profiles import Resources
from saevx.dispatch.run_folder import RunFolder
from saevx.errors import StoreError
from store.errors import NoAnswer
from store.locks.process import ProcessId


class Slurm:
    """Job arrays of Slurm."""

    name = "slurm"
    looks_ahead = True
    poll_s = 4.0
    grace_s = 3.0
    width = 1

    @property
    def largest_array(self) -> int:
        return slurm.max_array_size()

    def submit(
        self, array: Array, folder: RunFolder, resources: Resources, after: Collection[str]
    ) -> str:
        jobs = [job for job in map(slurm.array_of, after) if job]
        return slurm.written(sbatch.submit(array, folder, resources, jobs))

    def find(self, array: Array, folder: RunFolder) -> str | None:
        job = slurm.find_by_name(array.name, array.submitted, folder.info.user)
        return slurm.written(job) if job else job

    def statuses(self, flights: Sequence[Job]) -> dict[ArrayTask, JobStatus]:
        arrays = {slurm.array_of(flight.handle) for flight in flights} - {""}
        try:
            live = slurm.states(arrays, {flight.folder.info.user for flight in flights})
        except NoAnswer:
            unknown = JobStatus(JobState.UNKNOWN, "Slurm gives no answer")
            return {flight.task: unknown for flight in flights}
        found = {}
        for flight in flights:
            if not flight.handle and time.time() - flight.submitted <= slurm.GONE_AFTER_S:
                status = JobStatus(JobState.UNKNOWN, "it is just being submitted")
            elif job := live.get(_job(flight)):
                state = JobState.RUNNING if job.running else JobState.WAITING
                status = JobStatus(state, job.reason, job.node)
            else:
                status = JobStatus(JobState.GONE)
            found[flight.task] = status
        return found

    def deaths(self, flights: Sequence[Job]) -> dict[ArrayTask, ExitInfo] | None:
        found = accounting.deaths(_job(flight) for flight in flights if flight.handle)
        if found is None:
            return None
        jobs = {flight.task: _job(flight) for flight in flights}
        return {element: found[job] for element, job in jobs.items() if job in found}

    def cancel(self, folder: RunFolder, flights: Sequence[Job], whole: bool) -> None:
        if any(not flight.handle for flight in flights):
            raise NoAnswer("Slurm gives no answer: a job whose id is not known cannot be ended")
        slurm.cancel([self.job_id(flight) for flight in flights])

    def job_id(self, flight: Job) -> str:
        array = slurm.array_of(flight.handle)
        return f"{array}_{flight.task.number}" if array else ""

    def memory_gb(self, flight: Job, outcome: Outcome) -> float | None:
        if flight.array is not None and flight.array.memory_gb is not None:
            return flight.array.memory_gb
        n_bytes = outcome.memory_bytes
        if not n_bytes:  # it had the time to say so itself, and does not know what it had
            found = (self.deaths([flight]) or {}).get(flight.task)
            n_bytes = found.memory_bytes if found else 0
        return n_bytes / 2**30 or None

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        pass


def _job(flight: Job) -> slurm.SlurmTask:
    return slurm.SlurmTask(slurm.array_of(flight.handle), flight.task.number)


class Local:
    """Processes on this machine. They end with this one."""

    name = "local"
    looks_ahead = False
    poll_s = 0.0
    grace_s = 0.0
    largest_array = 10_000

    def __init__(self, n: int) -> None:
        self.width = n
        self._pool: Pool | None = None

    def submit(
        self, array: Array, folder: RunFolder, resources: Resources, after: Collection[str]
    ) -> str:
        if self._pool is None:
            self._pool = Pool(folder, self.width)
        self._pool.submit(array, resources)
        return f"local:{ProcessId.here()}"

    def find(self, array: Array, folder: RunFolder) -> str | None:
        young = time.time() - array.submitted <= slurm.GONE_AFTER_S
        return None if young and folder.submitter_may_be_alive else ""

    def statuses(self, flights: Sequence[Job]) -> dict[ArrayTask, JobStatus]:
        return {flight.task: JobStatus(self._state(flight)) for flight in flights}

    def _state(self, flight: Job) -> JobState:
        if self._pool is not None and self._pool.folder.name == flight.folder.name:
            if flight.position in self._pool.running:
                return JobState.RUNNING
            return JobState.WAITING if flight.position in self._pool.live() else JobState.GONE
        if not flight.folder.submitter_may_be_alive:
            return JobState.GONE
        # Of a run on another host nobody knows: its leases say what it is making.
        began = flight.folder.progress(*flight.position) is not None
        return JobState.RUNNING if began else JobState.WAITING

    def deaths(self, flights: Sequence[Job]) -> dict[ArrayTask, ExitInfo] | None:
        return {flight.task: self._death(flight) for flight in flights}

    def _death(self, flight: Job) -> ExitInfo:
        pool = self._pool if self._pool and self._pool.folder.name == flight.task.run else None
        code = pool.died.get(flight.position) if pool else None
        if code is None:
            why = "the run that had started it has ended"
            return ExitInfo(TaskStatus.ABANDONED, why, "", 0.0, 0, 0, "")
        progress = flight.folder.progress(*flight.position)
        return ExitInfo(
            status=TaskStatus.KILLED,
            message=exit_text(code),
            exit_code=f"{code}:0" if code >= 0 else f"0:{-code}",
            wall_s=round(time.time() - progress.began, 1) if progress else 0.0,
            peak_memory_bytes=0,
            memory_bytes=0,
            node=os.uname().nodename,
        )

    def cancel(self, folder: RunFolder, flights: Sequence[Job], whole: bool) -> None:
        owner, info = folder.submitter, folder.info
        if owner is None or not folder.submitter_may_be_alive:
            return
        if owner.runs() is None:
            raise StoreError(f"{info.name} runs on {owner.host}: cancel it there")
        if not whole:
            raise StoreError(
                f"{info.name} runs in processes of this machine, which can be cancelled only "
                f"together: `saevx cancel {info.path}`, or Ctrl-C where it runs"
            )
        with suppress(ProcessLookupError):
            os.kill(owner.pid, signal.SIGTERM)  # its workers end with it

    def job_id(self, flight: Job) -> str:
        return ""

    def memory_gb(self, flight: Job, outcome: Outcome) -> float | None:
        return None

    def wait(self, seconds: float) -> None:
        if self._pool is None:
            time.sleep(seconds)
        else:
            self._pool.tick(seconds)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()


EXECUTORS: dict[str, Executor] = {"slurm": Slurm(), "local": Local(0)}
"""By name: for jobs that were submitted before, by whichever run."""


def statuses(
    flights: Collection[Job], executors: dict[str, Executor] = EXECUTORS
) -> dict[ArrayTask, JobStatus]:
    """Whether the jobs of elements are gone, of whichever executors."""
    found: dict[ArrayTask, JobStatus] = {}
    for name, executor in executors.items():
        found |= executor.statuses([flight for flight in flights if flight.executor == name])
    return found


def executor_of(flight: Job) -> Executor:
    return EXECUTORS[flight.executor]


def where(flight: Job) -> str:
    """For people: the job of an element, and where its log is."""
    job = executor_of(flight).job_id(flight)
    log = next(iter(flight.logs), flight.folder.log(*flight.position))
    return f"Slurm job {job}, log: {log}" if job else f"log: {log}"


def post_mortem(
    flight: Job, deaths: dict[ArrayTask, ExitInfo] | None, lost: bool
) -> Outcome | None:
    """The outcome of an element that is gone and left none; None where one may still come.

    It counts as vanished when it is `lost`: nobody has said for long what became of it.
    """
    death = (deaths or {}).get(flight.task)
    if death is not None and death.status is not None:
        return outcome_of(flight.keys, death.status, death.message, death)
    if not lost:
        return None
    why = "Slurm's accounting gives no answer"
    if deaths is not None:
        why = death.message if death else "Slurm's accounting does not know it"
    message = f"the job is over and left no outcome; {why}"
    return outcome_of(flight.keys, TaskStatus.VANISHED, message, death)


def outcome_of(
    keys: Collection[str], end: TaskStatus, message: str, death: ExitInfo | None = None
) -> Outcome:
    """The outcome of an element that could not write its own."""
    return Outcome(
        results={key: Result(status=end, message=message) for key in keys},
        host=death.node if death else "",
        wall_s=death.wall_s if death else 0.0,
        peak_memory_bytes=death.peak_memory_bytes if death else 0,
        memory_bytes=death.memory_bytes if death else 0,
        exit_code=death.exit_code if death else "",
        ended=time.time(),
    )
