"""Processes that make the same artifacts side by side, some of them killed at random points.

Beside them, if wanted, others collect what no run wants, and visitors run small experiments on the
scrap that is collected: what a run wants must stay while it is wanted, and go when it is not.
"""

from __future__ import annotations

import os
import random
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from store import Artifact, Store, gc, heart, holder
from store.gc import wait_for_collectors
from store.leftovers import remove_leftovers
from store.records import Ref
from store.roots import Recording

from .killing import COLLECTING, MAKING, Killer

KIND = "results"
BELOW = "shards"
"""Tables of scrap are made from these."""

N_HOSTS = 3
"""Processes believe to be on so many hosts: the dead are found by process id and by heartbeat."""

_write = os.write


@dataclass
class Race:
    """What happened in one store."""

    root: Path
    keys: list[str]
    """What every maker wants."""
    scrap: list[str] = field(default_factory=list)
    """Of each a table and the shards below it: what visitors want now and then."""
    pinned: str = ""
    kills: Counter[str] = field(default_factory=Counter)
    """By role and point, as in `make rename build`: the call that was not made, and where."""
    builds: Counter[str] = field(default_factory=Counter)
    """How often each key began to be built."""
    winners: dict[str, set[str]] = field(default_factory=dict)
    """Which build each key was ever seen as, by any process."""
    tally: Counter[str] = field(default_factory=Counter)
    """What collections and visitors did."""
    faults: list[str] = field(default_factory=list)
    """All that is not as it should be: torn, missing or collected artifacts, leftovers, ..."""
    wall_s: float = 0.0

    @property
    def store(self) -> Store:
        return Store(self.root)

    @property
    def double_share(self) -> float:
        """Builds that were done again, of all."""
        n_builds = self.builds.total()
        return (n_builds - len(self.builds)) / n_builds if n_builds else 0.0

    @property
    def gc_kills(self) -> int:
        """Kills at the points of collecting."""
        return sum(self.kills[f"collect {call} {area}"] for call, area in COLLECTING)

    @property
    def is_over(self) -> bool:
        """Whether all makers have seen all keys, and enough collections were killed."""
        return (self.root / "over").exists()


def race(
    root: Path,
    *,
    n_processes: int = 12,
    n_keys: int = 25,
    n_collectors: int = 0,
    gc_kills: int = 0,
    least_s: float = 0.0,
    kills: int = 0,
    seed: int = 0,
    leases: bool = True,
    build_s: float = 0.0,
) -> Race:
    """Runs the processes until all have seen all keys; those killed are started again.

    At most so many are killed. With collectors there are as many visitors, and it goes on until
    `gc_kills` collectors were killed, for `least_s` seconds at least. Then comes a run without
    kills, and a collection on every host, and everything is examined.
    """
    from .collecting import Collector, Visitor, leftovers, prepare, settle

    rng = random.Random(seed)
    done = Race(root, [f"{rng.getrandbits(128):032x}" for _ in range(n_keys)])
    root.mkdir(parents=True)
    if n_collectors:
        done.scrap = [f"{rng.getrandbits(128):032x}" for _ in range(8)]
        done.pinned = f"{rng.getrandbits(128):032x}"
        _wait(_fork(lambda: prepare(done)))
    quick = kills > 0
    roles: list[Callable[[int], Actor]] = [
        *[lambda i: Maker(done, i, quick, leases, build_s)] * n_processes,
        *[lambda i: Visitor(done, i, quick)] * n_collectors,
        *[lambda i: Collector(done, i, quick)] * n_collectors,
    ]
    start = time.perf_counter()
    running: dict[int, int] = {}
    n_gc_kills = 0

    def spawn(i: int) -> None:
        collects = i >= n_processes + n_collectors
        killer = Killer.at_random(rng, COLLECTING if collects else MAKING)
        wanted = done.kills.total() + len(running) < kills
        turn = rng.getrandbits(32)
        running[_fork(lambda: roles[i](i).start(turn, killer if wanted else None))] = i

    for i in range(len(roles)):
        spawn(i)
    while running:
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            i = running.pop(pid)
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
                done.kills["?"] += 1  # which one is in the log
                n_gc_kills += i >= n_processes + n_collectors
                spawn(i)
            elif status:
                done.faults.append(f"a process ended with {status}: see {root / 'log'}")
        late = time.perf_counter() - start >= least_s
        if late and n_gc_kills >= gc_kills and len(list(root.glob("done.*"))) == n_processes:
            (root / "over").touch()
        time.sleep(0.001)
    done.wall_s = time.perf_counter() - start
    for i in range(N_HOSTS):  # each host sweeps up after its own
        if _wait(_fork(lambda i=i: Maker(done, i, quick, leases, 0.0).settle())):
            done.faults.append("a process that settled crashed")
    for i in range(N_HOSTS if n_collectors else 0):
        if _wait(_fork(lambda i=i: settle(done, i))):
            done.faults.append("a process that settled crashed")
    _read_log(done)
    done.faults += _examine(done) + (leftovers(done) if n_collectors else [])
    return done


