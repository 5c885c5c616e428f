"""Recordings in parts, one per shard file: resumed and joined, they have the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import saevx.datasets.images
import saevx.recording.layer_part
import saevx.vit.model
from saevx.errors import RecipeError
from saevx.recording.recipe import count_files, record_shards
from saevx.resolve.batch import Batch
from saevx.resolve.context import Context
from saevx.resolve.run_recipe import make
from saevx.vit.model import LoadedViT, load_vit
from spec import ImageFolder, Keys, RandomInit, Shards, Site, Squash, ViT
from store import Store, StoredArtifact

ROOM = Path(__file__).resolve().parents[2]

VIT = ViT(name="test_vit", weights=RandomInit(seed=0), resize=Squash(size=32))
"""6 blocks, 64 wide, one class token, 2 x 2 patches."""

N_IMAGES, BATCH_SIZE = 11, 2
IMAGE_BYTES = 4 * 64 * 2


@pytest.fixture(autouse=True)
def _small_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Three files, of 4, 4 and 3 images."""
    monkeypatch.setattr(saevx.recording.layer_part, "SHARD_BYTES", 4 * IMAGE_BYTES)
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # nobody pulls a plug
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def draw(root: Path, i: int, seed: int = 0) -> None:
    pixels = np.random.default_rng(100 * seed + i).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(root / f"{i:02}.bmp")  # the same size whatever is drawn


@pytest.fixture
def images(tmp_path: Path) -> ImageFolder:
    root = tmp_path / "images"
    root.mkdir()
    for i in range(N_IMAGES):
        draw(root, i)
    return ImageFolder(root=str(root))


def shards(images: ImageFolder, layer: int, **fields: Any) -> Shards:
    return Shards(images=images, vit=VIT, layer=layer, batch_size=BATCH_SIZE, **fields)


Made = tuple[dict[int, StoredArtifact], dict[int, BaseException]]


def run(specs: list[Shards], store: Path, progress: Any = None) -> Made:
    """Return the artifacts made and the errors of a batch, by layer."""
    keys = Keys(Site())
    with Context(keys, Store(store)).batch(tuple(specs), progress) as batch:
        make(record_shards, batch)
    layer_of = {keys.of(spec): spec.layer for spec in specs}
    made = {layer_of[key]: artifact for key, artifact in batch.made.items()}
    return made, {layer_of[key]: error for key, error in batch.failed.items()}


def files_of(artifact: StoredArtifact) -> dict[str, bytes]:
    assert artifact.verify() == []
    return {name: (artifact.path / name).read_bytes() for name in artifact.manifest.files}


def parts_of(store: Path, spec: Shards) -> list[int]:
    return Store(store).parts(spec.kind, Keys(Site()).of(spec))


def stop_at(monkeypatch: pytest.MonkeyPatch, n_images: int, error: BaseException) -> None:
    """Ends the recording before the batch that starts at image `n_images` or later."""
    real, n_seen = LoadedViT.residual, 0

    def residual(self: LoadedViT, pixels: Any, layers: Any) -> Any:
        nonlocal n_seen
        if n_seen >= n_images:
            raise error
        n_seen += BATCH_SIZE
        return real(self, pixels, layers)

    monkeypatch.setattr(LoadedViT, "residual", residual)


class Stopped(Exception):
    pass


def record_partly(
    specs: list[Shards], store: Path, monkeypatch: pytest.MonkeyPatch, n_images: int
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, n_images, Stopped())
        with pytest.raises(Stopped) as caught:
            run(specs, store)
    # The traceback that a run keeps must not keep threads, drafts or leases alive.
    assert caught.value is not None
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]
    assert [path.name for path in store.glob("*/.build/*")] == []
    assert list(Store(store).leases()) == []


def test_files_are_parts(images: ImageFolder, tmp_path: Path):
    spec = shards(images, 1)
    assert count_files(spec, Site()) == 3
    made, failed = run([spec], tmp_path / "store")
    assert not failed
    tokens = record_shards.load(made[1])
    assert [len(rows) for rows in tokens.patches.memmaps()] == [4, 4, 3]
    assert tokens.images == [f"{i:02}.bmp" for i in range(N_IMAGES)]
    assert parts_of(tmp_path / "store", spec) == []


