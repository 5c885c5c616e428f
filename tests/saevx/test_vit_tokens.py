"""Reading recorded activations: one file or several, the same rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import saevx.vit.recorder
from saevx.resolve.batch import Batch
from saevx.vit.recording import record_shards
from saevx.vit.tokens import TokenRows, Tokens
from spec import ImageFolder, Keys, RandomInit, Shards, Site, Squash, ViT
from store import Store

N_IMAGES, N_PATCHES, D = 7, 4, 64
N = N_IMAGES * N_PATCHES


def record(tmp_path, monkeypatch_bytes: int | None) -> Tokens:
    from PIL import Image

    images = tmp_path / "images"
    images.mkdir()
    for i in range(N_IMAGES):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(images / f"{i}.png")
    vit = ViT(name="test_vit", weights=RandomInit(seed=0), resize=Squash(size=32))
    spec = Shards(images=ImageFolder(root=str(images)), vit=vit, layer=3, batch_size=2)
    with pytest.MonkeyPatch.context() as patch:
        if monkeypatch_bytes is not None:
            patch.setattr(saevx.vit.recorder, "SHARD_BYTES", monkeypatch_bytes)
        with Batch((spec,), Store(tmp_path / "store"), Keys(Site())) as batch:
            record_shards.make(batch)
    (artifact,) = batch.made.values()
    return record_shards.load(artifact)


@pytest.fixture(scope="module")
def one_file(tmp_path_factory) -> Tokens:
    return record(tmp_path_factory.mktemp("one"), None)


@pytest.fixture(scope="module")
def many_files(tmp_path_factory) -> Tokens:
    return record(tmp_path_factory.mktemp("many"), 2 * N_PATCHES * D * 2)


def test_files_are_no_part_of_what_is_read(one_file, many_files):
    assert one_file.patches.grid.n_shards == 1
    assert many_files.patches.grid.n_shards == 4
    np.testing.assert_array_equal(one_file.patches.read(), many_files.patches.read())
    np.testing.assert_array_equal(one_file.cls.read(), many_files.cls.read())
    assert one_file.mean.tobytes() == many_files.mean.tobytes()
    assert one_file.variance == pytest.approx(many_files.variance, rel=1e-14)


def test_facts(one_file):
    assert (one_file.n_images, one_file.n_patches, one_file.d_model) == (N_IMAGES, N_PATCHES, D)
    assert len(one_file) == N
    assert one_file.grid == (2, 2)
    assert one_file.dtype == np.float16
    assert one_file.mean.shape == (D,)
    assert one_file.images == [f"{i}.png" for i in range(N_IMAGES)]
    assert one_file.artifact.key in repr(one_file)


def test_one_file_is_a_memory_map_that_cannot_be_written(one_file):
    tokens = one_file.tokens()
    assert isinstance(tokens, np.ndarray)
    assert not tokens.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        tokens[0] = 0


def test_zarr_reads_the_same(many_files):
    group = many_files.zarr()
    np.testing.assert_array_equal(group["patches"][:], many_files.patches.read())
    np.testing.assert_array_equal(group["cls"][:], many_files.cls.read())


BOUND = st.none() | st.integers(-N - 3, N + 3)


@given(slice_=st.builds(slice, BOUND, BOUND, st.sampled_from([None, 1, 2, -1, -3])))
def test_slices_are_those_of_numpy(many_files, slice_):
    expected = many_files.patches.read().reshape(-1, D)
    tokens = many_files.tokens()
    assert isinstance(tokens, TokenRows)
    assert tokens.shape == expected.shape
    np.testing.assert_array_equal(tokens[slice_], expected[slice_])


@given(rows=st.lists(st.integers(-N, N - 1), max_size=40))
def test_take_is_that_of_numpy(many_files, rows):
    expected = many_files.patches.read().reshape(-1, D)
    rows = np.asarray(rows, np.int64)
    np.testing.assert_array_equal(many_files.tokens().take(rows), expected.take(rows, axis=0))
    for row in rows[:3]:
        np.testing.assert_array_equal(many_files.tokens()[row], expected[row])


def test_the_whole_as_an_array(many_files):
    whole = np.asarray(many_files.tokens(), dtype=np.float32)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(whole, many_files.patches.read().reshape(-1, D))


@pytest.mark.parametrize("rows", [[N], [-N - 1], [[0]], [0.5]])
def test_rows_out_of_range_are_refused(many_files, rows):
    with pytest.raises(IndexError):
        many_files.tokens().take(rows)


def test_one_row_out_of_range_is_refused(many_files):
    with pytest.raises(IndexError):
        many_files.tokens()[N]
