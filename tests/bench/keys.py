"""Content digests of a large image set, and the plan after them.

Run as `python tests/bench/keys.py [--files N] [--rounds N] [--folder FOLDER]`. Writes N files of
100 kB, which must fit into the page cache. Two sides digest all of them: `ImageFolder.fingerprint`
without a cache, and a plain loop in one thread. Then `saevx plan` of shards over the set runs as a
new process: the first time it reads every file, later it only stats them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import xxhash
from _report import at_most, median_wall_s, report, wall_s

from spec import ImageFolder, Site
from spec.files.digests import SETTLED_NS

N_BYTES = 100_000

EXPERIMENT = """
from saevx import ImageFolder, RandomInit, Shards, ViT

vit = ViT(name="vit_small_patch14_dinov2", weights=RandomInit(seed=0))
targets = [Shards(images=ImageFolder(root={root!r}), vit=vit, layer=layer) for layer in range(3)]
"""


def write_files(root: Path, n: int) -> None:
    """Write different files of equal size, 1,000 in a folder."""
    body = os.urandom(N_BYTES - 8)
    for i in range(n):
        folder = root / f"{i // 1000:03}"
        if i % 1000 == 0:
            folder.mkdir(parents=True)
        (folder / f"{i:06}.jpg").write_bytes(i.to_bytes(8, "little") + body)


def plain_loop(root: Path) -> list[str]:
    paths = sorted(path for path in root.rglob("*.jpg"))
    return [xxhash.xxh3_128_hexdigest(path.read_bytes()) for path in paths]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        root, work = Path(name, "images"), Path(name, "work")
        write_files(root, options.files)
        work.mkdir()
        (work / "layers.py").write_text(EXPERIMENT.format(root=str(root)))
        images = ImageFolder(root=str(root))
        sides = {
            "fingerprint": lambda: images.fingerprint(Site()),
            "loop": lambda: plain_loop(root),
        }
        seconds = median_wall_s(sides, options.rounds)
        time.sleep(SETTLED_NS / 1e9)  # digests of files just written are not remembered

        def plan() -> None:
            command = [sys.executable, "-m", "saevx", "plan", "layers.py"]
            subprocess.run(command, cwd=work, check=True, stdout=subprocess.DEVNULL)

        first_s = wall_s(plan)
        later_s = statistics.median(wall_s(plan) for _ in range(2 * options.rounds + 1))
    figures = {
        "cores": os.cpu_count(),
        "files": options.files,
        "loop_s": seconds["loop"],
        "times_the_loop": seconds["fingerprint"] / seconds["loop"],
        "first_plan_s": first_s,
    }
    bars = {
        "digests_s": at_most(seconds["fingerprint"], 20),
        "plan_after_s": at_most(later_s, 0.8),
    }
    return report("keys", figures, bars)


if __name__ == "__main__":
    raise SystemExit(main())
