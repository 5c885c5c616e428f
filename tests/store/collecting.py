"""The other side of a race: processes that collect, and runs that want what is collected."""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING, Any

from store.gc import cleanup as sweep
from store.gc import collector as gc
from store.gc.collector import collect, empty_trash, evictable
from store.gc.reachability import Reachability
from store.gc.roots import Roots, pin
from store.index.catalogue import Catalogue
from store.layout import Ref
from store.trash.contents import entries

from .actors import BELOW, KIND, Actor

if TYPE_CHECKING:
    from .racing import Race

FORM = "race 1"


def prepare(race: Race) -> None:
    """A pinned table, and the shards that it was made from."""
    first, key = Actor(race, 0, quick=False), race.pinned
    first.make(BELOW, key, [])
    first.make(KIND, key, [(BELOW, key)])
    pin(race.store, (KIND, key), [(KIND, key), (BELOW, key)])


class Visitor(Actor):
    """Runs an experiment again and again, each time on other scrap."""

    role = "visit"

    def run(self, rng: random.Random) -> None:
        roots = Roots(self.store)
        roots.refresh()
        kept = {
            target
            for run in roots.runs
            if run.path == f"/visit{self.i}.py" and run.finished
            for target in run.targets
        }
        while not self.race.is_over:
            keys = rng.sample(self.race.scrap, 2)
            graph: dict[Ref, list[Ref]] = {(BELOW, key): [] for key in keys}
            graph |= {(KIND, key): [(BELOW, key)] for key in keys}
            recording = self.record([(KIND, key) for key in keys], graph)
            self.seen = kept | {ref for ref in graph if self.store.find(*ref)}
            self.look_again()
            for ref, below in graph.items():
                self._get(ref, below)
                self.look_again()
            time.sleep(rng.random() * 0.01)
            self.look_again()
            recording.complete()
            self.log("did", "1", "visits")
            self.seen = kept = {(KIND, key) for key in keys}
            time.sleep(rng.random() * 0.01)
            self.look_again()
        self.record([], {}).complete()  # from here on it wants nothing

    def _get(self, ref: Ref, below: list[Ref]) -> None:
        while not self.store.find(*ref):
            lease = self.store.lease(*ref)
            if lease is None:
                time.sleep(0.005)
                continue
            with lease:
                if not self.store.find(*ref):
                    self.make(*ref, below)
        self.seen.add(ref)


class Collector(Actor):
    """Does what `saevx gc` does, without any grace, and lists the store."""

    role = "collect"

    def run(self, rng: random.Random) -> None:
        real = gc.move_to_trash_if_same

        def slowly(*args: Any) -> Any:
            time.sleep(rng.random() * 0.003)
            found = real(*args)
            time.sleep(rng.random() * 0.003)
            return found

        gc.move_to_trash_if_same = slowly
        while not self.race.is_over:
            self.collect()
            self.seen = {(KIND, self.race.pinned)}
            self.look_again()

    def collect(self) -> None:
        survey = Reachability(self.store, grace_s=0.0)
        survey.refresh()
        drop, _ = evictable(survey, BELOW, lambda manifest: None)
        done = collect(survey, [*survey.stale({}), *drop])
        for item, why in done.failed:
            self.log("fault", f"not moved: {item.path}: {why}")
        n_deleted = len(list(empty_trash(self.store, list(entries(self.store)))))
        for what, n in (("moved", len(done.moved)), ("spared", len(done.spared))):
            self.log("did", str(n), what)
        self.log("did", str(n_deleted), "deleted")
        self.log("did", "1", "collections")
        Catalogue(self.store, lambda manifest: {}, FORM).entries()


def settle(race: Race, i: int) -> None:
    """A last collection on a host, once nobody's heart beats any more."""
    time.sleep(0.5)
    sweep.SCRATCH_S = 0.0
    Collector(race, i, quick=True).collect()


def leftovers(race: Race) -> list[str]:
    """What should not be there after a collection on every host."""
    return [
        f"leftover: {os.path.relpath(folder, race.root)}/{name}"
        for folder, folders, files in os.walk(race.root)
        for name in [*folders, *files]
        if _is_leftover(os.path.relpath(folder, race.root).split("/"), name, files)
    ]


def _is_leftover(where: list[str], name: str, files: list[str]) -> bool:
    if name == ".clock":
        return False
    match where:
        case [_, ".build" | ".leases" | ".trash"] | [".gc"]:
            return True
        case [_, ".catalogue"]:
            return name != f"{FORM}.msgpack"
        case [".runs", _]:
            return name.startswith(".") or len(files) > 1
        case [".dropped", kind] if kind != BELOW:
            return True
    return where[0] in (".dropped", ".pins") and name.startswith(".")
