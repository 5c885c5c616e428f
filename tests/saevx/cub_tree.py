"""Miniature CUB-200-2011 datasets on disk, with the oddities of the real one.

Two images have a stray column in the label file, labels have every certainty, the last class has
one image, one JPEG is grey and one is CMYK.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Layout = Literal["official", "tree"]


@dataclass(frozen=True)
class CubTree:
    """A dataset written below `root`."""

    root: Path
    """Pass it as `root` to CUB200."""
    names: tuple[str, ...]
    """"<class>/<file>" of image 1, 2, ..."""
    attributes: tuple[str, ...]
    train: NDArray[np.bool_]
    """(n_images,)"""
    present: NDArray[np.bool_]
    """(n_images, n_attributes)"""
    certainty: NDArray[np.int64]
    """(n_images, n_attributes), from 1 to 4"""

    def labels(self, split: str, min_certainty: int = 3) -> dict[str, list[bool]]:
        """Read the labels with a plain loop: image name -> one bool per attribute."""
        return {
            name: [
                bool(self.present[i, a]) and int(self.certainty[i, a]) >= min_certainty
                for a in range(len(self.attributes))
            ]
            for i, name in enumerate(self.names)
            if bool(self.train[i]) == (split == "train")
        }

    def image(self, name: str) -> Path:
        """Return the path of an image."""
        return next(path for path in self.root.rglob(Path(name).name) if path.parts[-2:-1])

    def file(self, name: str) -> Path:
        """Return the path of a text file."""
        return next(iter([*self.root.rglob(name), *self.root.parent.glob(name)]))


def make_cub(
    root: Path,
    *,
    layout: Layout = "official",
    n_images: int = 24,
    n_attributes: int = 6,
    seed: int = 0,
) -> CubTree:
    """Write a dataset below `root`, which for the official layout will hold CUB_200_2011/.

    The same arguments give the same bytes in both layouts.
    """
    rng = np.random.default_rng(seed)
    classes = [f"{c + 1:03d}.Kind_{c + 1}" for c in range(3)]
    kinds = [classes[i % 2] for i in range(n_images - 1)] + [classes[2]]
    names = tuple(f"{kind}/{kind[4:]}_{i:04d}_{9000 - i}.jpg" for i, kind in enumerate(kinds))
    attributes = tuple(f"has_part_{a // 2}::colour_({a % 2})" for a in range(n_attributes))
    train = np.arange(n_images) % 4 < 2
    present = rng.random((n_images, n_attributes)) < 0.5
    certainty = rng.integers(1, 5, (n_images, n_attributes))
    # Some of each in both splits for every seed, so that every trait can be scored.
    for a in range(n_attributes):
        for side in (train, ~train):
            some = np.flatnonzero(side)[[a % side.sum(), (a + 1) % side.sum()]]
            present[some, a], certainty[some, a] = (True, False), 4

    home = root / "CUB_200_2011" if layout == "official" else root
    for i, name in enumerate(names):
        folder = (
            home / "images" if layout == "official" else root / ("train" if train[i] else "test")
        )
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _photo(rng, mode={1: "L", 3: "CMYK"}.get(i, "RGB")).save(path, "JPEG")

    places = {"attributes.txt": root, "image_attribute_labels.txt": home / "attributes"}
    if layout == "tree":
        places = dict.fromkeys(places, root)
    texts = {
        "images.txt": [f"{i + 1} {name}" for i, name in enumerate(names)],
        "image_class_labels.txt": [f"{i + 1} {int(n[:3])}" for i, n in enumerate(names)],
        "train_test_split.txt": [f"{i + 1} {int(side)}" for i, side in enumerate(train)],
        "attributes.txt": [f"{a + 1} {name}" for a, name in enumerate(attributes)],
        "image_attribute_labels.txt": label_lines(present, certainty, stray={2, 5}),
    }
    for file, lines in texts.items():
        path = places.get(file, home) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    return CubTree(root, names, attributes, train, present, certainty)


def label_lines(
    present: NDArray[np.bool_], certainty: NDArray[np.int64], stray: set[int]
) -> list[str]:
    """Lines of image_attribute_labels.txt; images numbered in `stray` get one column more."""
    return [
        f"{i + 1} {a + 1} {int(present[i, a])} {certainty[i, a]} "
        + ("0  1.509" if i + 1 in stray else "27.708")
        for i, a in np.ndindex(present.shape)
    ]


def _photo(rng: np.random.Generator, mode: str) -> Image.Image:
    smooth = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(smooth).resize((48, 40), Image.Resampling.BICUBIC).convert(mode)
