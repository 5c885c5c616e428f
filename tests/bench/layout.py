"""Reading recorded activations: many files with few descriptors, and the rows of one image.

Run as `python tests/bench/layout.py [--files N] [--rounds N]`. Writes shards of N files, of images
of one grid and of images with grids of their own. A new process that may open 256 files keeps a
view of every file and reads all tokens. Then the rows of random images are read warm; the other
side slices one `numpy.memmap` of the same tokens.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _report import Bar, at_least, at_most, report, wall_s

import store
from saevx.recording.tokens import Tokens

D, N_PATCHES, N_IMAGES_PER_FILE = 64, 16, 4
KEYS = {"uniform": "0" * 32, "ragged": "1" * 32}
MAX_DESCRIPTORS = 256


def publish(draft: store.Draft, attributes: dict[str, Any]) -> store.StoredArtifact:
    return draft.publish(
        type="Shards",
        version=1,
        canonical="{}",
        spec={},
        parents={},
        provenance={},
        attributes=attributes,
    )


def write(root: Path, n_files: int) -> np.ndarray:
    """Write shards of both forms with the same tokens, and return them: (n_tokens, d)."""
    n_images = n_files * N_IMAGES_PER_FILE
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((n_images * N_PATCHES, D), np.float32).astype(np.float16)
    per_file = N_IMAGES_PER_FILE * N_PATCHES
    facts = {"n_images": n_images, "n_tokens": len(flat), "d_model": D}
    facts |= {"variance": 1.0, "mean_square": 1.0}
    opened = store.Store(root)
    with opened.draft("shards", KEYS["uniform"]) as draft:
        with draft.array(
            "patches", flat.shape, "float16", rows_per_chunk=N_PATCHES, rows_per_shard=per_file
        ) as writer:
            writer.append(flat)
        draft.write("indptr", np.arange(0, len(flat) + 1, N_PATCHES))
        publish(draft, facts | {"n_patches": N_PATCHES, "grid": [1, N_PATCHES]})
    lengths = np.tile([10, 22, 12, 20], n_files)
    with opened.draft("shards", KEYS["ragged"], 0) as draft:
        for i in range(n_files):
            draft.write(f"x/{i}", flat[i * per_file : (i + 1) * per_file])
        parts = publish(draft, {})
    with opened.draft("shards", KEYS["ragged"]) as draft:
        draft.join_pieces("patches", [parts.array(f"x/{i}") for i in range(n_files)])
        draft.write("indptr", np.cumsum([0, *lengths]))
        publish(draft, facts | {"n_patches": None, "grid": None})
    return flat


def read_with_few_descriptors(root: Path, flat: np.ndarray) -> bool:
    """Read all tokens in a process that may open few files. Return whether they are right."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_DESCRIPTORS, MAX_DESCRIPTORS))
            for key in KEYS.values():
                tokens = Tokens(store.Store(root).open("shards", key))
                views = tokens.flat.memmaps()
                whole = np.concatenate(views)
                assert len(views) == len(tokens.flat.shards)
                assert np.array_equal(whole.view(np.uint16), flat.view(np.uint16))
                assert np.array_equal(tokens.flat.read().view(np.uint16), flat.view(np.uint16))
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    figures: dict[str, object] = {"files": options.files, "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        flat = write(root, options.files)
        figures["gb"] = flat.nbytes / 1e9
        few = read_with_few_descriptors(root, flat)
        flat.tofile(root / "raw")
        raw = np.memmap(root / "raw", np.float16, "r", shape=flat.shape)
        images = np.random.default_rng(1).permutation(options.files * N_IMAGES_PER_FILE)
        sides: dict[str, Callable[[int], object]] = {
            "memmap": lambda i: raw[i * N_PATCHES : (i + 1) * N_PATCHES].sum()
        }
        for name, key in KEYS.items():
            opened: list[Tokens] = []
            figures[f"{name}_open_ms"] = 1e3 * wall_s(
                lambda key=key, opened=opened: (
                    opened.append(Tokens(store.Store(root).open("shards", key)))
                    or opened[0].patches[0]
                )
            )
            patches = opened[0].patches
            sides[name] = lambda i, patches=patches: patches[i].sum()

        def all_images(read: Callable[[int], object]) -> None:
            for i in images.tolist():
                read(i)

        for read in sides.values():
            all_images(read)
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(options.rounds):
            for name, read in sides.items():
                seconds[name].append(wall_s(partial(all_images, read)))
    bars: dict[str, Bar] = {
        f"files_read_with_{MAX_DESCRIPTORS}_descriptors": at_least(options.files * few, 5000)
    }
    for name, times in seconds.items():
        figures[f"{name}_us_an_image"] = us = 1e6 * statistics.median(times) / len(images)
        if name != "memmap":
            bars[f"{name}_us_an_image"] = at_most(us, 100)
    return report("layout", figures, bars)


if __name__ == "__main__":
    raise SystemExit(main())
