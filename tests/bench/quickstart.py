"""The quickstart as a new user runs it: how long it takes, and what its table says.

    python tests/bench/quickstart.py [--store FOLDER]

Runs `saevx` in processes of their own. In an empty store it records everything, which takes a few
minutes; short commands are the median of several.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from _report import at_least, at_most, report

FILE = Path(__file__).resolve().parents[2] / "experiments" / "quickstart.py"

ROUNDS = 5

HEAVY = "import sys; heavy = {'torch', 'zarr'} & set(sys.modules); assert not heavy, heavy"
"""What neither a plan nor a finished run may load; checked at the end of one of each."""


def saevx(*words: str, store: Path) -> float:
    """Wall seconds of a command that ends well."""
    began = time.perf_counter()
    command = [sys.executable, "-c", "from saevx.cli import main; main()", *words]
    environment = {**os.environ, "SAEVX_STORE": str(store)}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def loads_nothing_heavy(*words: str, store: Path) -> bool:
    """Whether a command ends without torch and zarr loaded."""
    code = f"from saevx.cli import main; main({list(words)!r}, standalone_mode=False); {HEAVY}"
    environment = {**os.environ, "SAEVX_STORE": str(store)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=False, stdout=subprocess.DEVNULL
    )
    return done.returncode == 0


def rows(store: Path) -> list[dict[str, Any]]:
    """The rows of block 9 with all train images."""
    with (store / "reports" / "quickstart" / "mean_ap.csv").open() as file:
        every = list(csv.DictReader(file))
    most = max(int(row["train images"]) for row in every)
    return [r for r in every if r["layer"] == "9" and int(r["train images"]) == most]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, help="an empty folder; else a temporary one")
    chosen = parser.parse_args().store
    with tempfile.TemporaryDirectory() as scratch:
        store = chosen or Path(scratch) / "store"
        first_s = saevx("run", str(FILE), store=store)
        times: dict[str, list[float]] = {"run again": [], "plan": [], "--help": [], "ls": []}
        for _ in range(ROUNDS):
            times["run again"].append(saevx("run", str(FILE), store=store))
            times["plan"].append(saevx("plan", str(FILE), store=store))
            times["--help"].append(saevx("--help", store=store))
            times["ls"].append(saevx("ls", store=store))
        light = [loads_nothing_heavy(word, str(FILE), store=store) for word in ("plan", "run")]
        table = rows(store)
    figures: dict[str, Any] = {"first run, s": round(first_s, 1)}
    figures |= {f"{name}, s": round(median(values), 3) for name, values in times.items()}
    bars = {
        "first run, s": at_most(first_s, 360),
        "run again, s": at_most(median(times["run again"]), 3),
        "plan, s": at_most(median(times["plan"]), 0.7),
        "--help, s": at_most(median(times["--help"]), 0.25),
        "ls, s": at_most(median(times["ls"]), 0.5),
        "plan and finished run without torch and zarr": at_least(sum(light), 2),
    }
    for n in sorted({int(row["prototypes"]) for row in table}):
        ap = {row["ViT"]: float(row["mAP"]) for row in table if int(row["prototypes"]) == n}
        constant = max(float(row["constant-score AP"]) for row in table)
        figures[f"mAP of n={n}"] = ap | {"constant": constant}
        bars[f"n={n}: pretrained over random"] = at_least(ap["ImgFocus"] / ap["RandomInit"], 1)
        bars[f"n={n}: random over constant"] = at_least(ap["RandomInit"] / constant, 1)
    return report("quickstart", figures, bars)


if __name__ == "__main__":
    raise SystemExit(main())
