"""The processes of a race: what all do, and those that make all keys."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from store import StoredArtifact
from store.artifact.staging import remove_dead_builds
from store.gc import collector as gc
from store.gc.collector import wait_for_collectors
from store.gc.roots import RunRecording
from store.layout import Ref
from store.locks import heartbeat as heartbeats
from store.locks import liveness

from .killing import Killer

if TYPE_CHECKING:
    from .racing import Race

KIND = "results"
BELOW = "shards"
"""Tables of scrap are made from these."""

N_HOSTS = 3
"""Processes believe to be on so many hosts: the dead are found by process id and by heartbeat."""

_write = os.write


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
            heartbeats.BEAT_S = 0.02
            liveness.STALE_S = 0.4
            liveness.INCOMPLETE_S = 0.4
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

    def record(self, targets: list[Ref], graph: dict[Ref, list[Ref]]) -> RunRecording:
        """What `saevx run` does before it looks at the store."""
        path = Path(f"/{self.role}{self.i}.py")
        recording = RunRecording(self.store, path, path.stem)
        recording.add_targets(targets, graph)
        if recording.problem:
            self.log("fault", "not recorded:", recording.problem)
        wait_for_collectors(self.store)
        return recording

    def look_again(self) -> None:
        """What was seen must be there still."""
        for kind, key in self.seen:
            if why := self.store.absence(kind, key):
                self.log("fault", f"collected: {kind}/{key} is {why}, by {self.role} {self.i}")

    def make(self, kind: str, key: str, parents: list[Ref], build_s: float = 0.0) -> StoredArtifact:
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
            deadline = time.monotonic() + 60
            while list(self.store.leases(KIND, self.race.keys)) and time.monotonic() < deadline:
                for key in self.race.keys:
                    if lease := self.store.lease(KIND, key):
                        lease.release()
                time.sleep(0.05)
        for key in self.race.keys:
            remove_dead_builds(self.store.root, KIND, key)

    def _see(self, key: str) -> bool:
        found = self.store.find(KIND, key)
        if found is not None:
            self._saw(found)
        return found is not None

    def _saw(self, found: StoredArtifact) -> None:
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
