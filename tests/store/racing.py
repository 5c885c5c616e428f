"""Processes that make the same artifacts side by side, some of them killed at random points."""

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
from types import SimpleNamespace
from typing import Any

import numpy as np

from store import Store, heart, holder
from store.leftovers import remove_leftovers

KIND = "results"
N_HOSTS = 3
"""Processes believe to be on so many hosts: the dead are found by process id and by heartbeat."""

CALLS = ("mkdir", "open", "write", "fsync", "close", "rename", "unlink", "rmdir", "utime")
POINTS = (
    ("mkdir", "lease"),
    ("open", "lease"),
    ("write", "lease"),
    ("utime", "lease"),
    ("rename", "lease"),
    ("rmdir", "trash"),
    ("mkdir", "build"),
    ("write", "build"),
    ("fsync", "build"),
    ("rename", "build"),
    ("fsync", "home"),
)
"""Calls in the making of a lease, its heartbeat, its end, a build, its flush and its publishing."""

_write = os.write


@dataclass
class Race:
    """What happened in one store."""

    root: Path
    keys: list[str]
    kills: Counter[str] = field(default_factory=Counter)
    """By point, as in `rename build`: the call that was not made, and where."""
    builds: Counter[str] = field(default_factory=Counter)
    """How often each key began to be built."""
    winners: dict[str, set[str]] = field(default_factory=dict)
    """Which build each key was ever seen as, by any process."""
    faults: list[str] = field(default_factory=list)
    """All that is not as it should be: torn or missing artifacts, leftovers, two winners."""
    wall_s: float = 0.0

    @property
    def store(self) -> Store:
        return Store(self.root)

    @property
    def double_share(self) -> float:
        """Builds that were done again, of all."""
        n_builds = self.builds.total()
        return (n_builds - len(self.builds)) / n_builds if n_builds else 0.0


def race(
    root: Path,
    *,
    n_processes: int = 12,
    n_keys: int = 25,
    kills: int = 0,
    seed: int = 0,
    leases: bool = True,
    build_s: float = 0.0,
) -> Race:
    """Runs the processes until all have seen all keys; those killed are started again.

    At most so many are killed. Then comes a run without kills, and everything is examined.
    """
    rng = random.Random(seed)
    done = Race(root, [f"{rng.getrandbits(128):032x}" for _ in range(n_keys)])
    root.mkdir(parents=True)
    start = time.perf_counter()
    running: dict[int, int] = {}

    def spawn(i: int) -> None:
        killer = Killer.at_random(rng) if done.kills.total() + len(running) < kills else None
        order = rng.sample(done.keys, n_keys)
        running[
            _fork(lambda: _Worker(done, i, leases, build_s, quick=kills > 0).run(order, killer))
        ] = i

    for i in range(n_processes):
        spawn(i)
    while running:
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            i = running.pop(pid)
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
                done.kills["?"] += 1  # which one is in the log
                spawn(i)
            elif status:
                done.faults.append(f"a process ended with {status}: see {root / 'log'}")
        time.sleep(0.001)
    done.wall_s = time.perf_counter() - start
    for i in range(N_HOSTS):  # each host sweeps up after its own
        os.waitpid(_fork(lambda i=i: _Worker(done, i, leases, 0.0, quick=kills > 0).settle()), 0)
    _read_log(done)
    done.faults += _examine(done)
    return done


