"""Processes of this machine: a pool of workers, each of which makes one element after the other.

Workers stay, so that torch is imported once a worker and not once an element. They end with the
pool, and with the process that holds it, however that ends.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import time
from collections import deque
from contextlib import suppress
from typing import IO, Any

from saevx.dispatch.code.snapshot import command
from saevx.dispatch.messages import Array
from saevx.dispatch.profiles import Resources
from saevx.dispatch.run_folder import RunFolder

STOP_S = 10.0
"""A worker that was told to stop gets so long to tidy up before it is killed."""


class Pool:
    """N worker processes; each is given one GPU where there are any."""

    def __init__(self, folder: RunFolder, n: int, gpus: list[str] | None = None) -> None:
        self.folder = folder
        self.gpus = find_gpus() if gpus is None else gpus
        self.n = n
        self.died: dict[tuple[str, int], int] = {}
        """Elements whose worker ended under them -> its exit code."""
        self._queue: deque[tuple[str, int, Resources]] = deque()
        self._workers: list[_Process | None] = [None] * n
        self._selector = selectors.DefaultSelector()

    def submit(self, array: Array, resources: Resources) -> None:
        self._queue.extend((array.name, i, resources) for i in range(len(array.tasks)))
        self._feed()

    @property
    def running(self) -> set[tuple[str, int]]:
        return {worker.element for worker in self._workers if worker and worker.element}

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def live(self) -> set[tuple[str, int]]:
        """Elements that wait or run."""
        return {(name, i) for name, i, _ in self._queue} | self.running

    def withdraw(self, elements: set[tuple[str, int]]) -> None:
        """Take elements out of the queue, and stop the workers that make them."""
        self._queue = deque(one for one in self._queue if one[:2] not in elements)
        for worker in self._workers:
            if worker and worker.element in elements:
                worker.process.terminate()

    def tick(self, timeout_s: float) -> None:
        """Wait for news of any worker, not longer than that; then give out what waits."""
        # Looked at first: what one of them has answered before its end is read below.
        dead = [one for one in self._workers if one and one.process.poll() is not None]
        if not self._selector.get_map():
            time.sleep(timeout_s)
        for key, _ in self._selector.select(0.0 if dead else timeout_s):
            worker: _Process = key.data
            if worker.answers.readline():
                worker.element = None
            else:
                self._bury(worker)
        # What a recipe has started may outlive its worker, and keep the pipe open.
        for worker in dead:
            if worker in self._workers:
                self._bury(worker)
        self._feed()

    def close(self) -> None:
        """End all workers. What they were making is dropped, and what they published stays."""
        workers = [worker for worker in self._workers if worker]
        self._queue.clear()
        for worker in workers:
            # An idle worker ends with its input; one at work needs to be told.
            with suppress(OSError):
                worker.commands.close()
            if worker.element:
                worker.process.terminate()
        end = time.monotonic() + STOP_S
        for worker in workers:
            _wait_or_kill(worker.process, max(0.0, end - time.monotonic()))
            worker.answers.close()
        self._selector.close()
        self._workers = [None] * self.n

    def _feed(self) -> None:
        for slot, worker in enumerate(self._workers):
            if not self._queue:
                return
            if worker and worker.element is None and worker.process.poll() is not None:
                self._bury(worker)  # it has died of what it was done with
                worker = None
            if worker is None:
                worker = self._workers[slot] = self._start(slot, self._queue[0][2])
            if worker.element is not None:
                continue
            name, index, resources = self._queue[0]
            if resources.environment != worker.environment:
                self._retire(worker)
                worker = self._workers[slot] = self._start(slot, resources)
            self._queue.popleft()
            worker.element = (name, index)
            with suppress(BrokenPipeError):  # it has died; its other pipe tells
                worker.commands.write(f"{name} {index}\n")
                worker.commands.flush()

    def _start(self, slot: int, resources: Resources) -> _Process:
        environment = {**os.environ, **resources.environment}
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        # N processes that each use every core are slower than N that share them.
        threads = max(1, (os.cpu_count() or 1) // self.n)
        environment.setdefault("OMP_NUM_THREADS", str(threads))
        log = open(self.folder.logs / f"worker.{slot}.log", "ab")  # noqa: SIM115
        worker_of = command(self.folder.code, self.folder.code_digest, "saevx.dispatch.worker.main")
        try:
            process = subprocess.Popen(
                [*worker_of, str(self.folder.path), "--serve"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                text=True,
            )
        finally:
            log.close()
        worker = _Process(process, dict(resources.environment))
        self._selector.register(worker.answers, selectors.EVENT_READ, worker)
        return worker

    def _retire(self, worker: _Process) -> None:
        """End an idle worker."""
        self._selector.unregister(worker.answers)
        with suppress(OSError):
            worker.commands.close()
        _wait_or_kill(worker.process, STOP_S)
        worker.answers.close()

    def _bury(self, worker: _Process) -> None:
        """A worker is dead, or has closed its pipe and is about to be."""
        self._selector.unregister(worker.answers)
        code = _wait_or_kill(worker.process, STOP_S)
        if worker.element:
            self.died[worker.element] = code
        with suppress(OSError):
            worker.commands.close()
        worker.answers.close()
        self._workers[self._workers.index(worker)] = None


class _Process:
    """One worker, and what it makes now."""

    def __init__(self, process: subprocess.Popen[str], environment: dict[str, str]) -> None:
        self.process = process
        self.environment = environment
        self.element: tuple[str, int] | None = None
        self.commands: IO[Any] = process.stdin  # type: ignore[assignment]
        self.answers: IO[Any] = process.stdout  # type: ignore[assignment]


def _wait_or_kill(process: subprocess.Popen[str], seconds: float) -> int:
    """The exit code of a process that is about to end; it is killed if that takes too long."""
    with suppress(subprocess.TimeoutExpired):
        return process.wait(seconds)
    process.kill()
    with suppress(subprocess.TimeoutExpired):  # one that waits for a dead disk does not die
        return process.wait(STOP_S)
    return -signal.SIGKILL


def exit_text(code: int) -> str:
    """An exit code of a process for people."""
    if code >= 0:
        return f"its process ended with code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    return f"its process was ended by {name}"


def find_gpus() -> list[str]:
    """The GPUs that this process may use, without asking torch."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [gpu.strip() for gpu in given.split(",") if gpu.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return []
    n = sum(line.startswith("GPU ") for line in done.stdout.splitlines())
    return [str(i) for i in range(n)]


def default_jobs() -> int:
    """How many processes there are unless said otherwise: one a GPU, else one."""
    return max(1, len(find_gpus()))
