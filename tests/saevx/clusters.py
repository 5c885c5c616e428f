"""A simulated Slurm in the process of the test."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
import unruly  # noqa: F401

from saevx.dispatch import coordinator as coordinate
from saevx.dispatch.coordinator import Coordinator
from saevx.dispatch.executors import sacct, sbatch, slurm
from saevx.dispatch.executors.base import ExitInfo
from saevx.dispatch.executors.sacct import SlurmTask
from saevx.dispatch.executors.slurm import Slurm
from saevx.dispatch.messages import Array, TaskStatus
from saevx.dispatch.profiles import Profile, Resources
from saevx.dispatch.run_folder import RunFolder
from saevx.dispatch.run_request import Counts, Request
from saevx.dispatch.worker.main import Worker
from saevx.errors import NoAnswer, SlurmError
from saevx.recipes import find_recipe
from saevx.resolve.context import Context
from saevx.resolve.plan import make_plan
from saevx.resolve.run import RunResult
from saevx.workspace import Workspace
from spec import Artifact, Keys
from store import Store
from store.locks.slurm import QueuedJob


class Cluster:
    """Runs one task a step, after the arrays that it depends on, unless it is `down`."""

    def __init__(self) -> None:
        self.arrays: dict[str, tuple[RunFolder, Array]] = {}
        self.resources: list[Resources] = []
        self.waiting: list[SlurmTask] = []
        self.after: dict[str, Sequence[str]] = {}
        self.exits: dict[SlurmTask, ExitInfo] = {}
        self.down = False
        self.refuses = ""
        self.steps = 0
        self.n_refused = 0
        self.cancelled: list[str] = []
        self.kill: Callable[[RunFolder, Array, int], ExitInfo | None] = lambda *_: None
        """How the process of a task is killed; None if it is not."""
        self.at_step: Callable[[int], None] = lambda n: None

    def submit(
        self, array: Array, folder: RunFolder, resources: Resources, after: Sequence[str]
    ) -> str:
        if self.down or self.refuses:
            self.n_refused += 1
            raise SlurmError(self.refuses or "sbatch: error: refused")
        job = str(len(self.arrays) + 1)
        self.arrays[job] = folder, array
        self.resources.append(resources)
        self.after[job] = after
        self.waiting += [SlurmTask(job, index) for index in range(len(array.tasks))]
        return job

    def queue(self, *selection: str) -> list[QueuedJob]:
        if self.down:
            raise NoAnswer("Slurm gives no answer: squeue: it is down")
        return [queued(job) for job in self.waiting]

    def ask(self, *command: str) -> str:
        if self.down:
            raise NoAnswer(f"Slurm gives no answer: {command[0]}: it is down")
        named = {f"--name={array.name}": job for job, (_, array) in self.arrays.items()}
        return "".join(f"{named[word]}_0\n" for word in command if word in named)

    def cancel(self, names: list[str]) -> None:
        self.cancelled += names

    def step(self, seconds: float) -> None:
        self.steps += 1
        self.at_step(self.steps)
        assert self.steps < 5000, "the run does not end"
        time.sleep(0.002)
        live = {job.array for job in self.waiting}
        for job in self.waiting:
            if live & set(self.after[job.array]):
                continue
            self.waiting.remove(job)
            folder, array = self.arrays[job.array]
            info = self.kill(folder, array, job.number)
            if info is not None:
                self.exits[job] = info
            else:
                Worker(folder).work(array.name, job.number)
            return


def queued(job: SlurmTask) -> QueuedJob:
    """A task of an array as squeue would show it: waiting."""
    return QueuedJob(job.array, job.array, str(job.number), "PENDING", "ann", "", "Priority", "")


def dead(end: TaskStatus, exit_code: str = "0:9", memory_bytes: int = 0) -> ExitInfo:
    return ExitInfo(end, "Slurm says FAILED", exit_code, 7.0, 3 * 2**20, memory_bytes, "node1")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(sbatch, "submit", made.submit)
    monkeypatch.setattr(slurm, "queue", made.queue)
    monkeypatch.setattr(Slurm, "max_array_size", 1000)
    monkeypatch.setattr(slurm, "cancel", made.cancel)
    monkeypatch.setattr(slurm, "ask", made.ask)
    monkeypatch.setattr(
        sacct, "exit_infos", lambda jobs: {j: made.exits[j] for j in jobs if j in made.exits}
    )
    monkeypatch.setattr(Slurm, "wait", lambda self, seconds: made.step(seconds))
    monkeypatch.setattr(Slurm, "poll_s", 0.0)
    monkeypatch.setattr(Slurm, "grace_s", 0.05)
    monkeypatch.setattr(coordinate, "TICK_S", 0.01)
    return made


def coordinator(
    folder: Path,
    specs: Sequence[Artifact],
    watch: Callable[[Counts], None] = lambda counts: None,
    *,
    profile: Profile | None = None,
    name: str = "trial",
    retry_failed: bool = False,
) -> Coordinator:
    store = Store(folder / "store")
    keys = Keys(Workspace(store, {}))
    plan = make_plan(specs, keys, store)
    profile = profile or Profile(executor="slurm")
    request = Request(
        name=name,
        path=None,
        profile=profile,
        watch=watch,
        retry_failed=retry_failed,
    )
    return Coordinator(plan, Context(keys, store, find_recipe), Slurm(), request)


def run(folder: Path, specs: Sequence[Artifact], **how: object) -> RunResult:
    return coordinator(folder, specs, **how).run()  # type: ignore[arg-type]
