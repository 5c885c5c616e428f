"""The coordinator: submits what a plan lacks to an executor, and waits until it is made.

It may be killed at any time. All that it knows is on disk: the next one, on any host, recovers
what is queued or running, and submits only the rest.
"""

from __future__ import annotations

import time
from collections import Counter

from saevx.dispatch.code.snapshot import Snapshot
from saevx.dispatch.executors import EXECUTORS
from saevx.dispatch.executors.base import Executor
from saevx.dispatch.jobs.job import Job
from saevx.dispatch.jobs.monitor import JobMonitor
from saevx.dispatch.jobs.progress import RunProgress
from saevx.dispatch.jobs.recover import end_runs, recall_failures, recover
from saevx.dispatch.run_folder import acquire_submit_lease
from saevx.dispatch.run_request import Counts, Request
from saevx.dispatch.runs.retention import remove_old_runs
from saevx.dispatch.submit import Submitter
from saevx.errors import Detached
from saevx.resolve.context import Context
from saevx.resolve.plan import Node, Plan, State
from saevx.resolve.run import RunResult, check

TICK_S = 0.5


class Coordinator:
    """Makes one plan through an executor."""

    def __init__(self, plan: Plan, context: Context, executor: Executor, request: Request) -> None:
        """Check the plan. Raise SpecError where something cannot be made."""
        types = {type(node.spec) for node in plan.to_make}
        recipes = {spec_type: context.find_recipe(spec_type) for spec_type in types}
        check(plan, context.keys, recipes)
        self.plan, self.store, self.executor, self.request = plan, context.store, executor, request
        snapshot = Snapshot(request.path, request.files)
        self.progress = RunProgress(
            plan,
            self.store,
            prefix=request.prefix,
            code=snapshot.digest,
            retry_failed=request.retry_failed,
        )
        self.monitor = JobMonitor({**EXECUTORS, executor.name: executor})
        self.submitter = Submitter(
            request, context, executor, snapshot, self.progress, self.monitor
        )
        self._unsure: set[str] = set()
        """Keys that another run may have submitted: its submitter is busy, or was killed."""
        self._recovered = 0.0

    def run(self) -> RunResult:
        """Make the plan.

        Raise Detached when told to submit only, or at Ctrl-C where submitted jobs go on.
        """
        try:
            recall_failures(self.store, self.progress)
            while True:
                self._advance()
                if not self.progress.left:
                    end_runs(self.store, self.request.prefix)
                    remove_old_runs(self.store)
                    return self.progress.result
                self.request.watch(self._counts())
                if self.request.detach and self._is_all_submitted():
                    raise Detached(self._detached_text())
                self.executor.wait(TICK_S)
        except KeyboardInterrupt:
            if self.executor.outlives_submitter:
                raise Detached(self._detached_text()) from None
            raise
        finally:
            self.executor.close()
            self.submitter.close()

    def _advance(self) -> None:
        """Evaluate the jobs that have ended, and submit what can be submitted."""
        for job, outcome in self.monitor.take_ended():
            self.progress.record(job, outcome, shared=self.monitor.is_shared(job))
        self.progress.see_published()
        self.progress.block(self.monitor.by_key())
        is_recovery_due = (
            self._unsure and time.monotonic() - self._recovered >= self.executor.poll_s
        )
        if (is_recovery_due or self._ready()) and not self.submitter.must_wait():
            self._submit()

    def _ready(self) -> list[Node]:
        """What is missing, not already being made, and has inputs that exist or are being made."""
        active = self.monitor.by_key()
        ready: dict[str, Node] = {}
        for key, node in self.progress.left.items():  # inputs come before what reads them
            if key in active or key in self.progress.reported or key in self._unsure:
                continue
            if all(self._is_expected(below, key, active, ready) for below in node.inputs):
                ready[key] = node
        return list(ready.values())

    def _is_expected(
        self, below: str, key: str, active: dict[str, list[Job]], ready: dict[str, Node]
    ) -> bool:
        """Whether an input of a key exists, or will exist before a job of the key begins."""
        if self.plan.nodes[below].state is State.PRESENT:
            return True
        if not self.executor.outlives_submitter or below in ready:
            return self.executor.outlives_submitter
        # Where the last job of the key found the input missing, the job that was to make the input
        # may be dead without anybody knowing yet: only one that was submitted later counts.
        since = self.progress.blocked_at.get(key, 0.0)
        return any(
            job.executor == self.executor.name and job.submitted > since
            for job in active.get(below, ())
        )

    def _is_all_submitted(self) -> bool:
        return not (self._ready() or self._unsure) and (
            self.executor.outlives_submitter or not self.progress.left
        )

    def _submit(self) -> None:
        """Submit what is ready, unless another run is submitting: then at a later tick."""
        lease = acquire_submit_lease(self.store)
        if lease is None:
            return
        with lease:
            unsure = recover(self.store, self.progress, self.monitor)
            self._unsure = unsure & self.progress.left.keys()
            self._recovered = time.monotonic()
            self.progress.drop_present(self._ready())
            nodes = self._ready()
            if nodes:
                self.submitter.submit(nodes)

    def _counts(self) -> Counts:
        jobs, result = self.monitor.jobs.values(), self.progress.result
        failed = len(result.failed) + len(result.blocked)
        running = sum(job.running for job in jobs)
        reasons = Counter(job.reason for job in jobs if job.reason and not job.running)
        return Counts(
            made=self.progress.total - len(self.progress.left) - failed,
            total=self.progress.total,
            running=running,
            waiting=len(jobs) - running,
            failed=failed,
            unanswered_s=max(self.monitor.unanswered_s, self.submitter.unanswered_s),
            reason=max(reasons, key=reasons.__getitem__, default=""),
        )

    def _detached_text(self) -> str:
        return (
            f"{self.request.name}: detached; {len(self.monitor.jobs)} jobs are queued or running "
            "and go on. `saevx status` shows them, and the same command attaches to them"
        )
