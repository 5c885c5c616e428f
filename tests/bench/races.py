"""Twelve processes make the same 25 artifacts in one store while they are killed at random points.

    python tests/bench/races.py [--kills 300] [--gc-kills 100] [--processes 12] [--keys 25]

Beside them three collect what no run wants, without any grace, empty the trash and list the store,
and three run small experiments on what is collected, again and again.

Kills (SIGKILL) come in place of calls that take, keep and release leases, write and flush builds,
and publish, or halfway through a write; and of calls that announce a collection, move to the trash,
put back, delete in the trash, keep the manifest of what is given up, and write the catalogue.
Killed processes are started again. A third of the processes each believe to be on a host of their
own, so that dead ones are found by process id and by heartbeat. What a process has seen and wants
it looks for again and again. After that one clean run and one collection on every host, and every
byte is compared. Then the same without kills and collections, to count what is made twice, and once
more without leases, for comparison.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from _report import Bar, at_least, at_most, report

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from store import Store
from tests.store.actors import KIND
from tests.store.racing import Race, race

GC_KILLS = 15
"""A round goes on until so many collectors were killed."""

FAULTS = {
    "torn": "torn",
    "missing": "missing",
    "collected": "live_artifact_collected",
    "winners": "more_than_one_winner",
    "leftover": "leftover",
    "a process": "crashed",
}
"""How faults begin, and the names of the bars that none may be over."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--gc-kills", type=int, default=100)
    parser.add_argument("--processes", type=int, default=12)
    parser.add_argument("--keys", type=int, default=25)
    options = parser.parse_args()
    sizes = {"n_processes": options.processes, "n_keys": options.keys}

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        killed: list[Race] = []
        kills: Counter[str] = Counter()
        gc_kills = 0
        while kills.total() < options.kills or gc_kills < options.gc_kills:
            n = len(killed)
            last = race(
                root / f"killed{n}", n_collectors=3, gc_kills=GC_KILLS, kills=10**6, seed=n, **sizes
            )
            killed.append(last)
            kills += last.kills
            gc_kills += last.gc_kills
            print(f"round {n}: {last.kills.total()} kills, {last.gc_kills} of gc", flush=True)
        # Long enough for all to meet at one key, short enough that looking costs more than making.
        whole = [race(root / f"whole{i}", seed=i, build_s=i / 100, **sizes) for i in range(4)]
        bare = race(root / "bare", build_s=0.01, leases=False, **sizes)
        lease_ms = cost_of_a_lease_ms(Store(root / "alone"))

    runs = [*killed, *whole, bare]
    for fault in (fault for run in runs for fault in run.faults):
        print(fault)
    builds = sum(run.builds.total() for run in whole)
    figures: dict[str, object] = {
        "cores": os.cpu_count(),
        "processes": options.processes,
        "keys": options.keys,
        "rounds_with_kills": len(killed),
        "kills_by_point": dict(kills.most_common()),
        "collected_beside_kills": dict(sum((run.tally for run in killed), Counter())),
        "builds_without_kills": builds,
        "double_share_without_leases": bare.double_share,
        "wall_s_with_kills": sum(run.wall_s for run in killed),
        "lease_and_release_ms": lease_ms,
    }
    made_twice = builds - sum(len(run.builds) for run in whole)
    bars: dict[str, Bar] = {
        "kills": at_least(kills.total(), options.kills),
        "gc_kills": at_least(gc_kills, options.gc_kills),
        "double_share": at_most(made_twice / builds, 0.02),
    }
    for what, name in FAULTS.items():
        n = sum(fault.startswith(what) for run in runs for fault in run.faults)
        bars[name] = at_most(n, 0)
    bars["other_faults"] = at_most(
        sum(not fault.startswith(tuple(FAULTS)) for run in runs for fault in run.faults), 0
    )
    return report("races", figures, bars)


def cost_of_a_lease_ms(store: Store, n: int = 500) -> float:
    """What a lease costs that nobody else wants."""
    start = time.perf_counter()
    for i in range(n):
        with store.lease(KIND, f"{i:032x}") or sys.exit("not taken"):
            pass
    return (time.perf_counter() - start) / n * 1e3


if __name__ == "__main__":
    raise SystemExit(main())
