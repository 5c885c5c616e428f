"""The coordinator: sends what a plan lacks to an executor, and watches until it is there.

It may die at any time. All that it knows is on disk: the next one, on any host, takes up from
there, adopts what is queued or running, and submits only what is neither.
"""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from spec import Keys, Spec, to_document
from store import leases
from store.layout import KINDS
from store.owner import Life, Owner

from ..errors import Detached, JobFailed
from ..explode import explode
from ..resolve.plan import Node, Plan, State
from ..resolve.provenance import Origin
from ..resolve.run import Outcome as RunOutcome
from ..resolve.run import check
from . import slurm
from .executors import Executor, local_life
from .flights import Flight, Flights, abandoned, made_meanwhile
from .folder import FOLDER, RunFolder, active_runs, all_runs, prefix_of
from .outcomes import Attempt, describe, memory_factor, wants_another
from .profiles import Profile, Resources
from .records import Array, Element, End, Outcome, RunInfo
from .snapshot import Snapshot
from .tasks import array_name, chunks, waves

if TYPE_CHECKING:
    from store import Store

    from ..resolve.recipe import FindRecipe

TICK_S = 0.5
REMEMBERED_RUNS = 5
"""The failures of so many earlier runs of the same file are looked up."""
UNSEEN_S = 20.0
"""A file server shows what another host has published after some seconds."""
AGAIN = "--retry-failed, or a change of the code, tries it again"

PATIENCE_S = 20.0
"""For so long a submission is tried while Slurm does not answer."""


@dataclass(frozen=True)
class Counts:
    """How far a run has come."""

    made: int
    total: int
    running: int
    waiting: int
    failed: int
    silent_s: float = 0.0
    """For how long Slurm has given no answer."""


@dataclass
class Request:
    """What the coordinator is asked to do."""

    name: str
    """Of the experiment."""
    path: Path | None
    """Of its file."""
    profile: Profile
    origin: Origin
    """The code, for provenance."""
    retry_failed: bool = False
    detach: bool = False
    """Submit, and do not wait."""
    watch: Callable[[Counts], None] = field(default=lambda counts: None)


