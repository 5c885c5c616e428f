"""What dispatch costs: submitting many targets, and processes of this machine against bare ones.

Run as `python tests/bench/dispatch.py [--rounds N]`. The submission needs a Slurm that answers to
`sinfo`, and is left out where there is none. Bare processes are inline runs, started together, of
which each makes its share of the same specs.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from _report import Bar, at_least, at_most, median_wall_s, report, wall_s

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "saevx"))
from dispatching import Place

N_SUBMITTED = 1000
N_PROCESSES = 2
N_MADE, MAKE_S = 80, 0.25


def submission_s(rounds: int) -> float:
    """Seconds of `saevx run --detach` over many targets, each a batch of its own."""
    seconds = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            place = Place(Path(folder))
            place.profile('profile = "p"\n[profiles.p]\nmemory_gb = 0.3\n')
            file = place.write(f"targets = [Leaf(value=value) for value in range({N_SUBMITTED})]")
            ran = []
            seconds.append(wall_s(lambda: ran.append(place.saevx("run", file, "--detach"))))  # noqa: B023
            place.saevx("cancel", file)
            if ran[0].code != 3:
                raise SystemExit(f"the submission failed: {ran[0]}")
    return statistics.median(seconds)


def local_walls(rounds: int) -> dict[str, float]:
    """Seconds that making the same specs takes as one local run, and as bare processes."""

    def targets(first: int, step: int) -> str:
        values = f"range({first}, {N_MADE}, {step})"
        return f"targets = [Leaf(value=value, pause_s={MAKE_S}) for value in {values}]"

    def dispatched() -> None:
        with tempfile.TemporaryDirectory() as folder:
            place = Place(Path(folder))
            place.profile("")
            ran = place.saevx("run", place.write(targets(0, 1)), "--jobs", str(N_PROCESSES))
            if ran.code != 0:
                raise SystemExit(f"the local run failed: {ran}")

    def bare() -> None:
        with tempfile.TemporaryDirectory() as folder:
            place = Place(Path(folder))
            place.profile("")
            files = [place.write(targets(i, N_PROCESSES), f"{i}.py") for i in range(N_PROCESSES)]
            for process in [place.start("run", file) for file in files]:
                out = process.communicate()
                if process.returncode != 0:
                    raise SystemExit(f"a bare process failed: {out}")

    return median_wall_s({"local": dispatched, "bare": bare}, rounds)


def slurm_answers() -> bool:
    if shutil.which("sinfo") is None:
        return False
    return subprocess.run(["sinfo"], capture_output=True, check=False).returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    walls = local_walls(rounds)
    figures: dict[str, object] = {f"{name}_wall_s": wall for name, wall in walls.items()}
    bars: dict[str, Bar] = {"local_throughput": at_least(walls["bare"] / walls["local"], 0.8)}
    if slurm_answers():
        figures["n_submitted"] = N_SUBMITTED
        bars["submission_s"] = at_most(submission_s(rounds), 10.0)
    return report("dispatch", figures, bars)


if __name__ == "__main__":
    raise SystemExit(main())
