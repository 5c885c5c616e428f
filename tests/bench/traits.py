"""Average precision of all prototypes for all traits, against a loop over scikit-learn's.

Run as `python tests/bench/traits.py [--rounds N]`. Needs scikit-learn. The table has the size of
1,024 prototypes scored on 959 images with 31 traits of 12 to 60 images; once with scores that
hardly tie, and once with 90 % exact zeros, as sparse codes have. Both sides run in one process.
"""

from __future__ import annotations

import argparse
import os

import numpy as np
from _report import at_least, at_most, median_wall_s, report, wall_s
from sklearn.metrics import average_precision_score

from saevx.traits.average_precision import average_precision

N_IMAGES, N_PROTOTYPES, N_TRAITS = 959, 1024, 31
MAX_LOOP_S = 60.0
"""A full loop that would take longer than this is replaced by a random subset of its pairs."""


def table(
    seed: int, n_images: int, n_prototypes: int, n_positives_t: np.ndarray, zeros: float
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n_images, n_prototypes) and labels (n_images, n_traits)."""
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((n_images, n_prototypes), dtype=np.float32)
    scores[rng.random(scores.shape, dtype=np.float32) < zeros] = 0.0
    labels = np.zeros((n_images, len(n_positives_t)), np.bool_)
    for trait, n_positives in enumerate(n_positives_t):
        labels[rng.choice(n_images, n_positives, replace=False), trait] = True
    return scores, labels


class Loop:
    """The double loop over scikit-learn, over all pairs or over a random subset of them."""

    def __init__(self, scores: np.ndarray, labels: np.ndarray) -> None:
        self.scores, self.labels = scores, labels
        n_all = scores.shape[1] * labels.shape[1]
        shuffled = np.random.default_rng(0).permutation(n_all)
        self._take(shuffled[:1000])
        loop_s = wall_s(self.run) * n_all / 1000
        n_pairs = n_all if loop_s <= MAX_LOOP_S else int(n_all * MAX_LOOP_S / loop_s)
        self._take(np.sort(shuffled[:n_pairs]))
        self.scale = n_all / n_pairs

    def _take(self, pairs: np.ndarray) -> None:
        self.prototypes, self.traits = np.divmod(pairs, self.labels.shape[1])
        self.ap = np.full(pairs.size, np.nan)

    def run(self) -> None:
        pairs = zip(self.prototypes, self.traits, strict=True)
        for i, (prototype, trait) in enumerate(pairs):
            self.ap[i] = average_precision_score(self.labels[:, trait], self.scores[:, prototype])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    figures: dict[str, object] = {
        "cores": os.cpu_count(),
        "rounds": rounds,
        "shape": [N_IMAGES, N_PROTOTYPES, N_TRAITS],
    }
    bars = {}

    for case, zeros in (("untied", 0.0), ("tied", 0.9)):
        n_positives_t = rng.integers(12, 61, N_TRAITS)
        scores, labels = table(1, N_IMAGES, N_PROTOTYPES, n_positives_t, zeros)
        loop = Loop(scores, labels)
        average_precision(scores, labels)
        seconds = median_wall_s(
            {
                "loop": loop.run,
                # Several calls a round: one is over too soon to be timed against a noisy machine.
                "saevx": lambda s=scores, y=labels: [average_precision(s, y) for _ in range(20)],
            },
            rounds,
        )
        loop_s, saevx_s = seconds["loop"] * loop.scale, seconds["saevx"] / 20
        ap = average_precision(scores, labels)[loop.prototypes, loop.traits]
        figures[f"{case}_sklearn_loop_s"] = loop_s
        figures[f"{case}_sklearn_pairs_timed"] = f"{loop.ap.size} of {N_PROTOTYPES * N_TRAITS}"
        figures[f"{case}_saevx_s"] = saevx_s
        bars[f"{case}_times_faster"] = at_least(loop_s / saevx_s, 300)
        bars[f"{case}_largest_difference"] = at_most(float(abs(ap - loop.ap).max()), 1e-6)
        print(f"{case}: scikit-learn {loop_s:.2f} s, saevx {saevx_s * 1e3:.2f} ms", flush=True)

    for case, zeros in (("untied", 0.0), ("tied", 0.9)):
        scores, labels = table(2, 6000, N_PROTOTYPES, rng.integers(60, 1141, 312), zeros)
        seconds = median_wall_s({"s": lambda s=scores, y=labels: average_precision(s, y)}, rounds)
        figures[f"{case}_6000_images_1024_prototypes_312_traits_s"] = seconds["s"]
    return report("traits", figures, bars)


if __name__ == "__main__":
    raise SystemExit(main())
