"""Concurrent runs and garbage collections, one process each, and a count of what went wrong.

Every run does what `saevx run` does, over random targets. What it finds in the store once it is
recorded must stay there until the next run of its file begins. Collections have no grace time: they
move all that no run wants at once, and empty the trash.

Both pause at random points where the protocol in store/gc/collector.py names a race.

    python side_by_side.py (run|gc) STORE NUMBER SECONDS
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from saevx import Artifact, Batch, open_workspace, recipe
from saevx import session as sessions
from saevx.dispatch.execution import Execution
from saevx.errors import explain
from saevx.experiments.experiment import Experiment
from saevx.resolve.plan import graph_of
from saevx.session import Session
from store import Store
from store.gc import collector as gc
from store.gc import roots
from store.gc.collector import collect, empty_trash
from store.gc.reachability import Reachability
from store.layout import Ref
from store.trash.contents import entries


class Bud(Artifact):
    kind: ClassVar = "shards"
    value: int


class Twig(Artifact):
    kind: ClassVar = "checkpoints"
    leaf: Bud
    factor: int


class Bough(Artifact):
    kind: ClassVar = "results"
    left: Twig
    right: Twig


@recipe(Bud, batch_by=lambda spec: 0)
def make_leaves(batch: Batch[Bud]) -> None:
    for spec in batch.specs:
        batch.draft(spec).write("x", np.arange(100) + spec.value)
        batch.publish(spec)


@recipe(Twig)
def make_twig(batch: Batch[Twig]) -> None:
    (spec,) = batch.specs
    batch.draft(spec).write("x", batch.input(spec.leaf).array("x").read() * spec.factor)
    batch.publish(spec)


@recipe(Bough)
def make_branch(batch: Batch[Bough]) -> None:
    (spec,) = batch.specs
    left, right = (batch.input(twig).array("x").read() for twig in (spec.left, spec.right))
    batch.draft(spec).write("x", left + right)
    batch.publish(spec)


def draw(rng: random.Random) -> list[Artifact]:
    """Return a few random artifacts of three levels, each made from those of the level below."""

    def twig() -> Twig:
        return Twig(leaf=Bud(value=rng.randrange(8)), factor=rng.randrange(1, 4))

    return [
        rng.choice([Bough(left=twig(), right=twig()), twig(), twig().leaf])
        for _ in range(rng.randrange(1, 5))
    ]


def pause_around(rng: random.Random, module: Any, name: str, most_s: float) -> None:
    """Sleep for up to `most_s` before and after each call of `module.name`."""
    real = getattr(module, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        time.sleep(rng.random() * most_s)
        found = real(*args, **kwargs)
        time.sleep(rng.random() * most_s)
        return found

    setattr(module, name, wrapped)


def run_for(root: Path, number: int, seconds: float) -> Counter[str]:
    """Run one experiment file again and again; every fifth run is one from a notebook."""
    rng = random.Random(number)
    pause_around(rng, roots, "write_record", 0.004)
    pause_around(rng, sessions, "make_plan", 0.01)
    workspace = open_workspace(root)
    store = workspace.store
    tally: Counter[str] = Counter()
    end = time.monotonic() + seconds
    kept: set[Ref] = set()
    """What the last complete run of the file keeps from being collected."""
    while time.monotonic() < end:
        targets = draw(rng)
        path = None if rng.random() < 0.2 else root.parent / f"experiment{number}.py"
        experiment = Experiment(path, targets, is_file=path is not None)
        session = Session(experiment, workspace, Execution("inline"))
        plan = session.plan(targets)
        mine = {ref for ref in graph_of(targets, session.keys) if store.find(*ref)}
        check(store, mine | kept, "planned", tally)
        plan, outcome = session.make(plan)
        tally["runs"] += 1
        tally["made"] += len(outcome.made)
        for error in outcome.failed.values():
            tally["failed"] += 1
            print(explain(error), file=sys.stderr)
        mine |= {(plan.nodes[key].spec.kind, key) for key in plan.targets}
        check(store, mine | kept, "made", tally)
        if path is None:
            session.recording.close()
        else:
            session.recording.complete()
            kept = mine
        time.sleep(rng.random() * 0.02)
        check(store, kept, "kept", tally)
    return tally


def check(store: Store, refs: set[Ref], when: str, tally: Counter[str]) -> None:
    for kind, key in refs:
        tally["checks"] += 1
        if why := store.absence(kind, key):
            tally["missing"] += 1
            print(f"{when}: {kind}/{key} is {why}", file=sys.stderr)


def collect_for(root: Path, number: int, seconds: float) -> Counter[str]:
    store = Store(root)
    rng = random.Random(number)
    pause_around(rng, gc, "move_to_trash_if_same", 0.002)
    pause_around(rng, gc, "_put_back_wanted", 0.005)
    tally: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = Reachability(store, grace_s=0.0)
        found.refresh()
        done = collect(found, list(found.stale({})))
        tally["collections"] += 1
        tally["moved"] += len(done.moved)
        tally["spared"] += len(done.spared)
        for item, why in done.failed:
            tally["not moved"] += 1
            print(f"{item.path}: {why}", file=sys.stderr)
        tally["deleted"] += len(list(empty_trash(store, list(entries(store)))))
    return tally


def side_by_side(
    root: Path, seconds: float, n_runners: int = 4, n_collectors: int = 1
) -> tuple[Counter[str], str]:
    """Return the sums of the counts of all processes, and their error messages."""
    roles = ["run"] * n_runners + ["gc"] * n_collectors
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, role, str(root), str(i), str(seconds)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, role in enumerate(roles)
    ]
    total: Counter[str] = Counter()
    said = ""
    for process in processes:
        out, err = process.communicate()
        said += err
        total["crashed"] += process.returncode != 0
        total.update(json.loads(out) if process.returncode == 0 else {})
    store = Store(root)
    total["torn"] = sum(bool(artifact.verify()) for artifact in store.scan())
    return total, said


if __name__ == "__main__":
    role, folder, number, seconds = sys.argv[1:]
    work = {"run": run_for, "gc": collect_for}[role]
    print(json.dumps(work(Path(folder), int(number), float(seconds))))