def test_file_sizes_change_no_row(
    images: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cut, _ = run([shards(images, 2)], tmp_path / "cut")
    monkeypatch.setattr(saevx.recording.layer_part, "SHARD_BYTES", 1 << 20)
    whole, _ = run([shards(images, 2)], tmp_path / "whole")
    for name in ("patches", "cls"):
        np.testing.assert_array_equal(cut[2].array(name).read(), whole[2].array(name).read())
    np.testing.assert_allclose(cut[2].array("mean").read(), whole[2].array("mean").read())


KILLED = f"""
import importlib.util, os, sys
sys.path.insert(0, {str(ROOM)!r})
loaded = importlib.util.spec_from_file_location("vit_parts", {__file__!r})
vit_parts = importlib.util.module_from_spec(loaded)
sys.modules["vit_parts"] = vit_parts
loaded.loader.exec_module(vit_parts)
vit_parts.be_killed(*sys.argv[1:])
"""


def be_killed(images: str, store: str) -> None:
    """The kill comes in the middle of the second file."""
    torch.set_num_threads(1)
    saevx.recording.layer_part.SHARD_BYTES = 4 * IMAGE_BYTES
    real, n_calls = LoadedViT.residual, 0

    def residual(self: LoadedViT, pixels: Any, layers: Any) -> Any:
        nonlocal n_calls
        n_calls += 1
        if n_calls == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, pixels, layers)

    LoadedViT.residual = residual  # type: ignore[method-assign]
    run([shards(ImageFolder(root=images), layer) for layer in (1, 4)], Path(store))


@pytest.mark.slow
def test_a_killed_recording_resumes_with_the_same_result(images: ImageFolder, tmp_path: Path):
    specs = [shards(images, layer) for layer in (1, 4)]
    whole, _ = run(specs, tmp_path / "whole")

    ended = subprocess.run([sys.executable, "-c", KILLED, images.root, str(tmp_path / "killed")])
    assert ended.returncode == -signal.SIGKILL

    store = tmp_path / "killed"
    assert [parts_of(store, spec) for spec in specs] == [[0], [0]]
    assert Store(store).find(specs[0].kind, Keys(Site()).of(specs[0])) is None
    seen: list[tuple[int, int, str]] = []
    resumed, failed = run(specs, store, lambda *now: seen.append(now))
    assert not failed
    assert seen == [(done, 7, "images") for done in (2, 4, 6, 7)]
    for layer in (1, 4):
        assert files_of(resumed[layer]) == files_of(whole[layer])
        assert resumed[layer].manifest.attributes == whole[layer].manifest.attributes
    assert [path.name for path in store.glob("*/.build/*")] == []


