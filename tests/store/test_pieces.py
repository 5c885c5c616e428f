"""Arrays in pieces: parts of any lengths, read as one; and rows in groups of any lengths."""

from __future__ import annotations

import os
import pickle
import resource
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store import Store, StoreError
from store.arrays.codecs import Blosc
from store.arrays.grid import DTYPES
from store.arrays.ragged import RaggedArray

pytestmark = pytest.mark.usefixtures("no_fsync")

KIND = "activations"


def make_parts(
    store: Store, key: str, publish: Any, arrays: list[np.ndarray], **options: Any
) -> list[Any]:
    made = []
    for i, values in enumerate(arrays):
        with store.draft(KIND, key, i) as draft:
            with draft.array("x", (None, *values.shape[1:]), values.dtype, **options) as writer:
                writer.append(values)
            made.append(publish(draft))
    return made


def join(store: Store, key: str, publish: Any, parts: list[Any]) -> Any:
    with store.draft(KIND, key) as draft:
        draft.join_pieces("x", [part.array("x") for part in parts])
        return publish(draft)


@st.composite
def parts_of_any_length(draw: Any) -> tuple[list[np.ndarray], dict[str, Any]]:
    lengths = draw(st.lists(st.integers(0, 7), min_size=1, max_size=6))
    row_shape = draw(st.lists(st.integers(0, 3), max_size=2))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    arrays = [rng.integers(0, 100, (n, *row_shape)).astype(dtype) for n in lengths]
    options = {
        "rows_per_chunk": draw(st.integers(1, 4)),
        "codec": draw(st.sampled_from([None, Blosc()])),
    }
    return arrays, options


@settings(max_examples=80)
@given(drawn=parts_of_any_length(), data=st.data())
def test_pieces_are_read_as_one_array(
    drawn: Any, data: Any, tmp_path_factory: Any, key: str, publish: Any
):
    arrays, options = drawn
    store = Store(tmp_path_factory.mktemp("store"))
    made = join(store, key, publish, make_parts(store, key, publish, arrays, **options))
    store.drop_parts(KIND, key)
    whole = np.concatenate(arrays)
    n = len(whole)

    made = store.open(KIND, made.key)
    assert made.arrays() == ["x"]
    assert made.verify() == []
    array = made.array("x")
    for each in (array, pickle.loads(pickle.dumps(array))):
        assert (each.shape, each.dtype, len(each)) == (whole.shape, whole.dtype, n)
        np.testing.assert_array_equal(each.read(), whole)
        np.testing.assert_array_equal(each[:], whole)
    start, stop = data.draw(st.integers(-n - 1, n + 1)), data.draw(st.integers(-n - 1, n + 1))
    np.testing.assert_array_equal(array[start:stop], whole[start:stop])
    rows = data.draw(st.lists(st.integers(-n, n - 1), max_size=20) if n else st.just([]))
    np.testing.assert_array_equal(array.take(rows), whole[np.array(rows, int)])

    group = made.zarr()["x"]
    assert group.attrs["saevx_pieces"]["rows"] == [len(values) for values in arrays]
    pieces = [group[str(i)][:] for i in range(len(arrays))]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_files_are_linked_and_attributes_are_kept(store: Store, key: str, publish: Any):
    parts = []
    for i in range(2):
        with store.draft(KIND, key, i) as draft:
            draft.write("x", np.arange(5 + i), {"unit": "images"})
            draft.write("y", np.arange(3))
            parts.append(publish(draft))
    with store.draft(KIND, key) as draft:
        draft.join_pieces(
            "codes/x", [part.array("x" if i else "y") for i, part in enumerate(parts)]
        )
        draft.join_pieces("x", [part.array("x") for part in parts[:1]])
        draft.write("z", np.arange(2))
        made = publish(draft)
    assert made.arrays() == ["codes/x", "x", "z"]
    assert made.array("codes/x").read().tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 5]
    assert made.array("x").attributes == {"unit": "images"}
    assert os.path.samefile(made.path / "x/0/c.0", parts[0].path / "x/c.0")
    assert made.array("x").grid.n_shards == 1
    with pytest.raises(StoreError, match="is in pieces, each with a grid of its own"):
        _ = made.array("codes/x").grid


ONE = (np.zeros((4, 2), "f4"), {})
UNFIT = {
    "dtype": (np.zeros((4, 2), "f2"), {}),
    "rows": (np.zeros((4, 3), "f4"), {}),
    "codec": (np.zeros((4, 2), "f4"), {"codec": Blosc()}),
    "several files": (np.zeros((4, 2), "f4"), {"rows_per_shard": 2}),
}


@pytest.mark.parametrize("unfit", UNFIT)
def test_parts_that_do_not_fit_are_refused(store: Store, key: str, publish: Any, unfit: str):
    parts = []
    for i, (values, options) in enumerate([ONE, UNFIT[unfit]]):
        with store.draft(KIND, key, i) as draft:
            with draft.array("x", values.shape, values.dtype, **options) as writer:
                writer.append(values)
            parts.append(publish(draft))
    with pytest.raises(StoreError, match="cannot be a piece of 'x': a piece is one file"):
        join(store, key, publish, parts)
    assert store.find(KIND, key) is None


def test_no_parts_and_other_nodes_among_pieces_are_refused(store: Store, key: str, publish: Any):
    (part,) = make_parts(store, key, publish, [np.arange(3)])
    with store.draft(KIND, key) as draft:
        with pytest.raises(StoreError, match="join 'x' from no parts"):
            draft.join_pieces("x", [])
        draft.join_pieces("x", [part.array("x")])
        with pytest.raises(StoreError, match="cannot lie in the array in pieces 'x'"):
            draft.write("x/more", np.arange(3))


def test_many_pieces_are_read_with_few_descriptors(
    store: Store, key: str, publish: Any, in_child: Any
):
    (part,) = make_parts(store, key, publish, [np.arange(3)])
    made = join(store, key, publish, [part] * 600)

    def read() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        array = store.open(KIND, made.key).array("x")
        assert len(array.memmaps()) == 600
        assert array[:].tolist() == array.read().tolist() == [0, 1, 2] * 600

    assert in_child(read) == 0


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=9),
    codec=st.sampled_from([None, Blosc()]),
)
def test_groups_of_rows_are_those_of_numpy(
    lengths: list[int], codec: Any, tmp_path_factory: Any, key: str, publish: Any
):
    store = Store(tmp_path_factory.mktemp("store"))
    indptr = np.cumsum([0, *lengths])
    values = np.arange(2 * indptr[-1]).reshape(-1, 2)
    with store.draft(KIND, key) as draft:
        with draft.array("x", (None, 2), "int64", rows_per_shard=4, codec=codec) as writer:
            writer.append(values)
        ragged = RaggedArray(publish(draft).array("x"), indptr)
    assert (len(ragged), ragged.lengths.tolist()) == (len(lengths), lengths)
    assert ragged.dtype == np.int64
    for found, expected in zip(ragged, np.split(values, indptr[1:-1]), strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(ragged[-1], ragged[len(lengths) - 1])
    for i in (len(lengths), -len(lengths) - 1):
        with pytest.raises(IndexError, match=f"group {i} of {len(lengths)}"):
            ragged[i]
