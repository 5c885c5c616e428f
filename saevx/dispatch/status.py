"""What is queued, running and over, for people and programs. Reads only."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from store.owner import Life

from ..errors import StoreError
from . import slurm
from .executors import local_life
from .flights import Flight
from .folder import RunFolder, active_runs, all_runs
from .followers import Follower, find_followers
from .outcomes import facts
from .records import Element, End, Outcome

if TYPE_CHECKING:
    from store import Store


_WELL = {End.MADE, End.CAME, End.PART}


@dataclass
class ElementState:
    """One element that has not ended well."""

    recipe: str
    keys: list[str]
    state: str
    """`running`, `waiting`, `unknown` (it left no outcome, and nobody runs it), or an `End`."""
    job: str
    parts: list[int] = field(default_factory=list)
    """Which parts it makes; none where it makes whole artifacts."""
    node: str = ""
    told: str = ""
    """Why it waits, or why it failed."""
    done: int = 0
    total: int = 0
    unit: str = ""
    n_made: int = 0
    rate: float = 0.0
    wall_s: float = 0.0
    log: str = ""

    @property
    def left_s(self) -> float | None:
        """Seconds until the batch that runs is done, at its present rate."""
        return (self.total - self.done) / self.rate if self.rate > 0 else None

    @property
    def document(self) -> dict[str, Any]:
        return {**self.__dict__, "left_s": self.left_s}


@dataclass
class RunState:
    """One run."""

    run: str
    name: str
    executor: str
    user: str
    began: float
    path: str
    follower: Follower | None = None
    """The Slurm job that runs `saevx run` of its file."""
    standing: dict[str, set[str]] = field(default_factory=dict)
    """State -> keys of artifacts that stand so; those made in parts may stand in several ways."""
    elements: list[ElementState] = field(default_factory=list)

    @property
    def artifacts(self) -> dict[str, int]:
        """How many artifacts stand how."""
        return {state: len(keys) for state, keys in self.standing.items()}

    @property
    def document(self) -> dict[str, Any]:
        told = {name: value for name, value in self.__dict__.items() if name != "standing"}
        elements = [element.document for element in self.elements]
        follower = self.follower.document if self.follower else None
        told |= {"follower": follower, "artifacts": self.artifacts, "elements": elements}
        return told


def look(store: Store) -> list[RunState]:
    """The runs of which something may go on, oldest first."""
    folders = active_runs(store)
    arrays = {
        at_slurm
        for folder in folders
        for array in folder.arrays()
        if (at_slurm := slurm.array_of(folder.job_of(array.name) or ""))
    }
    live = slurm.states(arrays, {folder.info.user for folder in folders})
    runs = [_look_at(folder, live) for folder in folders]
    for follower in find_followers(store):
        followed = [run for run in runs if run.run.startswith(follower.prefix)]
        if not followed:  # nothing is sent off yet, or it is between two stages
            runs.append(RunState("", follower.name, "slurm", follower.user, 0.0, ""))
        (followed or runs)[-1].follower = follower
    return runs


def _look_at(folder: RunFolder, live: dict[slurm.Job, slurm.JobState] | None) -> RunState:
    info = folder.info
    seen = RunState(folder.name, info.name, info.executor, info.user, info.began, info.path)
    done = folder.outcome_names()
    for array in folder.arrays():
        job = folder.job_of(array.name) or ""
        for index, batches in enumerate(array.elements):
            keys = [key for batch in batches for key in batch]
            flight = Flight(folder, Element(folder.name, array.name, index), job)
            outcome = folder.outcome(array.name, index) if (array.name, index) in done else None
            if outcome is not None:
                _count(seen, outcome)
                ends = {result.end for result in outcome.results.values()}
                if not ends <= _WELL:
                    seen.elements.append(_over(flight, array.recipe, keys, outcome))
                continue
            element = _live(flight, array.recipe, keys, live)
            seen.standing.setdefault(element.state, set()).update(keys)
            seen.elements.append(element)
    return seen


def _count(seen: RunState, outcome: Outcome) -> None:
    for key, result in outcome.results.items():
        if result.end is not End.PART:
            seen.standing.setdefault(result.end.value, set()).add(key)


def _over(flight: Flight, recipe: str, keys: list[str], outcome: Outcome) -> ElementState:
    bad = [r for r in outcome.results.values() if r.end not in _WELL]
    return ElementState(
        recipe=recipe,
        keys=keys,
        state=bad[0].end.value,
        job=_job_of(flight) or outcome.job,
        parts=flight.parts,
        node=outcome.host,
        told=", ".join(filter(None, (bad[0].message.strip().rpartition("\n")[2], _facts(outcome)))),
        wall_s=outcome.wall_s,
        log=str(flight.folder.log(flight.element.array, flight.element.at)),
    )


def _facts(outcome: Outcome) -> str:
    return facts(outcome) if outcome.exit_code else ""


def _live(
    flight: Flight,
    recipe: str,
    keys: list[str],
    live: dict[slurm.Job, slurm.JobState] | None,
) -> ElementState:
    array, index = flight.element.array, flight.element.at
    log = flight.folder.log(array, index)
    element = ElementState(recipe, keys, "unknown", _job_of(flight), flight.parts, log=str(log))
    if flight.at_slurm and live is not None:
        state = live.get(flight.slurm_job)
        if state is not None:
            element.state = "running" if state.running else "waiting"
            element.node, element.told = state.node, "" if state.running else state.reason
    elif flight.is_local and local_life(flight.job) is not Life.DEAD:
        element.state = "waiting"
    progress = flight.folder.progress(array, index)
    if progress is not None and flight.is_local:
        element.job = progress.job
    if progress is not None and (element.state == "running" or flight.is_local):
        if element.state == "waiting":
            element.state = "running"
        element.node = element.node or progress.host
        element.done, element.total, element.unit = progress.done, progress.total, progress.unit
        element.rate, element.n_made = progress.rate, progress.n_made
        element.wall_s = round(time.time() - progress.began, 1)
    return element


def _job_of(flight: Flight) -> str:
    if flight.at_slurm:
        return f"{flight.slurm_job.array}_{flight.slurm_job.at}"
    return ""


def find_flights(store: Store, key: str) -> Iterator[Flight]:
    """The elements that made, make or will make what has keys that begin so; the latest first."""
    for folder in reversed(all_runs(store)):
        found = []
        for array in folder.arrays():
            for index, batches in enumerate(array.elements):
                if any(one.startswith(key) for batch in batches for one in batch):
                    element = Element(folder.name, array.name, index)
                    flight = Flight(folder, element, folder.job_of(array.name) or "")
                    found.append((array.submitted, flight))
        yield from (flight for _, flight in sorted(found, key=lambda one: -one[0]))


def find_latest(store: Store, key: str) -> list[Flight]:
    """The latest element for a key: several where they share its parts.

    Raises StoreError for none, or several keys.
    """
    flights = list(find_flights(store, key))
    if not flights:
        raise StoreError(
            f"no job in {store.root} was to make something whose key begins with {key!r}; "
            "`saevx status` shows those that go on"
        )
    keys = {one for f in flights for one in f.keys if one.startswith(key)}
    if len(keys) > 1:
        raise StoreError(f"{len(keys)} keys begin with {key!r}; give more digits")
    latest = flights[0].element
    return [f for f in flights if f.element[:2] == latest[:2]]
