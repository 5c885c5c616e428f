"""Flights: the elements, of this run and of others, that are making what this run wants.

Here it is found out what became of them: from the outcomes that workers write, and else from the
executors that run them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from saevx.dispatch.executors import EXECUTORS, post_mortem, statuses
from saevx.dispatch.executors.base import Executor, JobState
from saevx.dispatch.jobs.job import Job
from saevx.dispatch.messages import ArrayTask, Outcome

LOST_S = 15.0
"""After this an element that is gone counts as vanished, should nobody know what became of it."""


@dataclass
class JobMonitor:
    """All flights that a run watches."""

    executor: Executor
    flying: dict[ArrayTask, Job] = field(default_factory=dict)
    known: set[ArrayTask] = field(default_factory=set)
    """Elements that were ever taken in, whatever became of them."""
    silent_s: float = 0.0
    """For how long an executor has given no answer."""
    _asked: float = 0.0
    _answered: float = field(default_factory=time.monotonic)

    def add(self, flight: Job) -> None:
        self.flying[flight.task] = flight
        self.known.add(flight.task)

    def by_key(self) -> dict[str, list[Job]]:
        """What is being made -> by which flights: several where each makes parts of it."""
        found: dict[str, list[Job]] = {}
        for flight in self.flying.values():
            for key in flight.keys:
                found.setdefault(key, []).append(flight)
        return found

    def sharing(self, flight: Job) -> list[Job]:
        """Those that still make other parts of the same artifacts, of the same array."""
        if not flight.parts:
            return []
        keys = set(flight.keys)
        return [
            other
            for element, other in self.flying.items()
            if element[:2] == flight.task[:2] and keys & set(other.keys)
        ]

    def landed(self) -> list[tuple[Job, Outcome]]:
        """The flights that have ended since the last call, and how."""
        ended = self._with_outcome()
        if time.monotonic() - self._asked >= self.executor.poll_s and self.flying:
            gone = self._look()
            self._asked = time.monotonic()
            if gone:
                # What ended between the two looks has written an outcome by now.
                ended += self._with_outcome()
                ended += self._dead([one for one in gone if one.task in self.flying])
        return ended

    def _with_outcome(self) -> list[tuple[Job, Outcome]]:
        ended = []
        folders = {flight.task.run: flight.folder for flight in self.flying.values()}
        written = {run: folder.finished_tasks() for run, folder in folders.items()}
        for element, flight in list(self.flying.items()):
            if flight.position in written[element.run]:
                outcome = flight.folder.outcome(*flight.position)
                if outcome is not None:
                    ended.append((flight, outcome))
                    del self.flying[element]
        return ended

    @property
    def _executors(self) -> dict[str, Executor]:
        return EXECUTORS | {self.executor.name: self.executor}

    def _look(self) -> list[Job]:
        """Update all flights; those that are gone, and have been for a while."""
        seen = statuses(self.flying.values(), self._executors)
        now = time.monotonic()
        silent = any(status.state is JobState.UNKNOWN for status in seen.values())
        self._answered = self._answered if silent else now
        self.silent_s = now - self._answered
        gone = []
        for element, (state, reason, node) in seen.items():
            flight = self.flying[element]
            if state is JobState.GONE:
                flight.gone_since = flight.gone_since or now
                if now - flight.gone_since >= self._executors[flight.executor].grace_s:
                    gone.append(flight)
            elif state is not JobState.UNKNOWN:
                flight.running, flight.reason, flight.node = state is JobState.RUNNING, reason, node
                flight.gone_since = None
        return gone

    def _dead(self, gone: Sequence[Job]) -> list[tuple[Job, Outcome]]:
        """Find out what became of flights that left no outcome; write it down for them."""
        ended = []
        for name, executor in self._executors.items():
            ours = [flight for flight in gone if flight.executor == name]
            deaths = executor.deaths(ours)
            for flight in ours:
                lost = time.monotonic() - (flight.gone_since or 0.0) >= LOST_S
                outcome = post_mortem(flight, deaths, lost)
                if outcome is not None:
                    flight.folder.write_outcome(*flight.position, outcome)
                    ended.append((flight, outcome))
                    del self.flying[flight.task]
        return ended