class Coordinator:
    """Makes one plan through an executor."""

    def __init__(
        self,
        plan: Plan,
        keys: Keys,
        store: Store,
        find_recipe: FindRecipe,
        executor: Executor,
        request: Request,
    ) -> None:
        self.plan, self.keys, self.store, self.executor = plan, keys, store, executor
        self.request = request
        self.recipes = {type(node.spec): find_recipe(type(node.spec)) for node in plan.to_make}
        self.left = {node.key: node for node in plan.to_make}
        self.outcome = RunOutcome()
        self.flights = Flights(executor)
        self.attempts: dict[str, list[Attempt]] = {}
        self.began = time.time()
        self._path = str(request.path.resolve()) if request.path else ""
        self._prefix = prefix_of(request.name, self._path)
        self._folder: RunFolder | None = None
        self._snapshot = Snapshot(request.path)
        self._code = self._snapshot.digest
        self._known: set[Element] = set()
        self._unseen: dict[str, float] = {}
        self._total = len(self.left)
        self._refused_since = 0.0
        self._batch_text: dict[str, str] = {}

    def run(self) -> RunOutcome:
        """Make the plan. Raises SpecError before anything is sent off; Detached when told to
        submit only, or at Ctrl-C where what is submitted goes on by itself."""
        check(self.plan, self.keys, self.recipes)
        self._batch_text = {
            key: self.keys.text(self.recipes[type(node.spec)].batch_by(node.spec))
            for key, node in self.left.items()
        }
        try:
            self._recall_failures()
            while True:
                self._advance()
                if not self.left:
                    self._end_runs()
                    return self.outcome
                self.request.watch(self._counts())
                if self.request.detach and self._is_all_sent():
                    raise Detached(self._detached_text())
                self.executor.wait(TICK_S)
        except KeyboardInterrupt:
            if self.executor.looks_ahead:
                raise Detached(self._detached_text()) from None
            raise
        finally:
            self.executor.close()

    # -- what has happened

    def _advance(self) -> None:
        """Take in what has ended, and submit what can be."""
        for flight, outcome in self.flights.landed():
            self._take_in(flight, outcome)
        self._see_published()
        self._block()
        if self._to_send():
            self._send()

    def _take_in(self, flight: Flight, outcome: Outcome) -> None:
        info = flight.folder.info
        progressed = made_meanwhile(outcome, self._is_there)
        for key, result in outcome.results.items():
            if key not in self.left or key in self._unseen:
                continue
            if result.end in (End.MADE, End.CAME) or self._is_there(key):
                self._unseen[key] = time.monotonic()
                ours = flight.folder.name.startswith(self._prefix) and result.end is End.MADE
                (self.outcome.made if ours else self.outcome.came).append(self.left[key])
                continue
            attempt = Attempt(result, progressed, outcome.ended, info.code, flight.where)
            if self._counts_still(attempt):
                self.attempts.setdefault(key, []).append(attempt)
                if not wants_another(self.attempts[key]):
                    self._give_up(key)

    def _counts_still(self, attempt: Attempt) -> bool:
        """Whether an attempt is held against its key. What ended before this run began is not, if
        the code has changed since, or the user asks for another go."""
        if attempt.when >= self.began:
            return True
        if attempt.result.end in (End.CANCELLED, End.BLOCKED):
            return False
        return attempt.code == self._code and not self.request.retry_failed

    def _see_published(self) -> None:
        """Believe in what others have made once it can be seen from here."""
        for key, since in list(self._unseen.items()):
            if self._is_there(key):
                self.left.pop(key).state = State.PRESENT
                del self._unseen[key]
            elif time.monotonic() - since > UNSEEN_S:
                del self._unseen[key]  # removed meanwhile: it is made again
                for nodes in (self.outcome.made, self.outcome.came):
                    nodes[:] = [node for node in nodes if node.key != key]

    def _is_there(self, key: str) -> bool:
        node = self.plan.nodes.get(key)
        return node is not None and self.store.find(node.spec.kind, key) is not None

    def _give_up(self, key: str) -> None:
        del self.left[key]
        self.outcome.failed[key] = JobFailed(describe(self.attempts[key]))

    def _block(self) -> None:
        flying = self._flying_keys()
        for key, node in list(self.left.items()):
            for below in node.inputs:
                gone = below in self.outcome.failed or below in self.outcome.blocked
                if gone and key not in flying and key not in self._unseen:
                    self.outcome.blocked[key] = self.outcome.blocked.get(below, below)
                    del self.left[key]
                    break

    # -- what is to be done

    def _flying_keys(self) -> dict[str, Flight]:
        return {key: flight for flight in self.flights.flying.values() for key in flight.keys}

    def _to_send(self) -> list[Node]:
        """What is absent, in nobody's hands, and has inputs that are there or on their way."""
        flying = self._flying_keys()
        ready: dict[str, Node] = {}
        for key, node in self.left.items():  # inputs come before what reads them
            idle = key not in flying and key not in self._unseen
            if idle and all(self._comes(below, flying, ready) for below in node.inputs):
                ready[key] = node
        return list(ready.values())

    def _comes(self, key: str, flying: dict[str, Flight], ready: dict[str, Node]) -> bool:
        if self.plan.nodes[key].state is State.PRESENT:
            return True
        if not self.executor.looks_ahead:
            return False
        return key in ready or (key in flying and flying[key].job.startswith("slurm:"))

    def _is_all_sent(self) -> bool:
        return not self._to_send() and (self.executor.looks_ahead or not self.left)

    def _send(self) -> None:
        """Submit what is to be sent. One run of a store at a time, so that none submits what
        another is just submitting."""
        lock = leases.take(self.store.root, FOLDER, xxhash.xxh3_128_hexdigest(b"submit"))
        if lock is None:
            return  # at the next tick
        with lock:
            self._adopt()
            came = [node for node in self._to_send() if self._is_there(node.key)]
            for node in came:
                self.left.pop(node.key).state = State.PRESENT
            self.outcome.came += came
            nodes = self._to_send()
            if nodes:
                self._submit(nodes)

    def _adopt(self) -> None:
        """Take in the elements of all runs that make, or may have made, what is wanted here."""
        for folder in active_runs(self.store):
            for array in folder.arrays():
                wanted = [
                    element
                    for index, batches in enumerate(array.elements)
                    if (element := Element(folder.name, array.name, index)) not in self._known
                    and any(key in self.left for batch in batches for key in batch)
                ]
                if not wanted:
                    continue
                job = folder.job_of(array.name) or _reconcile(folder, array)
                if job is None:
                    continue
                for element in wanted:
                    self._known.add(element)
                    flight = Flight(folder, element, job)
                    outcome = folder.outcome(element.array, element.at)
                    if outcome is not None:
                        self._take_in(flight, outcome)
                    elif job.startswith("slurm:") or local_life(job) is Life.ALIVE:
                        self.flights.add(flight)
                    elif local_life(job) is Life.DEAD:
                        folder.write_outcome(*element[1:], abandoned(flight))

    def _recall_failures(self) -> None:
        """Errors of earlier runs of the same code: they would come again."""
        for folder in all_runs(self.store, self._prefix)[-REMEMBERED_RUNS:]:
            if not folder.ended or folder.info.code != self._code or self.request.retry_failed:
                continue
            for name, index in folder.outcome_names():
                outcome = folder.outcome(name, index)
                flight = Flight(
                    folder, Element(folder.name, name, index), folder.job_of(name) or ""
                )
                for key, result in (outcome.results if outcome else {}).items():
                    if result.end is End.ERROR and key in self.left and not self._is_there(key):
                        where = f"{flight.where}\nin an earlier run of the same code: {AGAIN}"
                        attempt = Attempt(result, False, 0.0, self._code, where)
                        self.attempts.setdefault(key, []).append(attempt)
                        self._give_up(key)

    def _submit(self, nodes: list[Node]) -> None:
        folder = self._own_folder()
        folder.reopen()
        for wave in waves(nodes, self._batch_text, self._resources):
            for elements in chunks(wave.elements, self.executor.largest_array):
                flying = self._flying_keys()
                members = [node for batches in elements for batch in batches for node in batch]
                array = Array(
                    name=array_name(self.request.name, wave.recipe),
                    recipe=wave.recipe,
                    elements=[[[n.key for n in batch] for batch in one] for one in elements],
                    documents={
                        n.key: to_document(n.spec, self.keys, with_exec=True) for n in members
                    },
                    resources=wave.resources.text,
                    memory_gb=wave.resources.memory_gb,
                    submitted=time.time(),
                )
                after = {
                    flying[key].job for node in members for key in node.inputs if key in flying
                }
                folder.add(array)
                try:
                    job = self.executor.submit(array, folder, wave.resources, after)
                except slurm.SlurmError as error:
                    folder.drop(array.name)
                    self._be_patient(error)
                    return
                self._refused_since = 0.0
                folder.set_job(array.name, job)
                for index in range(len(elements)):
                    element = Element(folder.name, array.name, index)
                    self._known.add(element)
                    self.flights.add(Flight(folder, element, job))

    def _be_patient(self, error: slurm.SlurmError) -> None:
        """Let a submission be tried again at the next tick, where that may help; else raise."""
        now = time.monotonic()
        self._refused_since = self._refused_since or now
        # A job that a dependency names may have ended since we looked.
        may_help = "dependency" in str(error).lower() or not slurm.answers()
        if not may_help or now - self._refused_since > PATIENCE_S:
            raise error

    def _resources(self, node: Node) -> Resources:
        name = type(node.spec).__name__
        found = self.request.profile.resources(
            name, lambda: explode(to_document(node.spec, self.keys))
        )
        return found.with_memory(memory_factor(self.attempts.get(node.key, [])))

    def _own_folder(self) -> RunFolder:
        if self._folder is None:
            folder = RunFolder.make(self.store, self.request.name, self._path)
            copied = self._snapshot.write(folder.code)
            needs = _defines_specs() or any(map(_is_users, (r.make for r in self.recipes.values())))
            folder.write_info(
                RunInfo(
                    name=self.request.name,
                    path=self._path,
                    experiment=str(copied) if copied and needs else "",
                    executor=self.executor.name,
                    owner=str(Owner.here()),
                    user=getpass.getuser(),
                    code=self._code,
                    origin=self.request.origin.record,
                    folder=os.getcwd(),
                    store_root=str(self.store.root),
                    store_roots={kind: str(self.store.root_of(kind)) for kind in KINDS},
                    data_roots={n: str(p) for n, p in self.keys.site.data_roots.items()},
                    began=self.began,
                )
            )
            self._folder = folder
        return self._folder

    # -- the end

    def _end_runs(self) -> None:
        """Mark runs of this experiment of which nothing flies any more."""
        for folder in active_runs(self.store):
            if folder.name.startswith(self._prefix) and _is_over(folder):
                folder.end()

    def _counts(self) -> Counts:
        flying = self.flights.flying.values()
        failed = len(self.outcome.failed) + len(self.outcome.blocked)
        running = sum(flight.running for flight in flying)
        made = self._total - len(self.left) - failed
        silent_s = self.flights.silent_s
        return Counts(made, self._total, running, len(flying) - running, failed, silent_s)

    def _detached_text(self) -> str:
        n = len(self.flights.flying)
        return (
            f"{self.request.name}: detached; {n} jobs are queued or running and go on. "
            "`saevx status` shows them, and the same command attaches to them"
        )


