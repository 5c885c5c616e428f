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

from store import Store

from .actors import KIND, N_HOSTS, Actor, Maker
from .collecting import Collector, Visitor, leftovers, prepare, settle
from .killing import COLLECTING, MAKING, Killer


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
        made = len(list(root.glob("done.*"))) == n_processes
        if late and made and n_gc_kills >= gc_kills and not done.is_over and _was_busy(done):
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


def _was_busy(race: Race) -> bool:
    """Whether collectors and visitors did enough to tell something, on a slow machine too."""
    return not race.scrap or min(_tally(race)[what] for what in ("visits", "moved", "deleted")) > 3


def _tally(race: Race) -> Counter[str]:
    found: Counter[str] = Counter()
    for line in (race.root / "log").read_text().splitlines():
        match line.split():
            case ["did", n, *what]:
                found[" ".join(what)] += int(n)
    return found


def _read_log(race: Race) -> None:
    race.kills.clear()
    race.tally = _tally(race)
    for line in (race.root / "log").read_text().splitlines():
        match line.split():
            case ["kill", *point]:
                race.kills[" ".join(point)] += 1
            case ["build", key]:
                race.builds[key] += 1
            case ["saw", key, by]:
                race.winners.setdefault(key, set()).add(by)
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
