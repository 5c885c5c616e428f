"""Flights: the elements, of this run and of others, that are making what this run wants.

Here it is found out what became of them: from the outcomes that workers write, and else from who
runs them (squeue, then sacct; the pool of local processes).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from store.owner import Life

from . import accounting, slurm
from .executors import Executor, death_outcome, local_life
from .folder import RunFolder, element_keys
from .logs import existing_logs
from .records import Element, End, Outcome

GRACE_S = 3.0
"""An element that is neither live nor has an outcome is looked at again after this: its outcome
may be on its way through a file server."""

LOST_S = 15.0
"""After this it counts as vanished, should nobody know what became of it."""


@dataclass
class Flight:
    """An element that was submitted and has not ended, as far as is known."""

    folder: RunFolder
    element: Element
    job: str
    """As in `RunFolder.job_of`."""
    running: bool = False
    reason: str = ""
    node: str = ""
    missed: int = 0
    """How often in a row it was not among the living."""
    missing_since: float = 0.0

    @property
    def at_slurm(self) -> bool:
        return bool(slurm.array_of(self.job))

    @property
    def is_local(self) -> bool:
        """Whether it is a process of some run of `--jobs`."""
        return self.job.startswith("local:")

    @property
    def slurm_job(self) -> slurm.Job:
        return slurm.Job(slurm.array_of(self.job), self.element.at)

    @property
    def keys(self) -> list[str]:
        return element_keys(self.folder, self.element)

    @property
    def submitted(self) -> float:
        array = self.folder.array(self.element.array)
        return array.submitted if array else 0.0

    @property
    def parts(self) -> list[int]:
        """Which parts it makes; none where it makes whole artifacts."""
        array = self.folder.array(self.element.array)
        return array.parts_of(self.element.at) if array else []

    def memory_gb(self, outcome: Outcome) -> float | None:
        """The memory that its job had; None where that is not known, or was the machine's."""
        if not self.at_slurm:
            return None
        array = self.folder.array(self.element.array)
        if array is not None and array.memory_gb is not None:
            return array.memory_gb
        n_bytes = outcome.memory_bytes
        if not n_bytes:  # it had the time to say so itself, and does not know what it had
            found = (accounting.deaths([self.slurm_job]) or {}).get(self.slurm_job)
            n_bytes = found.memory_bytes if found else 0
        return n_bytes / 2**30 or None

    @property
    def logs(self) -> list[Path]:
        """What it printed, the best file first; none where it printed nothing."""
        return existing_logs(self.folder, self.element.array, self.element.at, self.job)

    @property
    def where(self) -> str:
        """For people: the job, and where its log is."""
        job = self.slurm_job
        told = f"Slurm job {job.array}_{job.at}, " if self.at_slurm else ""
        log = next(iter(self.logs), self.folder.log(self.element.array, self.element.at))
        return f"{told}log: {log}"


