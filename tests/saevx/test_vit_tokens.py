"""Reading recorded activations: the same rows from one file or several."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import saevx.recording.layer_part
from saevx.errors import RecipeError
from saevx.recording.join_parts import join
from saevx.recording.layer_part import LayerPart
from saevx.recording.recipe import record_shards
from saevx.recording.token_rows import TokenRows
from saevx.recording.tokens import Tokens
from saevx.resolve.context import Context
from saevx.resolve.run_recipe import make
from saevx.vit.model import inspect_vit
from spec import ImageFolder, Keys, RandomInit, Shards, Site, Squash, ViT
from store import Store

VIT = ViT(name="test_vit", weights=RandomInit(seed=0), resize=Squash(size=32))
N_IMAGES, N_PATCHES, D = 7, 4, 64
N = N_IMAGES * N_PATCHES


def record(tmp_path, monkeypatch_bytes: int | None) -> Tokens:
    from PIL import Image

    images = tmp_path / "images"
    images.mkdir()
    for i in range(N_IMAGES):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(images / f"{i}.png")
    spec = Shards(images=ImageFolder(root=str(images)), vit=VIT, layer=3, batch_size=2)
    with pytest.MonkeyPatch.context() as patch:
        if monkeypatch_bytes is not None:
            patch.setattr(saevx.recording.layer_part, "SHARD_BYTES", monkeypatch_bytes)
        with Context(Keys(Site()), Store(tmp_path / "store")).batch((spec,)) as batch:
            make(record_shards, batch)
    (artifact,) = batch.made.values()
    tokens: Tokens = record_shards.load(artifact)
    return tokens


@pytest.fixture(scope="module")
def one_file(tmp_path_factory) -> Tokens:
    return record(tmp_path_factory.mktemp("one"), None)


@pytest.fixture(scope="module")
def many_files(tmp_path_factory) -> Tokens:
    return record(tmp_path_factory.mktemp("many"), 2 * N_PATCHES * D * 2)


def test_reading_does_not_depend_on_file_sizes(one_file, many_files):
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
    values_nd = one_file.patches.read().reshape(N, D).astype(np.float64)
    np.testing.assert_allclose(one_file.mean, values_nd.mean(axis=0))
    assert one_file.variance == pytest.approx(values_nd.var(axis=0).sum())
    assert one_file.mean_square == pytest.approx(np.square(values_nd).sum(axis=1).mean())
    assert one_file.cls.shape == (N_IMAGES, 1, D)
    assert one_file.images == [f"{i}.png" for i in range(N_IMAGES)]
    assert one_file.artifact.key in repr(one_file)


@pytest.fixture(scope="module", params=["one file", "many files"])
def both(request, one_file, many_files) -> tuple[TokenRows, np.ndarray]:
    """Rows in one file or several, and the same rows as a numpy array."""
    tokens = one_file if request.param == "one file" else many_files
    return tokens.tokens(), tokens.patches.read().reshape(-1, D)


def test_the_type_does_not_depend_on_the_size(both):
    rows, expected = both
    assert type(rows) is TokenRows
    assert (rows.shape, rows.dtype, rows.ndim, len(rows)) == (expected.shape, np.float16, 2, N)
    assert "(28, 64)" in repr(rows)
    np.testing.assert_array_equal(list(rows), expected)


@pytest.mark.parametrize("index", [5, -1, slice(8, 15), slice(15, 9, -2), slice(9, 15, 3)])
def test_rows_of_one_file_are_views_that_cannot_be_written(both, index):
    rows, _ = both
    assert not rows[index].flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        rows[index][0] = 0


def test_zarr_reads_the_same(many_files):
    group = many_files.zarr()
    np.testing.assert_array_equal(group["patches"][:], many_files.flat.read())
    np.testing.assert_array_equal(group["indptr"][:], np.arange(0, N + 1, N_PATCHES))
    np.testing.assert_array_equal(group["grids"][:], [[2, 2]] * N_IMAGES)
    np.testing.assert_array_equal(group["cls"][:], many_files.cls.read())


GRIDS = [(2, 3), (2, 3), (1, 7), (4, 4), (2, 3), (5, 2)]
"""Grids of images of different aspects, in batches of one grid."""


@pytest.fixture
def ragged(tmp_path) -> tuple[Tokens, list[np.ndarray]]:
    """A layer of images with grids of their own, in two files, and the tokens of each image."""
    facts = replace(inspect_vit(VIT), grid=(0, 0))
    rng = np.random.default_rng(0)
    whole = [rng.standard_normal((1 + r * c, D)).astype(np.float32) for r, c in GRIDS]
    store, meta = Store(tmp_path), {"type": "T", "version": 1, "canonical": "{}", "spec": {}}
    meta |= {"parents": {}, "provenance": {}}
    parts = []
    for number, images in enumerate((range(4), range(4, 6))):
        with store.draft("shards", "0" * 32, number) as draft:
            names = [f"{i}.png" for i in images]
            options = {"dtype": "float16", "prefix": "cls", "images_per_file": 4}
            sink = LayerPart(draft, 3, facts, names, ragged=True, **options)
            for i in images:
                sink.append([f"{i}.png"], torch.from_numpy(whole[i][None]), GRIDS[i])
            computed = {"device_name": "cpu", "torch": "2", "timm": "1", "pillow": "11"}
            attributes = sink.finish(["ab" * 16] * len(images), {}, computed)
            parts.append(draft.publish(**meta, attributes=attributes))
    with store.draft("shards", "0" * 32) as draft:
        artifact = draft.publish(**meta, attributes=join(parts, draft, len(GRIDS)))
    return Tokens(artifact), whole


def test_images_with_grids_of_their_own(ragged):
    tokens, whole = ragged
    patches = [image[1:].astype(np.float16) for image in whole]
    flat = np.concatenate(patches)
    assert (tokens.n_images, tokens.n_patches, tokens.grid) == (6, None, None)
    assert len(tokens) == len(flat) == 51
    assert tokens.grids.tolist() == [list(grid) for grid in GRIDS]
    assert tokens.indptr.tolist() == [0, 6, 12, 19, 35, 41, 51]
    assert len(tokens.patches) == 6
    for i, expected in enumerate(patches):
        np.testing.assert_array_equal(tokens.patches[i], expected)
        assert not tokens.patches[i].flags.owndata
    np.testing.assert_array_equal(tokens.tokens()[:], flat)
    np.testing.assert_array_equal(tokens.tokens()[[50, 3, -2]], flat[[50, 3, -2]])
    np.testing.assert_array_equal(tokens.cls[:], [image[:1] for image in whole])
    np.testing.assert_allclose(tokens.mean, flat.astype(np.float64).mean(axis=0))
    assert "6 images x patches of its grid x 64" in repr(tokens)


def test_zarr_reads_images_with_grids_of_their_own(ragged):
    tokens, whole = ragged
    group = tokens.zarr()
    flat = np.concatenate([group["patches"][str(i)][:] for i in range(2)])
    indptr = group["indptr"][:]
    for i, image in enumerate(whole):
        found = flat[indptr[i] : indptr[i + 1]]
        np.testing.assert_array_equal(found, image[1:].astype(np.float16))
        assert group["grids"][i].prod() == len(found)


def test_parts_with_another_grid_than_the_vit_are_refused(tmp_path):
    with Store(tmp_path).draft("shards", "0" * 32, 0) as draft:
        options = {"dtype": "float16", "prefix": "cls", "images_per_file": 4}
        sink = LayerPart(draft, 3, inspect_vit(VIT), ["a"], **options)
        with pytest.raises(RecipeError, match=r"shape \(1, 7, 64\) for a grid of \(2, 3\)"):
            sink.append(["a"], torch.zeros(1, 7, D), (2, 3))


BOUND = st.none() | st.integers(-N - 3, N + 3)


ROW = st.integers(-N, N - 1)
ROWS = st.one_of(
    ROW,
    ROW.map(np.int32),
    st.builds(slice, BOUND, BOUND, st.sampled_from([None, 1, 2, -1, -3, 40])),
    st.lists(ROW, max_size=40),
    hnp.arrays(np.int64, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0), elements=ROW),
    hnp.arrays(np.bool_, N),
    hnp.arrays(np.bool_, N).map(np.ndarray.tolist),
    st.just(...),
)
COLUMN = st.integers(-D, D - 1)
COLUMNS = st.one_of(
    COLUMN, st.builds(slice, COLUMN, COLUMN), st.lists(COLUMN, min_size=1, max_size=1), st.just(...)
)


@given(rows=ROWS)
def test_rows_are_those_of_numpy(both, rows):
    tokens, expected = both
    found = tokens[rows]
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, expected[rows], strict=True)


@given(rows=ROWS, columns=COLUMNS)
def test_rows_and_columns_are_those_of_numpy(both, rows, columns):
    tokens, expected = both
    if rows is ... and columns is ...:
        columns = slice(None)
    np.testing.assert_array_equal(tokens[rows, columns], expected[rows, columns])


@given(st.lists(st.tuples(ROW, COLUMN), min_size=1))
def test_rows_pair_up_with_columns_as_in_numpy(both, pairs):
    tokens, expected = both
    rows, columns = (list(side) for side in zip(*pairs, strict=True))
    np.testing.assert_array_equal(tokens[rows, columns], expected[rows, columns])


@given(rows=hnp.arrays(np.int64, hnp.array_shapes(min_dims=0, min_side=0), elements=ROW))
def test_take_is_that_of_numpy(both, rows):
    tokens, expected = both
    found = tokens.take(rows)
    np.testing.assert_array_equal(found, expected.take(rows, axis=0))
    assert found.flags.writeable


def test_the_whole_as_an_array(both):
    rows, expected = both
    for whole in (np.asarray(rows), np.array(rows), np.asarray(rows, dtype=np.float32)):
        np.testing.assert_array_equal(whole, expected)
    assert np.asarray(rows, dtype=np.float32).dtype == np.float32
    assert np.array(rows).flags.writeable
    with pytest.raises(ValueError, match="needs a copy"):
        np.array(rows, dtype=np.float32, copy=False)


def test_an_array_from_one_file_is_not_a_copy(one_file, many_files):
    assert np.shares_memory(np.asarray(one_file.tokens()), one_file.patches.memmaps()[0])
    with pytest.raises(ValueError, match="several files"):
        np.array(many_files.tokens(), copy=False)


@pytest.mark.parametrize(
    "index",
    [N, -N - 1, [0, N], 0.5, [0.5], "one", None, True, [True], np.ones(N + 1, bool),
     np.zeros(0), (0, 1, 2), (0, None), (..., ...), (N, 0), (0, D), ([0], [D])],
    ids=repr,
)  # fmt: skip
def test_unsupported_indices_are_refused(both, index):
    with pytest.raises(IndexError):
        both[0][index]


def test_take_has_no_other_axis(both):
    with pytest.raises(IndexError, match="axis 0"):
        both[0].take([0], axis=1)


def test_rows_survive_pickling(both):
    rows, expected = both
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(rows))[3:20], expected[3:20])