class _Worker:
    """One process."""

    def __init__(self, race: Race, i: int, leases: bool, build_s: float, quick: bool) -> None:
        self.race, self.store, self.leases, self.build_s = race, race.store, leases, build_s
        self._log = os.open(race.root / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        host = SimpleNamespace(nodename=f"host{i % N_HOSTS}")
        os.uname = lambda: host  # type: ignore[assignment,return-value]
        if quick:
            heart.BEAT_S = 0.02
            holder.STALE_S = 0.4
            holder.HALF_MADE_S = 0.4

    def log(self, *words: str) -> None:
        _write(self._log, (" ".join(words) + "\n").encode())

    def run(self, keys: list[str], killer: Killer | None) -> None:
        if killer is not None:
            killer.arm(self.log)
        left = list(keys)
        while left:
            before = len(left)
            left = [key for key in left if not self._see(key) and not self._make(key)]
            if len(left) == before:
                time.sleep(0.005)

    def settle(self) -> None:
        """A clean run, and what a collection sweeps up."""
        self.run(self.race.keys, None)
        if self.leases:
            deadline = time.monotonic() + 10
            while list(self.store.leases()) and time.monotonic() < deadline:
                for key in self.race.keys:
                    if lease := self.store.lease(KIND, key):
                        lease.release()
                time.sleep(0.05)
        for key in self.race.keys:
            remove_leftovers(self.store.root, KIND, key)

    def _see(self, key: str) -> bool:
        found = self.store.find(KIND, key)
        if found is not None:
            self.log("saw", key, found.manifest.attributes["by"])
        return found is not None

    def _make(self, key: str) -> bool:
        if not self.leases:
            return self._build(key)
        lease = self.store.lease(KIND, key)
        if lease is None:
            return False
        with lease:
            return self._see(key) or self._build(key)

    def _build(self, key: str) -> bool:
        self.log("build", key)
        by = os.urandom(8).hex()
        with self.store.draft(KIND, key) as draft:
            draft.write("values", np.arange(500))
            time.sleep(self.build_s)
            draft.write("a group/ids", np.arange(5))
            made = draft.publish(
                type="Thing",
                version=1,
                canonical=f'"{key}"',
                spec={},
                parents={},
                provenance={},
                attributes={"by": by},
            )
        self.log("saw", key, made.manifest.attributes["by"])
        return True


@dataclass
class Killer:
    """Kills this process in place of its n-th call of a kind, or in the middle of a write."""

    call: str | None
    area: str | None
    n: int

    @classmethod
    def at_random(cls, rng: random.Random) -> Killer:
        if rng.random() < 0.3:
            return cls(None, None, rng.randint(1, 150))
        call, area = rng.choice(POINTS)
        return cls(call, area, rng.randint(1, 5))

    def arm(self, log: Callable[..., None]) -> None:
        for name in CALLS:
            setattr(os, name, self._wrap(name, getattr(os, name), log))

    def _wrap(self, name: str, call: Callable[..., Any], log: Callable[..., None]) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            area = _area(args[0])
            if self.call in (None, name) and self.area in (None, area) and area != "elsewhere":
                self.n -= 1
                if self.n == 0:
                    if name == "write":
                        call(args[0], args[1][: len(args[1]) // 2])
                    log("kill", name, area)
                    os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return wrapped


def _area(where: Any) -> str:
    """What a path, or an open file, belongs to."""
    if isinstance(where, int):
        try:
            where = os.readlink(f"/proc/self/fd/{where}")
        except OSError:
            return "elsewhere"
    path = os.fspath(where)
    for area, folder in (("lease", ".leases"), ("build", ".build"), ("trash", ".trash")):
        if f"/{KIND}/{folder}" in path:
            return area
    # What is removed is named within its folder, which is open.
    return "trash" if "/" not in path else "home" if f"/{KIND}" in path else "elsewhere"


def _fork(function: Callable[[], None]) -> int:
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


def _read_log(race: Race) -> None:
    race.kills.clear()
    for line in (race.root / "log").read_text().splitlines():
        match line.split():
            case ["kill", call, area]:
                race.kills[f"{call} {area}"] += 1
            case ["build", key]:
                race.builds[key] += 1
            case ["saw", key, by]:
                race.winners.setdefault(key, set()).add(by)


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
    if sorted(race.store.keys(KIND)) != sorted(race.keys):
        faults.append("leftover: something stands where no artifact should")
    return faults