@dataclass
class Flights:
    """All flights that a run watches."""

    executor: Executor
    flying: dict[Element, Flight] = field(default_factory=dict)
    known: set[Element] = field(default_factory=set)
    """Elements that were ever taken in, whatever became of them."""
    silent_s: float = 0.0
    """For how long Slurm has given no answer."""
    _asked: float = 0.0
    _answered: float = field(default_factory=time.monotonic)

    def add(self, flight: Flight) -> None:
        self.flying[flight.element] = flight
        self.known.add(flight.element)

    def by_key(self) -> dict[str, list[Flight]]:
        """What is being made -> by which flights: several where each makes parts of it."""
        found: dict[str, list[Flight]] = {}
        for flight in self.flying.values():
            for key in flight.keys:
                found.setdefault(key, []).append(flight)
        return found

    def sharing(self, flight: Flight) -> list[Flight]:
        """Those that still make other parts of the same artifacts, of the same array."""
        if not flight.parts:
            return []
        keys = set(flight.keys)
        return [
            other
            for element, other in self.flying.items()
            if element[:2] == flight.element[:2] and keys & set(other.keys)
        ]

    def landed(self) -> list[tuple[Flight, Outcome]]:
        """The flights that have ended since the last call, and how."""
        ended = self._with_outcome()
        if time.monotonic() - self._asked >= self.executor.poll_s and self.flying:
            missing = self._look()
            self._asked = time.monotonic()
            if missing:
                # What ended between the two looks has written an outcome by now.
                ended += self._with_outcome()
                ended += self._dead([one for one in missing if one.element in self.flying])
        return ended

    def _with_outcome(self) -> list[tuple[Flight, Outcome]]:
        ended = []
        folders = {flight.element.run: flight.folder for flight in self.flying.values()}
        written = {run: folder.outcome_names() for run, folder in folders.items()}
        for element, flight in list(self.flying.items()):
            if (element.array, element.at) in written[element.run]:
                outcome = flight.folder.outcome(element.array, element.at)
                if outcome is not None:
                    ended.append((flight, outcome))
                    del self.flying[element]
        return ended

    def _look(self) -> list[Flight]:
        """Update all flights; those that are not live, and have not been for a while."""
        missing = [*self._look_at_slurm(), *self._look_at_local()]
        now = time.monotonic()
        for flight in missing:
            flight.missed += 1
            flight.missing_since = flight.missing_since or now
        return [one for one in missing if one.missed > 1 or one.is_local]

    def _look_at_slurm(self) -> list[Flight]:
        ours = [one for one in self.flying.values() if one.at_slurm]
        if not ours:
            return []
        users = {flight.folder.info.user for flight in ours}
        states = slurm.states({flight.slurm_job.array for flight in ours}, users)
        now = time.monotonic()
        if states is None:  # Slurm starts again, or is too busy: no news is no news
            self.silent_s = now - self._answered
            return []
        self._answered, self.silent_s = now, 0.0
        for flight in ours:
            state = states.get(flight.slurm_job)
            if state is not None:
                flight.running, flight.reason, flight.node = state
                flight.missed, flight.missing_since = 0, 0.0
        return [flight for flight in ours if flight.slurm_job not in states]

    def _look_at_local(self) -> list[Flight]:
        locals_ = [one for one in self.flying.values() if one.is_local]
        if not locals_:
            return []
        live, running = self.executor.live(), self.executor.running()
        missing = []
        lives: dict[str, Life] = {}
        for flight in locals_:
            at = flight.element.array, flight.element.at
            if self.executor.owns(flight.folder):
                flight.running = at in running
                if at not in live:
                    missing.append(flight)
            elif lives.setdefault(flight.job, local_life(flight.job)) is Life.DEAD:
                missing.append(flight)
            else:
                flight.running = flight.folder.progress(*at) is not None
        return missing

    def _dead(self, missing: list[Flight]) -> list[tuple[Flight, Outcome]]:
        """Find out what became of flights that left no outcome; write it down for them."""
        now = time.monotonic()
        ripe = [
            flight for flight in missing if flight.is_local or now - flight.missing_since >= GRACE_S
        ]
        deaths = accounting.deaths(flight.slurm_job for flight in ripe if flight.at_slurm)
        ended = []
        for flight in ripe:
            outcome = self._post_mortem(flight, deaths, now)
            if outcome is not None:
                flight.folder.write_outcome(flight.element.array, flight.element.at, outcome)
                ended.append((flight, outcome))
                del self.flying[flight.element]
        return ended

    def _post_mortem(
        self, flight: Flight, deaths: dict[slurm.Job, accounting.Death] | None, now: float
    ) -> Outcome | None:
        at = flight.element.array, flight.element.at
        if flight.is_local:
            found = self.executor.death(flight.folder, *at)
            if found is None:
                return abandoned(flight)
            return death_outcome(flight.keys, End.KILLED, found.message, found)
        death = deaths.get(flight.slurm_job) if deaths is not None else None
        if death is not None and death.end is not None:
            return death_outcome(flight.keys, death.end, death.message, death)
        if now - flight.missing_since < LOST_S:
            return None
        why = "Slurm's accounting gives no answer"
        if deaths is not None:
            why = death.message if death else "Slurm's accounting does not know it"
        return death_outcome(
            flight.keys, End.VANISHED, f"the job is over and left no outcome; {why}", death
        )


def abandoned(flight: Flight) -> Outcome:
    """The outcome of an element of a local run that has ended."""
    return death_outcome(flight.keys, End.ABANDONED, "the run that had started it has ended")


def made_meanwhile(outcome: Outcome, is_there: Callable[[str], bool]) -> bool:
    """Whether a job that died had made something before: another go then gets further."""
    return outcome.progressed or any(is_there(key) for key in outcome.results)
