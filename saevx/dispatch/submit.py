"""Submission: packs nodes into arrays, records these, and gives them to an executor."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path

from saevx.dispatch.batching import ArrayBatch, Batcher, WorkItem, array_name, chunks
from saevx.dispatch.code.snapshot import Snapshot
from saevx.dispatch.executors.base import Executor
from saevx.dispatch.jobs.job import Job
from saevx.dispatch.jobs.monitor import JobMonitor
from saevx.dispatch.jobs.progress import RunProgress
from saevx.dispatch.messages import Array, ArrayTask, RunInfo
from saevx.dispatch.run_folder import RunFolder
from saevx.dispatch.run_request import Request
from saevx.dispatch.signals import defer_signals
from saevx.experiments.load import copy_in
from saevx.resolve.context import Context
from saevx.resolve.plan import Node
from saevx.user_types import declared_types
from spec import to_document
from spec.keys.type_names import is_user_defined
from store.errors import NoAnswer, SlurmError
from store.layout import KINDS
from store.locks.heartbeat import heartbeats
from store.locks.process import ProcessId
from store.names import user_name

RETRY_S = 20.0
"""For so long a submission is retried that Slurm refuses for a reason that may pass."""

PAUSE_S = 2.0
LONGEST_PAUSE_S = 30.0
"""Seconds between two tries while Slurm does not answer: twice as many after each."""

TRANSIENT = ("dependency", "contact", "timed out", "temporarily", "connection")
"""Words of refusals that may pass: a job that a dependency names may just have ended."""


class Submitter:
    """Submits nodes, as arrays in the folder of one run."""

    def __init__(
        self,
        request: Request,
        context: Context,
        executor: Executor,
        snapshot: Snapshot,
        progress: RunProgress,
        monitor: JobMonitor,
    ) -> None:
        self.request, self.context, self.executor = request, context, executor
        self.progress, self.monitor = progress, monitor
        self._snapshot = snapshot
        self._folder: RunFolder | None = None
        self._batcher = Batcher(
            request.profile, context, executor.jobs_per_batch, list(progress.left.values())
        )
        self._refused_since = 0.0
        self._outage = _Outage(executor)

    @property
    def unanswered_s(self) -> float:
        """For how long Slurm has not answered submissions."""
        return time.monotonic() - self._outage.since if self._outage.since else 0.0

    def must_wait(self) -> bool:
        """Whether Slurm does not answer, so that a submission would fail."""
        return self._outage.lasts()

    def submit(self, nodes: list[Node]) -> None:
        """Submit all nodes, or as many as Slurm accepts now.

        Raise SlurmError where it refuses for a reason that does not pass.
        """
        folder = self._own_folder()
        folder.reopen()
        for batch in self._batcher.pack(nodes, self.progress.least_memory_gb):
            for tasks in chunks(batch.tasks, self.executor.max_array_size):
                if not self._submit_array(folder, batch, tasks):
                    return

    def close(self) -> None:
        """Mark a run that has submitted nothing as ended."""
        if self._folder is not None:
            heartbeats.remove(self._folder)
            if not any(self._folder.arrays()):
                self._folder.end()

    def _submit_array(self, folder: RunFolder, batch: ArrayBatch, tasks: list[WorkItem]) -> bool:
        """Submit one array. Return whether it was accepted."""
        nodes = [node for task in tasks for node in task.nodes]
        keys = self.context.keys
        array = Array(
            name=array_name(self.request.name, batch.recipe),
            recipe=batch.recipe,
            tasks=[[[node.key for node in one] for one in task.batches] for task in tasks],
            parts=[task.parts for task in tasks] if any(task.parts for task in tasks) else [],
            documents={n.key: to_document(n.spec, keys, with_exec=True) for n in nodes},
            resources=batch.resources.text,
            memory_gb=batch.resources.memory_gb,
            submitted=time.time(),
        )
        active = self.monitor.by_key()
        inputs = {key for node in nodes for key in node.inputs}
        after = {job.handle for key in inputs for job in active.get(key, ())}
        folder.add(array)
        with defer_signals():
            try:
                handle = self.executor.submit(array, folder, batch.resources, after)
            except NoAnswer:  # if it was submitted after all, `recover` finds it by its name
                self._outage.begin()
                return False
            except SlurmError as error:
                folder.drop(array.name)
                self._wait_or_raise(error)
                return False
            self._refused_since = 0.0
            folder.set_handle(array.name, handle)
            for number in range(len(tasks)):
                self.monitor.add(Job(folder, ArrayTask(folder.name, array.name, number), handle))
        return True

    def _wait_or_raise(self, error: SlurmError) -> None:
        """Return where the submission is to be tried again; else raise the error."""
        if not self.executor.is_available():
            self._outage.begin()
            return
        now = time.monotonic()
        self._refused_since = self._refused_since or now
        may_pass = any(word in str(error).lower() for word in TRANSIENT)
        if not may_pass or now - self._refused_since > RETRY_S:
            raise error

    def _own_folder(self) -> RunFolder:
        if self._folder is None:
            store, request, site = self.context.store, self.request, self.context.keys.site
            folder = RunFolder.make(store, request.name, request.file)
            folder.code_digest = self._snapshot.write(folder.code)
            types = {type(node.spec) for node in self.progress.left.values()}
            needs_file = request.path and (
                declared_types()
                or any(is_user_defined(self.context.find_recipe(one).make) for one in types)
            )
            folder.write_info(
                RunInfo(
                    name=request.name,
                    path=request.file,
                    experiment=str(copy_in(folder.code, Path(request.file))) if needs_file else "",
                    executor=self.executor.name,
                    owner=str(ProcessId.here()),
                    user=user_name(),
                    code=self.progress.code,
                    origin=asdict(self.context.code),
                    folder=os.getcwd(),
                    store_root=str(store.root),
                    store_roots={kind: str(store.root_of(kind)) for kind in KINDS},
                    data_roots={name: str(path) for name, path in site.data_roots.items()},
                    began=self.progress.began,
                )
            )
            heartbeats.add(folder)
            self._folder = folder
        return self._folder


class _Outage:
    """A time in which an executor does not answer: it is asked ever less often until it does."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.since = 0.0
        """0 where there is none."""
        self._next = self._pause_s = 0.0

    def begin(self) -> None:
        self.since, self._pause_s = time.monotonic(), PAUSE_S
        self._next = self.since + self._pause_s

    def lasts(self) -> bool:
        now = time.monotonic()
        if self.since and now >= self._next:
            if self._executor.is_available():
                self.since = 0.0
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            self._next = now + self._pause_s
        return self.since > 0
