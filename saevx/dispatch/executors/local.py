"""The executor of this machine: a pool of worker processes.

A worker makes one task after the other, so that torch is imported once a worker. Workers end with
the process that started them, however that ends.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from saevx.dispatch.code.snapshot import command
from saevx.dispatch.executors.base import Executor, ExitInfo, JobState, JobStatus, not_empty
from saevx.dispatch.jobs.job import Job
from saevx.dispatch.messages import Array, ArrayTask, TaskStatus
from saevx.dispatch.profiles import Resources
from saevx.dispatch.run_folder import RunFolder
from saevx.errors import StoreError
from store.locks.process import ProcessId

STOP_S = 10.0
"""After this, a worker that was told to stop is killed."""

SUBMITTING_S = 60.0
"""For so long after it was recorded, an array may be about to be submitted."""


class Local(Executor):
    """Processes on this machine, which end with this process."""

    name = "local"
    outlives_submitter = False
    poll_s = 0.0
    grace_s = 0.0
    max_array_size = 10_000

    def __init__(self, n: int) -> None:
        self.jobs_per_batch = n
        self._pool: Pool | None = None

    def submit(
        self, array: Array, folder: RunFolder, resources: Resources, after: Collection[str]
    ) -> str:
        self._pool = self._pool or Pool(folder, self.jobs_per_batch)
        self._pool.submit(array, resources)
        return f"local:{ProcessId.here()}"

    def find(self, array: Array, folder: RunFolder) -> str | None:
        is_young = time.time() - array.submitted <= SUBMITTING_S
        return None if is_young and folder.submitter_may_be_alive else ""

    def statuses(self, jobs: Sequence[Job]) -> dict[ArrayTask, JobStatus]:
        return {job.task: JobStatus(self._state(job)) for job in jobs}

    def _state(self, job: Job) -> JobState:
        if pool := self._pool_of(job):
            return pool.state(job.position)
        if not job.folder.submitter_may_be_alive:
            return JobState.GONE
        # The state of a process on another host is unknown: artifact leases guard what it makes.
        began = job.folder.progress(*job.position) is not None
        return JobState.RUNNING if began else JobState.WAITING

    def _pool_of(self, job: Job) -> Pool | None:
        is_ours = self._pool is not None and self._pool.folder.name == job.task.run
        return self._pool if is_ours else None

    def exit_infos(self, jobs: Sequence[Job]) -> dict[ArrayTask, ExitInfo] | None:
        return {job.task: self._exit_info(job) for job in jobs}

    def _exit_info(self, job: Job) -> ExitInfo:
        pool = self._pool_of(job)
        code = pool.exit_codes.get(job.position) if pool else None
        if code is None:
            return ExitInfo(TaskStatus.ABANDONED, "the run that started it has ended")
        progress = job.folder.progress(*job.position)
        return ExitInfo(
            status=TaskStatus.KILLED,
            message=exit_text(code),
            exit_code=f"{code}:0" if code >= 0 else f"0:{-code}",
            wall_s=round(time.time() - progress.began, 1) if progress else 0.0,
            host=os.uname().nodename,
        )

    def cancel(self, folder: RunFolder, jobs: Sequence[Job], whole: bool) -> None:
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

    def logs(self, job: Job) -> list[Path]:
        own = not_empty([job.folder.log(*job.position)])
        if own or not job.handle:
            return own
        # It is not recorded which of the workers was given the task.
        workers = not_empty(job.folder.logs.glob("worker.*.log"))
        return sorted(workers, key=lambda file: -file.stat().st_mtime)

    def wait(self, seconds: float) -> None:
        if self._pool is None:
            time.sleep(seconds)
        else:
            self._pool.tick(seconds)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()


class Pool:
    """N worker processes; each is given one GPU where there are any."""

    def __init__(self, folder: RunFolder, n: int) -> None:
        self.folder, self.n, self.gpus = folder, n, find_gpus()
        self.exit_codes: dict[tuple[str, int], int] = {}
        """Task whose worker died -> exit code of the worker."""
        self._queue: deque[tuple[tuple[str, int], Resources]] = deque()
        self._workers: list[_Worker | None] = [None] * n
        self._selector = selectors.DefaultSelector()

    def submit(self, array: Array, resources: Resources) -> None:
        self._queue.extend(((array.name, i), resources) for i in range(len(array.tasks)))
        self._feed()

    def state(self, task: tuple[str, int]) -> JobState:
        if any(worker and worker.task == task for worker in self._workers):
            return JobState.RUNNING
        return JobState.WAITING if any(task == one for one, _ in self._queue) else JobState.GONE

    def tick(self, timeout_s: float) -> None:
        """Wait until a worker has finished a task, at most that long; give it the next one."""
        # Listed first, so that their last answers are read below.
        dead = [one for one in self._workers if one and one.process.poll() is not None]
        if not self._selector.get_map():
            time.sleep(timeout_s)
        for key, _ in self._selector.select(0.0 if dead else timeout_s):
            worker: _Worker = key.data
            if worker.answers.readline():
                worker.task = None
            else:
                self._remove(worker)
        # A process that a recipe has started may outlive its worker, and keep the pipe open.
        for worker in dead:
            if worker in self._workers:
                self._remove(worker)
        self._feed()

    def close(self) -> None:
        """End all workers. Unfinished artifacts are dropped; published ones stay."""
        workers = [worker for worker in self._workers if worker]
        for worker in workers:
            # An idle worker ends with its input, a busy one by a signal.
            with suppress(OSError):
                worker.commands.close()
            if worker.task:
                worker.process.terminate()
        end = time.monotonic() + STOP_S
        for worker in workers:
            self._remove(worker, max(0.0, end - time.monotonic()))
        self._selector.close()

    def _feed(self) -> None:
        """Give waiting tasks to idle workers."""
        for slot, worker in enumerate(self._workers):
            if not self._queue:
                return
            if worker and worker.task:
                continue
            task, resources = self._queue[0]
            if worker and (
                worker.process.poll() is not None or worker.environment != resources.environment
            ):
                self._remove(worker)
                worker = None
            worker = worker or self._start(slot, resources)
            self._queue.popleft()
            worker.task = task
            with suppress(BrokenPipeError):  # it has died, which its other pipe tells
                worker.commands.write(f"{task[0]} {task[1]}\n")
                worker.commands.flush()

    def _start(self, slot: int, resources: Resources) -> _Worker:
        environment = {**os.environ, **resources.environment}
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        # Processes that share the cores are faster than processes that each use all of them.
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.n)))
        words = command(self.folder.code, self.folder.code_digest, "saevx.dispatch.worker.main")
        with open(self.folder.logs / f"worker.{slot}.log", "ab") as log:
            process = subprocess.Popen(
                [*words, str(self.folder.path), "--serve"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                text=True,
            )
        worker = self._workers[slot] = _Worker(process, resources.environment)
        self._selector.register(worker.answers, selectors.EVENT_READ, worker)
        return worker

    def _remove(self, worker: _Worker, timeout_s: float = STOP_S) -> None:
        """Wait for the end of a worker that is idle, told to stop, or dead."""
        self._selector.unregister(worker.answers)
        with suppress(OSError):
            worker.commands.close()
        code = _wait_or_kill(worker.process, timeout_s)
        if worker.task:
            self.exit_codes[worker.task] = code
        worker.answers.close()
        self._workers[self._workers.index(worker)] = None


class _Worker:
    """A worker process and its task."""

    def __init__(self, process: subprocess.Popen[str], environment: dict[str, str]) -> None:
        self.process, self.environment = process, environment
        self.task: tuple[str, int] | None = None
        self.commands: IO[Any] = process.stdin  # type: ignore[assignment]
        self.answers: IO[Any] = process.stdout  # type: ignore[assignment]


def _wait_or_kill(process: subprocess.Popen[str], seconds: float) -> int:
    """Return the exit code of a process that is about to end; kill it after some seconds."""
    with suppress(subprocess.TimeoutExpired):
        return process.wait(seconds)
    process.kill()
    with suppress(subprocess.TimeoutExpired):  # a process that waits for a dead disk stays
        return process.wait(STOP_S)
    return -signal.SIGKILL


def exit_text(code: int) -> str:
    """Describe the exit code of a process."""
    if code >= 0:
        return f"its process ended with code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    return f"its process was ended by {name}"


def find_gpus() -> list[str]:
    """List the GPUs that this process may use, without importing torch."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [gpu.strip() for gpu in given.split(",") if gpu.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return []
    n = sum(line.startswith("GPU ") for line in done.stdout.splitlines())
    return [str(i) for i in range(n)]


def default_jobs() -> int:
    """The number of processes where none is given: one per GPU, else one."""
    return max(1, len(find_gpus()))