def _reconcile(folder: RunFolder, array: Array) -> str | None:
    """The job of an array whose submitter died before it wrote it down; None for none."""
    if folder.info.executor != "slurm":
        return None  # its processes have died with it
    deadline = time.monotonic() + slurm.GONE_AFTER_S + 5
    while time.monotonic() < deadline:
        job = slurm.find_by_name(array.name, array.submitted, folder.info.user)
        if job:
            folder.set_job(array.name, f"slurm:{job}")
            return f"slurm:{job}"
        if job == "":
            folder.drop(array.name)
            return None
        time.sleep(0.5)
    return None


def _is_over(folder: RunFolder) -> bool:
    done = folder.outcome_names()
    return all(
        (array.name, index) in done
        for array in folder.arrays()
        for index in range(len(array.elements))
    )


def _defines_specs() -> bool:
    """Whether spec types are known that saevx does not bring."""
    waiting: list[type[Spec]] = [Spec]
    while waiting:
        found = waiting.pop()
        if _is_users(found):
            return True
        waiting.extend(found.__subclasses__())
    return False


def _is_users(thing: Any) -> bool:
    return str(thing.__module__).partition(".")[0] not in ("spec", "saevx")


def default_jobs() -> int:
    """How many local processes there are unless said otherwise: one a GPU, else one."""
    from .local import find_gpus

    return max(1, len(find_gpus()))


__all__ = ["Coordinator", "Counts", "Request", "default_jobs"]
