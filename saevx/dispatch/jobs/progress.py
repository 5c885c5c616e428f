"""The progress of a run: what its plan still lacks, and what has become of the rest.

It evaluates the outcomes of jobs, whichever run submitted them. An artifact counts as made once it
is visible in the store. A failed one is retried or given up.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection
from typing import TYPE_CHECKING

from saevx.dispatch.executors import executor_of, logs_of, where
from saevx.dispatch.jobs.job import Job
from saevx.dispatch.jobs.retry import (
    MEMORY_FACTOR,
    Attempt,
    describe,
    from_earlier_run,
    may_retry,
    read_tail,
)
from saevx.dispatch.messages import Outcome, Result, TaskStatus
from saevx.dispatch.run_folder import runs_dir
from saevx.errors import JobFailed
from saevx.resolve.plan import Node, Plan, State
from saevx.resolve.run import RunResult
from store.locks.liveness import server_time

if TYPE_CHECKING:
    from store import Store

NOT_SEEN_S = 20.0
"""A file server may show only after some seconds what another host has published."""


class RunProgress:
    """What is left of one plan, and the outcome so far."""

    def __init__(
        self, plan: Plan, store: Store, *, prefix: str, code: str, retry_failed: bool
    ) -> None:
        self.plan, self.store = plan, store
        self.prefix, self.code, self.retry_failed = prefix, code, retry_failed
        self.left = {node.key: node for node in plan.to_make}
        self.total = len(self.left)
        self.result = RunResult()
        self.attempts: dict[tuple[str, int | None], list[Attempt]] = defaultdict(list)
        """Key and part (None for the whole) -> attempts that did not make it."""
        self.reported: dict[str, tuple[float, Job, Outcome]] = {}
        """Keys that a job has reported as made, and that are not visible yet -> since when."""
        self.blocked_at: dict[str, float] = {}
        """Keys whose job found an input missing -> when that job was submitted."""
        self.least_memory_gb: dict[str, float] = {}
        """Keys that ran out of memory -> memory of their next attempt."""
        self.began = time.time()
        self._began_there = server_time(runs_dir(store))
        """By the file server's clock, since clocks of hosts differ; None without earlier runs."""

    def is_present(self, key: str) -> bool:
        node = self.plan.nodes.get(key)
        return node is not None and self.store.find(node.spec.kind, key) is not None

    def record(self, job: Job, outcome: Outcome, shared: bool = False) -> None:
        """Evaluate the outcome of a job; `shared` while others make parts of its artifacts."""
        # A retry gets further where the job made something before it was interrupted.
        progressed = outcome.progressed or any(map(self.is_present, outcome.results))
        for key, result in outcome.results.items():
            if key not in self.left or key in self.reported:
                continue
            status = result.status
            if status is TaskStatus.MADE_ELSEWHERE and shared:
                continue  # the job that published it is about to report it
            if status in (TaskStatus.MADE, TaskStatus.MADE_ELSEWHERE) or self.is_present(key):
                self.reported[key] = time.monotonic(), job, outcome
            elif status is TaskStatus.PART:
                # The job with the last part makes the artifact; else what is missing is retried.
                self._record_not_seen(key, job, outcome, status)
            elif status is TaskStatus.BLOCKED and not self._has_inputs(key):
                self.blocked_at[key] = max(job.submitted, self.blocked_at.get(key, 0.0))
            else:
                memory_gb = None
                if status is TaskStatus.OUT_OF_MEMORY:
                    memory_gb = executor_of(job).memory_gb(job, outcome)
                if memory_gb:
                    least_gb = MEMORY_FACTOR * memory_gb
                    self.least_memory_gb[key] = max(least_gb, self.least_memory_gb.get(key, 0.0))
                self.record_failure(key, job, outcome, result, progressed, memory_gb)

    def record_failure(
        self,
        key: str,
        job: Job,
        outcome: Outcome,
        result: Result,
        progressed: bool = False,
        memory_gb: float | None = None,
    ) -> None:
        """Count an attempt that did not make a key; give the key up where a retry is no use."""
        text = where(job)
        if self._is_from_earlier_run(job):
            # With other resources, or at another time, anything but an error may end well.
            is_error = result.status is TaskStatus.ERROR
            if not is_error or job.folder.info.code != self.code or self.retry_failed:
                return
            text = from_earlier_run(text)
        attempt = Attempt(result, text, progressed, job.executor, outcome, memory_gb)
        attempts = [self.attempts[key, part] for part in job.parts or (None,)]
        for one in attempts:
            one.append(attempt)
        if not all(map(may_retry, attempts)):
            del self.left[key]
            self.result.failed[key] = JobFailed(describe(attempts[0], read_tail(logs_of(job))))

    def _is_from_earlier_run(self, job: Job) -> bool:
        ended, began = job.folder.outcome_time(*job.position), self._began_there
        return ended is not None and began is not None and ended < began

    def _has_inputs(self, key: str) -> bool:
        return all(self.plan.nodes[below].state is State.PRESENT for below in self.left[key].inputs)

    def see_published(self) -> None:
        """Count reported artifacts as made once they are visible from here."""
        for key, (since, job, outcome) in list(self.reported.items()):
            if self.is_present(key):
                node = self.left.pop(key)
                node.state = State.PRESENT
                elsewhere = outcome.results[key].status is TaskStatus.MADE_ELSEWHERE
                is_ours = job.folder.name.startswith(self.prefix) and not elsewhere
                (self.result.made if is_ours else self.result.made_elsewhere).append(node)
                del self.reported[key]
            elif time.monotonic() - since > NOT_SEEN_S:
                del self.reported[key]
                self._record_not_seen(key, job, outcome, TaskStatus.NOT_SEEN)

    def _record_not_seen(self, key: str, job: Job, outcome: Outcome, status: TaskStatus) -> None:
        """Count an attempt whose artifact, or parts of it, the store does not show."""
        root = self.store.root_of(self.left[key].spec.kind)
        what = f"parts {job.parts} of it" if status is TaskStatus.PART else "it"
        message = (
            f"a job on {outcome.host or 'another host'} reported that it made {what}, and {root} "
            f"does not show it here. Is {root} on a disk of that host alone, or was it removed?"
        )
        self.record_failure(key, job, outcome, Result(status=status, message=message))

    def drop_present(self, nodes: Collection[Node]) -> None:
        """Take off those nodes that others have made since the plan."""
        for node in nodes:
            if self.is_present(node.key):
                self.left.pop(node.key).state = State.PRESENT
                self.result.made_elsewhere.append(node)

    def block(self, active: Collection[str]) -> None:
        """Give up what needs something that was given up, except keys that active jobs make."""
        for key, node in list(self.left.items()):
            if key not in active and key not in self.reported and self.result.blocks(node):
                del self.left[key]
