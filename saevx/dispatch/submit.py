"""Submission: nodes of a plan cut into arrays, written down, and given to an executor."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from saevx.dispatch.batching import ArrayBatch, Batcher, WorkItem, array_name, chunks
from saevx.dispatch.code.snapshot import Snapshot
from saevx.dispatch.executors import slurm
from saevx.dispatch.executors.base import Executor
from saevx.dispatch.jobs.job import Job
from saevx.dispatch.jobs.monitor import JobMonitor
from saevx.dispatch.jobs.progress import RunProgress
from saevx.dispatch.messages import Array, ArrayTask, RunInfo
from saevx.dispatch.request import Request
from saevx.dispatch.run_folder import RunFolder
from saevx.dispatch.signals import defer_signals
from saevx.resolve.context import Context
from saevx.resolve.plan import Node
from saevx.user_types import declared_types, is_user_defined
from spec import Artifact, to_document
from store.errors import NoAnswer, SlurmError
from store.layout import KINDS
from store.locks.heartbeat import heartbeats
from store.locks.process import ProcessId
from store.names import user_name

if TYPE_CHECKING:
    from saevx.resolve.recipe import Recipe

PATIENCE_S = 20.0
"""For so long a submission is tried that Slurm refuses for a reason that may pass."""

PAUSE_S = 2.0
LONGEST_PAUSE_S = 30.0
"""Seconds between two tries while Slurm does not answer: twice as many after each."""

PASSING = ("dependency", "contact", "timed out", "temporarily", "connection")
"""Words of refusals that may pass: a job that a dependency names may have ended since we looked."""


class Submitter:
    """Submits nodes, as arrays in the folder of one run."""

    def __init__(
        self,
        request: Request,
        context: Context,
        recipes: dict[type[Artifact], Recipe[Any]],
        executor: Executor,
        snapshot: Snapshot,
        ledger: RunProgress,
        flights: JobMonitor,
    ) -> None:
        self.request, self.context, self.recipes = request, context, recipes
        self.keys, self.store = context.keys, context.store
        self.executor, self.ledger, self.flights = executor, ledger, flights
        self._snapshot = snapshot
        self._folder: RunFolder | None = None
        self._cutter = Batcher(
            request.profile, self.keys, self.store, recipes.__getitem__, executor.width
        )
        self._refused_since = 0.0
        self._silence = _Silence()

    @property
    def silent_s(self) -> float:
        """For how long Slurm has not answered submissions."""
        return self._silence.seconds

    def must_wait(self) -> bool:
        """Whether Slurm does not answer, and trying to submit makes no sense."""
        return self._silence.goes_on()

    def read_batches(self, nodes: Iterable[Node]) -> None:
        """Ask the recipes which nodes are made together."""
        self._cutter.read_batches(nodes)

    def submit(self, nodes: list[Node]) -> None:
        """Submit all of them, or as many as Slurm takes now.

        Raises SlurmError where it answers, and trying again does not help.
        """
        folder = self._own_folder()
        folder.reopen()
        for wave in self._cutter.cut(nodes, self.ledger.least_memory_gb):
            for loads in chunks(wave.elements, self.executor.largest_array):
                if not self._submit_array(folder, wave, loads):
                    return

    def close(self) -> None:
        """Mark a run that has sent nothing as ended."""
        if self._folder is not None:
            heartbeats.remove(self._folder)
            if not any(self._folder.arrays()):
                self._folder.end()

    def _submit_array(self, folder: RunFolder, wave: ArrayBatch, loads: list[WorkItem]) -> bool:
        """Whether it was taken."""
        members = [node for load in loads for node in load.nodes]
        array = Array(
            name=array_name(self.request.name, wave.recipe),
            recipe=wave.recipe,
            tasks=[[[n.key for n in batch] for batch in load.batches] for load in loads],
            parts=[load.parts for load in loads] if any(load.parts for load in loads) else [],
            documents={n.key: to_document(n.spec, self.keys, with_exec=True) for n in members},
            resources=wave.resources.text,
            memory_gb=wave.resources.memory_gb,
            submitted=time.time(),
        )
        flying = self.flights.by_key()
        after = {
            flight.handle
            for node in members
            for key in node.inputs
            for flight in flying.get(key, ())
        }
        folder.add(array)
        with defer_signals():
            try:
                job = self.executor.submit(array, folder, wave.resources, after)
            except NoAnswer:  # if it was submitted after all, `recover` finds it by its name
                self._silence.begin()
                return False
            except SlurmError as error:
                folder.drop(array.name)
                self._be_patient(error)
                return False
            self._refused_since = 0.0
            folder.set_handle(array.name, job)
            for index in range(len(loads)):
                self.flights.add(Job(folder, ArrayTask(folder.name, array.name, index), job))
        return True

    def _be_patient(self, error: SlurmError) -> None:
        """Let a submission be tried again, where that may help; else raise."""
        if not slurm.answers():
            self._silence.begin()
            return
        now = time.monotonic()
        self._refused_since = self._refused_since or now
        may_pass = any(word in str(error).lower() for word in PASSING)
        if not may_pass or now - self._refused_since > PATIENCE_S:
            raise error

    def _own_folder(self) -> RunFolder:
        if self._folder is None:
            folder = RunFolder.make(self.store, self.request.name, self.request.file)
            folder.code_digest = self._snapshot.write(folder.code)
            copied = self._snapshot.experiment_in(folder.code)
            needs = declared_types() or any(
                is_user_defined(recipe.make) for recipe in self.recipes.values()
            )
            folder.write_info(
                RunInfo(
                    name=self.request.name,
                    path=self.request.file,
                    experiment=str(copied) if copied and needs else "",
                    executor=self.executor.name,
                    owner=str(ProcessId.here()),
                    user=user_name(),
                    code=self.ledger.code,
                    origin=self.context.origin.record,
                    folder=os.getcwd(),
                    store_root=str(self.store.root),
                    store_roots={kind: str(self.store.root_of(kind)) for kind in KINDS},
                    data_roots={n: str(p) for n, p in self.keys.site.data_roots.items()},
                    began=self.ledger.began,
                )
            )
            heartbeats.add(folder)
            self._folder = folder
        return self._folder


class _Silence:
    """A time in which Slurm does not answer: it is asked again, ever less often, until it does."""

    def __init__(self) -> None:
        self._since = 0.0
        self._next = 0.0
        self._pause_s = PAUSE_S

    def begin(self) -> None:
        self._since, self._pause_s = time.monotonic(), PAUSE_S
        self._next = self._since + self._pause_s

    def goes_on(self) -> bool:
        now = time.monotonic()
        if not self._since:
            return False
        if now >= self._next:
            if slurm.answers():
                self._since = 0.0
                return False
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            self._next = now + self._pause_s
        return True

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._since if self._since else 0.0
