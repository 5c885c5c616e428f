"""Arrays written as streams of rows read back equal, here and through zarr-python."""

from __future__ import annotations

import gc
import os
import pickle
import resource
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from store import CorruptArtifact, Store, StoreError
from store.arrays.codecs import Blosc
from store.arrays.grid import DTYPES, Grid

pytestmark = pytest.mark.usefixtures("no_fsync")


CODECS = st.builds(
    Blosc,
    cname=st.sampled_from(["zstd", "lz4", "zlib"]),
    clevel=st.integers(0, 9),
    shuffle=st.sampled_from(["noshuffle", "shuffle", "bitshuffle"]),
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[np.ndarray, dict[str, Any], list[int]]:
    """Values, how their array is cut and compressed, and where the stream of rows is cut."""
    shape = (draw(st.integers(0, 11)), *draw(st.lists(st.integers(0, 3), max_size=2)))
    values = draw(hnp.arrays(draw(st.sampled_from(DTYPES)), shape))
    per_chunk = draw(st.integers(1, 4))
    per_shard = draw(st.none() | st.integers(1, 3).map(lambda n: n * per_chunk))
    codec = draw(st.none() | CODECS)
    if codec and values.dtype.kind in "iu":
        codec = replace(codec, delta=draw(st.booleans()))
    cuts = draw(st.lists(st.integers(0, shape[0]), max_size=4).map(sorted))
    return values, {"rows_per_chunk": per_chunk, "rows_per_shard": per_shard, "codec": codec}, cuts


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Compare bits, so that NaN equals itself and -0.0 does not equal 0.0."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
@given(stream=streams(), data=st.data(), is_open=st.booleans())
@settings(max_examples=250)
def test_round_trip(
    key: str, publish: Any, stream: Any, data: st.DataObject, is_open: bool
) -> None:
    values, options, cuts = stream
    shape = (None, *values.shape[1:]) if is_open else values.shape
    with tempfile.TemporaryDirectory() as root, Store(root).draft("shards", key) as draft:
        with draft.array("x", shape, values.dtype, **options) as writer:
            for rows in np.split(values, cuts):
                writer.append(rows)
        with draft.array("known", values.shape, values.dtype, **options) as writer:
            writer.append(values)
        artifact = publish(draft)
        files = artifact.manifest.files
        assert {name: files[f"x/{name[6:]}"] for name in files if name[:6] == "known/"} == {
            name: record for name, record in files.items() if name[:6] == "known/"
        }
        array = artifact.array("x")

        assert same(array.read(), values)
        assert same(artifact.zarr()["x"][:], values)
        assert artifact.verify() == []
        if values.size and not options["codec"]:
            assert same(np.concatenate(array.memmaps()), values)

        n = len(values)
        start, stop = data.draw(st.integers(-n - 1, n + 1)), data.draw(st.integers(-n - 1, n + 1))
        assert same(array[start:stop], values[start:stop])
        assert same(array[start:stop:2], values[start:stop:2])
        rows = data.draw(st.lists(st.integers(-n, n - 1), max_size=20) if n else st.just([]))
        assert same(array.take(rows), values[np.array(rows, int)])
        for row in rows:
            assert same(np.asarray(array[row]), np.asarray(values[row]))


def test_shard_is_a_view_of_the_file(store: Store, key: str, make: Any) -> None:
    array = make(store, key).array("patches")
    first, second = array.memmaps()
    assert np.shares_memory(array[1:4], first)
    assert np.shares_memory(array[5], second)
    assert not np.shares_memory(array[3:5], first)
    with pytest.raises(ValueError, match="read-only"):
        array[0][:] = 0


def test_payload_starts_the_file(store: Store, key: str, make: Any) -> None:
    artifact = make(store, key)
    raw = np.fromfile(artifact.path / "patches" / "c.1.0.0", "<f4", count=3 * 6)
    np.testing.assert_array_equal(raw.reshape(3, 2, 3), artifact.array("patches")[4:])


@pytest.mark.parametrize("order", [">f4", "<f4"])
def test_byte_order_and_strides_of_rows_do_not_matter(
    store: Store, key: str, publish: Any, order: str
) -> None:
    values = np.arange(24).reshape(4, 6).astype(order)[:, ::2]
    with store.draft("shards", key) as draft:
        draft.write("x", values)
        artifact = publish(draft)
    np.testing.assert_array_equal(artifact.array("x").read(), values)
    np.testing.assert_array_equal(artifact.zarr()["x"][:], values)


def test_attributes_may_be_added_with_the_rows(store: Store, key: str, publish: Any) -> None:
    with store.draft("shards", key) as draft:
        with draft.array("x", (2,), "int8", attributes={"unit": "tokens"}) as writer:
            writer.append(np.array([1, 2], "int8"))
            writer.attributes["mean"] = 1.5
        artifact = publish(draft)
    assert artifact.array("x").attributes == {"unit": "tokens", "mean": 1.5}
    assert dict(artifact.zarr()["x"].attrs) == {"unit": "tokens", "mean": 1.5}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (np.zeros((1, 3), "float64"), "float64"),
        (np.zeros((1, 4), "float32"), r"\(1, 4\)"),
        (np.zeros(3, "float32"), r"\(3,\)"),
        (np.zeros((3, 3), "float32"), "has 2 rows, and was given 3"),
        ([[1, 2, 3]], "int64"),
    ],
)
def test_rows_that_do_not_fit_are_refused(store: Store, key: str, rows: Any, says: str) -> None:
    with store.draft("shards", key) as draft:
        writer = draft.array("x", (2, 3), "float32")
        with pytest.raises(StoreError, match=says):
            writer.append(rows)


