"""Collections in a loop against four runners: nothing that a run wants is ever missing.

    python tests/bench/gc.py [--seconds 60] [--runners 4] [--collectors 1] [--artifacts 20000]

Then, over a store of many artifacts of which half are stale: how long a survey takes, what it adds
to look again, and how long a run may have to wait for a collection.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from _report import at_least, at_most, report, wall_s

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "saevx"))
from side_by_side import side_by_side

from store import Store
from store.gc import collector as gc
from store.gc.collector import collect
from store.gc.reachability import Reachability
from store.gc.roots import RunRecording
from store.io import digest


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--runners", type=int, default=4)
    parser.add_argument("--collectors", type=int, default=1)
    parser.add_argument("--artifacts", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally, said = side_by_side(
            Path(folder) / "store", options.seconds, options.runners, options.collectors
        )
        print(said, end="")
        print(dict(tally), flush=True)
        large = many(Path(folder) / "large", options.artifacts)
    figures: dict[str, object] = {
        "cores": os.cpu_count(),
        "seconds": options.seconds,
        "runners": options.runners,
        "collectors": options.collectors,
        **{name.replace(" ", "_"): n for name, n in sorted(tally.items())},
        **large,
    }
    bars = {name: at_most(tally[name], 0) for name in ("missing", "failed", "crashed", "torn")}
    bars["moved"] = at_least(tally["moved"], 100)
    return report("gc", figures, bars)


def many(root: Path, n: int) -> dict[str, object]:
    """A store of n small artifacts, every second one wanted by a run, is surveyed and collected."""
    store = Store(root)
    fsync, os.fsync = os.fsync, lambda fd: None
    keys = [digest(str(i).encode()) for i in range(n)]
    for i, key in enumerate(keys):
        with store.draft("results", key) as draft:
            parents = {"below": {"kind": "results", "key": keys[i - 2]}} if i >= 2 else {}
            draft.publish(
                type="T", version=1, canonical="{}", spec={}, parents=parents, provenance={}
            )
    os.fsync = fsync
    recording = RunRecording(store, Path("/x.py"), "x")
    last = ("results", keys[n - 2])
    recording.add_targets([last], {last: ()})
    survey = Reachability(store, grace_s=0.0)
    survey_s = wall_s(survey.refresh)
    again_s = wall_s(survey.refresh)
    stale = list(survey.stale({}))
    announced: list[float] = []
    real = gc._withdraw
    gc._withdraw = lambda file: (  # type: ignore[assignment]
        announced.append(time.time() - file.stat().st_mtime),
        real(file),
    )
    collect_s = wall_s(lambda: collect(survey, stale))
    gc._withdraw = real
    assert len(stale) == n // 2
    assert sum(1 for _ in store.keys("results")) == n - n // 2
    return {
        "artifacts": n,
        "survey_s": survey_s,
        "survey_again_s": again_s,
        "collect_half_s": collect_s,
        "longest_announcement_s": max(announced),
    }


if __name__ == "__main__":
    raise SystemExit(main())