def test_a_layer_added_later_records_only_missing_parts(
    images: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = tmp_path / "store"
    record_partly([shards(images, 1)], store, monkeypatch, 8)
    seen: list[tuple[int, int, str]] = []
    both = [shards(images, layer) for layer in (1, 3)]
    made, _ = run(both, store, lambda *now: seen.append(now))
    assert seen[-1] == (11, 11, "images")
    whole, _ = run(both, tmp_path / "whole")
    for layer in (1, 3):
        assert files_of(made[layer]) == files_of(whole[layer])


def test_an_overflow_in_a_later_file_fails_its_layer_alone(
    images: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real, n_calls = LoadedViT.residual, 0

    def residual(self: LoadedViT, pixels: Any, layers: Any) -> Any:
        nonlocal n_calls
        n_calls += 1
        acts = dict(real(self, pixels, layers))
        if 3 in acts and n_calls == 4:
            acts[3] = acts[3].clone()
            acts[3][1, 2, 5] = 1e5
        return acts

    store = tmp_path / "store"
    specs = [shards(images, layer) for layer in (2, 3, 5)]
    with monkeypatch.context() as patch:
        patch.setattr(LoadedViT, "residual", residual)
        made, failed = run(specs, store)
    assert sorted(made) == [2, 5]
    assert sorted(failed) == [3]
    assert "layer 3 of image '07.bmp'" in str(failed[3])
    assert parts_of(store, specs[1]) == [0]
    assert [path.name for path in store.glob("*/.build/*")] == []
    whole, _ = run([specs[0], specs[2]], tmp_path / "whole")
    for layer in (2, 5):
        assert files_of(made[layer]) == files_of(whole[layer])


def test_images_changed_between_parts_start_another_recording(
    images: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The listing gives another key, so old and new images are never joined."""
    store = tmp_path / "store"
    record_partly([shards(images, 1)], store, monkeypatch, 8)
    before = Keys(Site()).of(shards(images, 1))
    (Path(images.root) / "05.bmp").unlink()
    draw(Path(images.root), 77)
    assert Keys(Site()).of(shards(images, 1)) != before
    made, failed = run([shards(images, 1)], store)
    assert not failed
    fresh, _ = run([shards(images, 1)], tmp_path / "fresh")
    assert files_of(made[1]) == files_of(fresh[1])
    assert Store(store).parts("shards", before) == [0, 1]


def test_weights_that_changed_between_parts_are_refused(
    images: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A layer whose parts do not fit fails alone; the others are joined."""
    store = tmp_path / "store"
    mixed, other = shards(images, 1), shards(images, 2)
    record_partly([mixed], store, monkeypatch, 4)

    def later(spec: ViT, site: Site) -> LoadedViT:
        return replace(load_vit(spec, site=site), revision="0123abc")

    monkeypatch.setattr(saevx.vit.model, "load_vit", later)
    for _ in range(2):
        made, failed = run([mixed, other], store)
        assert sorted(made) == [2]
        assert sorted(failed) == [1]
        assert isinstance(failed[1], RecipeError)
        message = str(failed[1])
        folder = store / "shards" / ".work" / Keys(Site()).of(mixed)
        assert "'weights_revision': '0123abc'" in message
        assert f"delete {folder} and run again" in message
    shutil.rmtree(folder)
    made, failed = run([mixed], store)
    assert not failed
    assert made[1].manifest.attributes["weights_revision"] == "0123abc"


@pytest.mark.parametrize("n_before", [4, 8])
def test_parts_of_another_size_are_refused(
    images: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_before: int
):
    """As written by another version of saevx: too few images must not count as complete."""
    store, spec = tmp_path / "store", shards(images, 1)
    record_partly([spec], store, monkeypatch, n_before)
    monkeypatch.setattr(saevx.recording.layer_part, "SHARD_BYTES", 8 * IMAGE_BYTES)
    assert count_files(spec, Site()) == 2
    made, failed = run([spec], store)
    assert not made
    folder = store / "shards" / ".work" / Keys(Site()).of(spec)
    assert f"the 2 parts in {folder} hold" in str(failed[1])
    assert "delete that folder and run again" in str(failed[1])
    shutil.rmtree(folder)
    made, _ = run([spec], store)
    assert len(record_shards.load(made[1]).images) == N_IMAGES


@pytest.mark.parametrize("array", ["sum", "patches"])
def test_a_part_with_altered_bytes_is_made_again_alone(
    images: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, array: str
):
    """Also for patches, which are hard-linked: only their digests show the change."""
    specs = [shards(images, layer) for layer in (1, 2)]
    whole, _ = run(specs, tmp_path / "whole")
    store = tmp_path / "store"
    record_partly(specs, store, monkeypatch, 8)
    parts = [Store(store).find_part("shards", Keys(Site()).of(spec), 1) for spec in specs]
    name = next(name for name in parts[0].manifest.files if name.startswith(f"{array}/c"))
    inode = (parts[1].path / name).stat().st_ino
    (parts[0].path / name).write_bytes(bytes((parts[0].path / name).stat().st_size))
    made, failed = run(specs, store)
    assert not failed
    for layer in (1, 2):
        assert files_of(made[layer]) == files_of(whole[layer])
    if array == "patches":
        (kept,) = (file for file in made[2].path.glob("patches/c.1*"))
        assert kept.stat().st_ino == inode


def test_sealing_needs_neither_weights_nor_images(
    images: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    specs = [shards(images, layer) for layer in (1, 2)]
    whole, _ = run(specs, tmp_path / "whole")
    store = tmp_path / "store"

    def unsealed(self: Any, spec: Any) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Batch, "parts", unsealed)
        with pytest.raises(Stopped):
            run(specs, store)
    assert [parts_of(store, spec) for spec in specs] == [[0, 1, 2]] * 2

    def away(*given: Any, **options: Any) -> None:
        raise AssertionError("not at hand")

    monkeypatch.setattr(saevx.vit.model, "load_vit", away)
    monkeypatch.setattr(saevx.datasets.images, "open_images", away)
    made, failed = run(specs, store)
    assert not failed
    for layer in (1, 2):
        assert files_of(made[layer]) == files_of(whole[layer])


def test_parts_of_different_devices_are_joined_with_a_warning(
    images: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store, spec = tmp_path / "store", shards(images, 1)
    record_partly([spec], store, monkeypatch, 4)
    other = {"device": "cuda", "device_name": "NVIDIA H100"}
    monkeypatch.setattr(saevx.recording.recipe, "describe", lambda on: other)
    made, failed = run([spec], store)
    assert not failed
    attributes = made[1].manifest.attributes
    assert [each["device"] for each in attributes["computed"]] == ["cpu", "cuda"]
    (warning,) = attributes["warnings"]
    assert "different device_name NVIDIA H100 and" in warning