def test_missing_rows_are_an_error_at_close(store: Store, key: str, publish: Any) -> None:
    with store.draft("shards", key) as draft:
        writer = draft.array("x", (2, 3), "float32")
        writer.append(np.zeros((1, 3), "float32"))
        with pytest.raises(StoreError, match="1 of its 2 rows"):
            writer.close()
        with pytest.raises(StoreError, match="unfinished arrays or groups: 'x'"):
            publish(draft)


def test_a_closed_array_takes_no_more_rows(store: Store, key: str) -> None:
    with store.draft("shards", key) as draft:
        with draft.array("x", (0, 3), "float32") as writer:
            pass
        with pytest.raises(StoreError, match="closed or abandoned"):
            writer.append(np.zeros((0, 3), "float32"))


def test_an_array_takes_no_rows_after_a_failed_write(
    store: Store, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.draft("shards", key) as draft:
        writer = draft.array("x", (4,), "int8")
        monkeypatch.setattr("store.io.os.write", lambda fd, view: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            writer.append(np.zeros(2, "int8"))
        monkeypatch.undo()
        with pytest.raises(StoreError, match="closed or abandoned"):
            writer.append(np.zeros(4, "int8"))


def test_partial_writes_are_continued(
    store: Store, key: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, view: write(fd, view[:7]))
    assert make(store, key).verify() == []


@pytest.mark.parametrize(
    ("shape", "dtype", "chunking", "says"),
    [
        ((), "f4", {}, "needs rows"),
        ((2, -1), "f4", {}, "shape"),
        ((2,), "f4", {"rows_per_chunk": 0}, "chunks of 0"),
        ((2,), "f4", {"rows_per_chunk": 2, "rows_per_shard": 3}, "multiple"),
        ((2,), "f4", {"rows_per_shard": 0}, "multiple"),
        ((2,), "complex64", {}, "complex64"),
        ((2,), "datetime64[s]", {}, "datetime64"),
        ((2,), "object", {}, "object"),
        ((2,), "no such type", {}, "no such type"),
    ],
)
def test_invalid_arrays_are_refused(shape: Any, dtype: str, chunking: Any, says: str) -> None:
    with pytest.raises(StoreError, match=says):
        Grid.of(shape, dtype, **chunking)


def test_only_the_number_of_rows_can_be_left_open(store: Store, key: str) -> None:
    with store.draft("shards", key) as draft, pytest.raises(StoreError, match="only the rows"):
        draft.array("x", (3, None), "f4")


def test_single_value_is_refused(store: Store, key: str) -> None:
    with (
        store.draft("shards", key) as draft,
        pytest.raises(StoreError, match="in the attributes"),
    ):
        draft.write("x", np.float32(1))


@pytest.mark.parametrize("rows", [7, -8])
def test_row_out_of_range(store: Store, key: str, make: Any, rows: int) -> None:
    array = make(store, key).array("patches")
    with pytest.raises(IndexError):
        array[rows]
    with pytest.raises(IndexError):
        array.take([0, rows])


@pytest.mark.parametrize("rows", [[0.5], [[0]], [True] * 7, 3])
def test_take_needs_row_numbers(store: Store, key: str, make: Any, rows: Any) -> None:
    with pytest.raises(IndexError, match="row numbers"):
        make(store, key).array("patches").take(rows)


def test_index_of_another_kind_is_refused(store: Store, key: str, make: Any) -> None:
    with pytest.raises(TypeError, match="take"):
        make(store, key).array("patches")[0, 1]


def test_numpy_reads_a_stored_array(store: Store, key: str, make: Any) -> None:
    array = make(store, key).array("patches")
    np.testing.assert_array_equal(np.asarray(array), array.read())
    assert np.asarray(array, dtype="float64").dtype == "float64"
    assert len(array) == 7
    assert array.nbytes == 7 * 6 * 4
    assert [row.sum() for row in array] == array.read().sum(axis=(1, 2)).tolist()


def test_a_pickled_array_holds_no_rows(store: Store, key: str, publish: Any) -> None:
    values = np.arange(100_000, dtype="float64")
    with store.draft("shards", key) as draft:
        draft.write("x", values, {"unit": "tokens"})
        array = publish(draft).array("x")
    array.memmaps()
    pickled = pickle.dumps(array)
    assert len(pickled) < 2_000
    copied = pickle.loads(pickled)
    np.testing.assert_array_equal(copied[:], values)
    assert same(copied.read(), values)
    assert copied.attributes == {"unit": "tokens"}


def test_5000_files_are_read_with_256_descriptors(
    store: Store, key: str, publish: Any, in_child: Any
) -> None:
    """All views at once: each is over a map of its own."""
    values = np.arange(5000 * 3, dtype="float32").reshape(5000, 3)
    with store.draft("shards", key) as draft:
        with draft.array("x", values.shape, "f4", rows_per_shard=1) as writer:
            writer.append(values)
        array = publish(draft).array("x")

    def read() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        views = array.memmaps()
        assert same(np.concatenate(views), values)
        assert same(array[:], values)
        assert same(array.take([4999, 0, 77]), values[[4999, 0, 77]])
        assert same(array.read(), values)
        assert len(os.listdir("/proc/self/fd")) < 200

    assert in_child(read) == 0


def test_a_view_outlives_its_array(store: Store, key: str, publish: Any, in_child: Any) -> None:
    values = np.arange(3 << 20, dtype="uint8")
    with store.draft("shards", key) as draft:
        draft.write("x", values)
        view = publish(draft).array("x")[7:]
    gc.collect()
    assert same(view, values[7:])
    maps = Path("/proc/self/maps")
    assert str(store.root) in maps.read_text()
    del view
    gc.collect()
    assert str(store.root) not in maps.read_text()


def shard_of(artifact: Any) -> Path:
    return artifact.path / "patches" / "c.1.0.0"


@pytest.mark.parametrize("n_bytes", [0, 1, 40])
def test_short_shard_is_not_mapped(store: Store, key: str, make: Any, n_bytes: int) -> None:
    artifact = make(store, key)
    array = artifact.array("patches")
    with open(shard_of(artifact), "r+b") as file:
        file.truncate(n_bytes)
    assert len(array[0:4]) == 4  # another shard
    for read in (lambda: array[5], array.memmaps, lambda: array.take([6]), array.read):
        with pytest.raises(CorruptArtifact, match=r"c\.1\.0\.0"):
            read()


def test_damaged_index_is_not_mapped(store: Store, key: str, make: Any) -> None:
    artifact = make(store, key)
    data = bytearray(shard_of(artifact).read_bytes())
    data[-1] ^= 1
    shard_of(artifact).write_bytes(data)
    with pytest.raises(CorruptArtifact, match="index"):
        artifact.array("patches")[5]


def test_read_checks_digests(store: Store, key: str, make: Any) -> None:
    artifact = make(store, key)
    data = bytearray(shard_of(artifact).read_bytes())
    data[0] ^= 1
    shard_of(artifact).write_bytes(data)
    with pytest.raises(CorruptArtifact, match="digest"):
        artifact.array("patches").read()


def test_other_readers_show_a_lost_shard_of_floats_as_nan(
    store: Store, key: str, make: Any
) -> None:
    artifact = make(store, key)
    shard_of(artifact).unlink()
    assert np.isnan(zarr.open_group(str(artifact.path), mode="r")["patches"][4:]).all()


def test_other_zarr_arrays_are_refused() -> None:
    node = Grid.of((4, 2), "f4").to_zarr({})
    assert Grid.from_zarr(node) == Grid.of((4, 2), "f4")
    for change in ({"codecs": []}, {"fill_value": 1.0}, {"shape": []}, {"data_type": "r8"}):
        with pytest.raises(ValueError, match="not that of an array written by saevx"):
            Grid.from_zarr(node | change)
