"""The coordinator: sends what a plan lacks to an executor, and watches until it is there.

It may die at any time. All that it knows is on disk: the next one, on any host, takes up from
there, adopts what is queued or running, and submits only what is neither.
"""

from __future__ import annotations

import time
from collections import Counter

from saevx.dispatch.code.snapshot import Snapshot
from saevx.dispatch.executors.base import Executor
from saevx.dispatch.jobs.finish import end_runs
from saevx.dispatch.jobs.job import Job
from saevx.dispatch.jobs.monitor import JobMonitor
from saevx.dispatch.jobs.progress import RunProgress
from saevx.dispatch.jobs.recover import recall_failures, recover
from saevx.dispatch.request import Counts, Request
from saevx.dispatch.run_folder import acquire_submit_lease
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
        self.plan, self.keys, self.store = plan, context.keys, context.store
        self.executor, self.request = executor, request
        types = {type(node.spec) for node in plan.to_make}
        self.recipes = {spec_type: context.find_recipe(spec_type) for spec_type in types}
        snapshot = Snapshot(request.path, request.files)
        self.ledger = RunProgress(
            plan,
            self.store,
            prefix=request.prefix,
            code=snapshot.digest,
            retry_failed=request.retry_failed,
        )
        self.flights = JobMonitor(executor)
        self._unsure: set[str] = set()
        """Keys that another run has submitted, or died before it did."""
        self._adopted = 0.0
        self.submitter = Submitter(
            request, context, self.recipes, executor, snapshot, self.ledger, self.flights
        )

    def run(self) -> RunResult:
        """Make the plan. Raises SpecError before anything is sent off; Detached when told to
        submit only, or at Ctrl-C where what is submitted goes on by itself."""
        check(self.plan, self.keys, self.recipes)
        self.submitter.read_batches(self.ledger.left.values())
        try:
            recall_failures(self.store, self.ledger)
            while True:
                self._advance()
                if not self.ledger.left:
                    end_runs(self.store, self.request.prefix)
                    remove_old_runs(self.store)
                    return self.ledger.outcome
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
            self.submitter.close()

    def _advance(self) -> None:
        """Take in what has ended, and submit what can be."""
        for flight, outcome in self.flights.landed():
            shared = len(self.flights.sharing(flight)) > 0
            self.ledger.take_in(flight, outcome, shared)
        self.ledger.see_published()
        self.ledger.block(self.flights.by_key())
        if (self._to_send() or self._is_time_to_adopt()) and not self.submitter.must_wait():
            self._send()

    def _is_time_to_adopt(self) -> bool:
        return bool(self._unsure) and time.monotonic() - self._adopted >= self.executor.poll_s

    def _to_send(self) -> list[Node]:
        """What is absent, in nobody's hands, and has inputs that are there or on their way."""
        flying = self.flights.by_key()
        ready: dict[str, Node] = {}
        for key, node in self.ledger.left.items():  # inputs come before what reads them
            idle = key not in flying and key not in self.ledger.unseen
            idle = idle and key not in self._unsure
            if idle and all(self._comes(below, key, flying, ready) for below in node.inputs):
                ready[key] = node
        return list(ready.values())

    def _comes(
        self,
        below: str,
        key: str,
        flying: dict[str, list[Job]],
        ready: dict[str, Node],
    ) -> bool:
        """Whether an input of a key is there, or on its way."""
        if self.plan.nodes[below].state is State.PRESENT:
            return True
        if not self.executor.looks_ahead:
            return False
        if below in ready:
            return True
        # What was to make it when the key's last job looked in vain may be dead, and not be known
        # to be: only one that was submitted since counts.
        since = self.ledger.blocked_at.get(key, 0.0)
        return any(
            flight.executor == self.executor.name and flight.submitted > since
            for flight in flying.get(below, ())
        )

    def _is_all_sent(self) -> bool:
        return not (self._to_send() or self._unsure) and (
            self.executor.looks_ahead or not self.ledger.left
        )

    def _send(self) -> None:
        """Submit what is to be sent, and is not just being submitted by another run."""
        lock = acquire_submit_lease(self.store)
        if lock is None:
            return  # at the next tick
        with lock:
            self._unsure = recover(self.store, self.ledger, self.flights) & self.ledger.left.keys()
            self._adopted = time.monotonic()
            self.ledger.drop_present(self._to_send())
            nodes = self._to_send()
            if nodes:
                self.submitter.submit(nodes)

    def _counts(self) -> Counts:
        flying = self.flights.flying.values()
        outcome, total = self.ledger.outcome, self.ledger.total
        failed = len(outcome.failed) + len(outcome.blocked)
        running = sum(flight.running for flight in flying)
        made = total - len(self.ledger.left) - failed
        silent_s = max(self.flights.silent_s, self.submitter.silent_s)
        why = Counter(flight.reason for flight in flying if flight.reason and not flight.running)
        reason = why.most_common(1)[0][0] if why else ""
        return Counts(made, total, running, len(flying) - running, failed, silent_s, reason)

    def _detached_text(self) -> str:
        n = len(self.flights.flying)
        return (
            f"{self.request.name}: detached; {n} jobs are queued or running and go on. "
            "`saevx status` shows them, and the same command attaches to them"
        )