class Actor:
    """One process."""

    role = ""

    def __init__(self, race: Race, i: int, quick: bool) -> None:
        self.race, self.store, self.i = race, race.store, i
        self.seen: set[Ref] = set()
        """What this process has found, and wants: it must stay."""
        self._log = os.open(race.root / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        here = os.uname()
        host = type(here)((here.sysname, f"host{i % N_HOSTS}", *here[2:]))
        os.uname = lambda: host  # type: ignore[assignment]
        if quick:
            heart.BEAT_S = 0.02
            holder.STALE_S = 0.4
            holder.HALF_MADE_S = 0.4
            gc.ANNOUNCED_S = 1.0
            gc.PATIENCE_S = 3.0

    def log(self, *words: str) -> None:
        _write(self._log, (" ".join(words) + "\n").encode())

    def start(self, seed: int, killer: Killer | None) -> None:
        if killer is not None:
            killer.arm(lambda what, *point: self.log(what, self.role, *point))
        self.run(random.Random(seed))

    def run(self, rng: random.Random) -> None:
        raise NotImplementedError

    def record(self, targets: list[Ref], graph: dict[Ref, list[Ref]]) -> Recording:
        """What `saevx run` does before it looks at the store."""
        path = Path(f"/{self.role}{self.i}.py")
        recording = Recording(self.store, path, path.stem)
        recording.want(targets, graph)
        if recording.problem:
            self.log("fault", "not recorded:", recording.problem)
        wait_for_collectors(self.store)
        return recording

    def look_again(self) -> None:
        """What was seen must be there still."""
        for kind, key in self.seen:
            if why := self.store.absence(kind, key):
                self.log("fault", f"collected: {kind}/{key} is {why}, by {self.role} {self.i}")

    def make(self, kind: str, key: str, parents: list[Ref], build_s: float = 0.0) -> Artifact:
        self.log("build", key)
        by = os.urandom(8).hex()
        with self.store.draft(kind, key) as draft:
            draft.write("values", np.arange(500))
            time.sleep(build_s)
            draft.write("a group/ids", np.arange(5))
            return draft.publish(
                type="Thing",
                version=1,
                canonical=f'"{key}"',
                spec={},
                parents={str(i): {"kind": k, "key": p} for i, (k, p) in enumerate(parents)},
                provenance={},
                attributes={"by": by},
            )


class Maker(Actor):
    """Makes all keys, or waits until others have."""

    role = "make"

    def __init__(self, race: Race, i: int, quick: bool, leases: bool, build_s: float) -> None:
        super().__init__(race, i, quick)
        self.leases, self.build_s = leases, build_s

    def run(self, rng: random.Random) -> None:
        self._run(rng)
        (self.race.root / f"done.{self.i}").touch()
        while self.race.scrap and not self.race.is_over:
            time.sleep(0.1)
            self._run(rng)

    def _run(self, rng: random.Random) -> None:
        keys = self.race.keys
        refs = [(KIND, key) for key in keys]
        recording = self.record(refs, {ref: [] for ref in refs}) if self.race.scrap else None
        left = rng.sample(keys, len(keys))
        while left:
            before = len(left)
            left = [key for key in left if not self._see(key) and not self._make(key)]
            self.look_again()
            if len(left) == before:
                time.sleep(0.005)
        if recording:
            recording.complete()
        self.look_again()

    def settle(self) -> None:
        """A clean run, and what a collection sweeps up."""
        self.run(random.Random(0))
        if self.leases:
            deadline = time.monotonic() + 10
            while list(self.store.leases(KIND, self.race.keys)) and time.monotonic() < deadline:
                for key in self.race.keys:
                    if lease := self.store.lease(KIND, key):
                        lease.release()
                time.sleep(0.05)
        for key in self.race.keys:
            remove_leftovers(self.store.root, KIND, key)

    def _see(self, key: str) -> bool:
        found = self.store.find(KIND, key)
        if found is not None:
            self._saw(found)
        return found is not None

    def _saw(self, found: Artifact) -> None:
        self.seen.add((found.kind, found.key))
        self.log("saw", found.key, found.manifest.attributes["by"])

    def _make(self, key: str) -> bool:
        if not self.leases:
            self._saw(self.make(KIND, key, [], self.build_s))
            return True
        lease = self.store.lease(KIND, key)
        if lease is None:
            return False
        with lease:
            if not self._see(key):
                self._saw(self.make(KIND, key, [], self.build_s))
            return True


def _fork(function: Callable[[], Any]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def _wait(pid: int) -> int:
    return os.waitpid(pid, 0)[1]


def _read_log(race: Race) -> None:
    race.kills.clear()
    for line in (race.root / "log").read_text().splitlines():
        match line.split():
            case ["kill", *point]:
                race.kills[" ".join(point)] += 1
            case ["build", key]:
                race.builds[key] += 1
            case ["saw", key, by]:
                race.winners.setdefault(key, set()).add(by)
            case ["did", n, *what]:
                race.tally[" ".join(what)] += int(n)
            case ["fault", *words]:
                race.faults.append(" ".join(words))


def _examine(race: Race) -> list[str]:
    faults = []
    for key in race.keys:
        found = race.store.find(KIND, key)
        if found is None:
            faults.append(f"missing: {key}")
            continue
        faults += [f"torn: {key}: {fault}" for fault in found.verify()]
        if race.winners[key] != {found.manifest.attributes["by"]}:
            faults.append(f"winners: {key} was seen as {len(race.winners[key])} builds")
    for folder in (".build", ".leases"):
        path = race.root / KIND / folder
        names = os.listdir(path) if path.exists() else []
        faults += [f"leftover: {folder}/{name}" for name in names if name != ".clock"]
    wanted = sorted([*race.keys, *filter(None, [race.pinned])])
    if sorted(race.store.keys(KIND)) != wanted:
        faults.append("leftover: something stands where no artifact should")
    return faults
