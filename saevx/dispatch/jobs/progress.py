"""The ledger of a run: what its plan still lacks, and what became of the rest.

It judges how elements ended, by whichever run they were submitted: what was made is believed once
it can be seen in the store, and what failed is either to be tried again or given up.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING

from saevx.dispatch.executors import executor_of, where
from saevx.dispatch.jobs.job import Job
from saevx.dispatch.jobs.retry import (
    MEMORY_FACTOR,
    Attempt,
    describe,
    earlier,
    read_tail,
    wants_another,
)
from saevx.dispatch.messages import Outcome, Result, TaskStatus
from saevx.errors import JobFailed
from saevx.resolve.plan import Node, Plan, State
from saevx.resolve.run import RunResult

if TYPE_CHECKING:
    from store import Store

UNSEEN_S = 20.0
"""A file server shows what another host has published after some seconds."""

SEALED_S = 5.0
"""Whoever makes the last part publishes the artifact, and says so a moment later."""


class RunProgress:
    """What is left of one plan, and the outcome so far."""

    def __init__(
        self, plan: Plan, store: Store, *, prefix: str, code: str, retry_failed: bool
    ) -> None:
        self.plan, self.store = plan, store
        self.prefix, self.code, self.retry_failed = prefix, code, retry_failed
        self.left = {node.key: node for node in plan.to_make}
        self.total = len(self.left)
        self.outcome = RunResult()
        self.attempts: dict[str, dict[int | None, list[Attempt]]] = {}
        """Key -> part (None for the whole) -> what was tried, and did not make it."""
        self.unseen: dict[str, tuple[float, Job, Outcome]] = {}
        """Keys that are said to be made, and that the store does not show yet -> since when, and
        by whom."""
        self.blocked_at: dict[str, float] = {}
        """Keys that were not made since an input was absent -> when their array was submitted."""
        self.sealing: dict[str, Node] = {}
        """Of which one of our elements says that it came, and another may say that it made it."""
        self.least_memory_gb: dict[str, float] = {}
        """What ran out of memory -> what the next go at it needs."""
        self.began = time.time()

    def is_there(self, key: str) -> bool:
        node = self.plan.nodes.get(key)
        return node is not None and self.store.find(node.spec.kind, key) is not None

    def take_in(self, flight: Job, outcome: Outcome, shared: bool = False) -> None:
        """Judge how an element ended. It is `shared` while others make parts of the same."""
        # Another go gets further where its job made something before it died.
        progressed = outcome.progressed or any(map(self.is_there, outcome.results))
        is_ours = flight.folder.name.startswith(self.prefix)
        for key, result in outcome.results.items():
            if key in self.sealing and is_ours and result.status is TaskStatus.MADE:
                node = self.sealing.pop(key)
                self.outcome.made_elsewhere.remove(node)
                self.outcome.made.append(node)
            if key not in self.left or key in self.unseen:
                continue
            if result.status in (TaskStatus.MADE, TaskStatus.MADE_ELSEWHERE) or self.is_there(key):
                self.unseen[key] = time.monotonic(), flight, outcome
                made = is_ours and result.status is not TaskStatus.MADE_ELSEWHERE
                (self.outcome.made if made else self.outcome.made_elsewhere).append(self.left[key])
                if is_ours and shared and not made:
                    self.sealing[key] = self.left[key]
                continue
            if result.status is TaskStatus.PART:
                # The last of its elements makes the artifact; else what is missing is sent again.
                self._judge(key, flight, self._unseen(key, flight, outcome, TaskStatus.PART))
                continue
            if result.status is TaskStatus.BLOCKED and not self._has_inputs(key):
                self.blocked_at[key] = max(flight.submitted, self.blocked_at.get(key, 0.0))
                continue
            memory_gb = None
            if result.status is TaskStatus.OUT_OF_MEMORY:
                memory_gb = executor_of(flight).memory_gb(flight, outcome)
            if memory_gb:
                least_gb = MEMORY_FACTOR * memory_gb
                self.least_memory_gb[key] = max(least_gb, self.least_memory_gb.get(key, 0.0))
            self._judge(key, flight, _attempt(flight, outcome, result, progressed, memory_gb))

    def _judge(self, key: str, flight: Job, attempt: Attempt) -> None:
        """Count an attempt that did not make a key; give the key up where another is no use."""
        if attempt.when < self.began:
            attempt = attempt._replace(where=earlier(attempt.where))
        if self._counts_still(attempt):
            tried = [self._note(key, part, attempt) for part in flight.parts or (None,)]
            if not all(map(wants_another, tried)):
                self._give_up(key, tried[0], read_tail(flight.logs))

    def _has_inputs(self, key: str) -> bool:
        return all(self.plan.nodes[below].state is State.PRESENT for below in self.left[key].inputs)

    def _counts_still(self, attempt: Attempt) -> bool:
        """Whether an attempt is held against its key. Of those that ended before this run began
        only errors are, unless the code has changed since, or the user asks for another go."""
        if attempt.when >= self.began:
            return True
        if attempt.result.status is not TaskStatus.ERROR:
            return False  # with other resources, or another day, it may be made
        return attempt.code == self.code and not self.retry_failed

    def fail(self, key: str, attempt: Attempt) -> None:
        """Give a key up at once."""
        self._give_up(key, self._note(key, None, attempt))

    def _note(self, key: str, part: int | None, attempt: Attempt) -> list[Attempt]:
        """Note an attempt; all that there were at the same part."""
        tried = self.attempts.setdefault(key, {}).setdefault(part, [])
        tried.append(attempt)
        return tried

    def _give_up(self, key: str, tried: list[Attempt], tail: str = "") -> None:
        del self.left[key]
        self.outcome.failed[key] = JobFailed(describe(tried, tail))

    def see_published(self) -> None:
        """Believe in what others have made once it can be seen from here."""
        for key, (since, flight, outcome) in list(self.unseen.items()):
            if key in self.sealing and time.monotonic() - since < SEALED_S:
                continue
            self.sealing.pop(key, None)
            if self.is_there(key):
                self.left.pop(key).state = State.PRESENT
                del self.unseen[key]
            elif time.monotonic() - since > UNSEEN_S:
                del self.unseen[key]
                for nodes in (self.outcome.made, self.outcome.made_elsewhere):
                    nodes[:] = [node for node in nodes if node.key != key]
                self._judge(key, flight, self._unseen(key, flight, outcome, TaskStatus.NOT_SEEN))

    def _unseen(self, key: str, flight: Job, outcome: Outcome, end: TaskStatus) -> Attempt:
        """Nobody has seen what a job said it made."""
        root = self.store.root_of(self.left[key].spec.kind)
        what = f"parts {flight.parts} of it" if end is TaskStatus.PART else "it"
        message = (
            f"a job on {outcome.host or 'another host'} said that it made {what}, and {root} does "
            f"not show it here. Is {root} on a disk of that host alone, or was it removed since?"
        )
        return _attempt(flight, outcome, Result(status=end, message=message))

    def drop_present(self, nodes: Collection[Node]) -> None:
        """Take off those nodes that others have made since the plan."""
        came = [node for node in nodes if self.is_there(node.key)]
        for node in came:
            self.left.pop(node.key).state = State.PRESENT
        self.outcome.made_elsewhere += came

    def block(self, flying: Collection[str]) -> None:
        """Give up what needs something that was given up, but for what `flying` still may make."""
        for key, node in list(self.left.items()):
            if key not in flying and key not in self.unseen and self.outcome.blocks(node):
                del self.left[key]


def _attempt(
    flight: Job,
    outcome: Outcome,
    result: Result,
    progressed: bool = False,
    memory_gb: float | None = None,
) -> Attempt:
    return Attempt(
        result=result,
        progressed=progressed,
        when=outcome.ended,
        code=flight.folder.info.code,
        where=where(flight),
        executor=flight.executor,
        outcome=outcome,
        memory_gb=memory_gb,
    )
