"""Compressed arrays: smaller, equal wherever they are written, and damage is seen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numcodecs.blosc
import numpy as np
import pytest

from store import CorruptArtifact, Store, StoreError
from store.arrays.codecs import Blosc
from store.arrays.grid import Grid

pytestmark = pytest.mark.usefixtures("no_fsync")

VALUES = np.sort(np.random.default_rng(0).integers(0, 1 << 40, 100_000)).astype("int64")


def write(store: Store, key: str, publish: Any, codec: Blosc | None) -> Any:
    with store.draft("activations", key) as draft:
        with draft.array(
            "x", (None,), "int64", rows_per_chunk=30_000, rows_per_shard=60_000, codec=codec
        ) as writer:
            writer.append(VALUES)
        return publish(draft)


def test_sorted_integers_get_smaller_and_more_so_by_delta(store: Store, key: str, publish: Any):
    sizes = [
        write(store, f"{i}" * 32, publish, codec).n_bytes
        for i, codec in enumerate([Blosc(delta=True), Blosc(), None])
    ]
    assert sizes[0] < 0.9 * sizes[1] < 0.9 * 0.9 * sizes[2]


@pytest.mark.parametrize("n_threads", [1, 4])
def test_the_bytes_do_not_depend_on_threads(
    store: Store, key: str, publish: Any, n_threads: int, monkeypatch: pytest.MonkeyPatch
):
    """Blosc writes its blocks in the order in which its threads finish."""
    monkeypatch.setattr(numcodecs.blosc, "use_threads", True)
    before = numcodecs.blosc.set_nthreads(n_threads)
    files = [write(store, f"{i}" * 32, publish, Blosc("lz4")).manifest.files for i in range(5)]
    numcodecs.blosc.set_nthreads(before)
    assert numcodecs.blosc.use_threads is True
    assert all(each == files[0] for each in files)


def test_files_that_are_compressed_cannot_be_mapped(store: Store, key: str, publish: Any):
    array = write(store, key, publish, Blosc()).array("x")
    with pytest.raises(StoreError, match="is compressed and cannot be mapped; index"):
        array.memmaps()


@pytest.fixture
def damaged(store: Store, key: str, publish: Any) -> Any:
    """An array, and the first of its files."""
    artifact = write(store, key, publish, Blosc())
    return artifact.array("x"), artifact.path / "x" / "c.0"


def flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 255
    file.write_bytes(data)


def test_a_damaged_index_is_seen(damaged: Any):
    array, file = damaged
    flip(file, -9)
    assert len(array[60_000:]) == 40_000  # of another file
    for read in (lambda: array[3], lambda: array.take([3]), array.read):
        with pytest.raises(CorruptArtifact, match=r"c\.0 (has a damaged index|is not as it was)"):
            read()


def test_a_short_file_is_seen(damaged: Any):
    array, file = damaged
    os.truncate(file, 100)
    for read in (lambda: array[3], lambda: array.take([3]), array.read):
        with pytest.raises(CorruptArtifact, match=r"c\.0"):
            read()


@pytest.mark.parametrize("place", [0, 1, 4, 12])
def test_a_chunk_that_cannot_be_decompressed_is_seen(damaged: Any, place: int):
    array, file = damaged
    flip(file, place)
    with pytest.raises(CorruptArtifact, match=r"c\.0"):
        array.read()
    try:
        found = array[:30_000]
    except CorruptArtifact as error:
        said = str(error)
    else:  # a byte that no decompressor reads
        said = "chunk 0 is damaged" * np.array_equal(found, VALUES[:30_000])
    assert "chunk 0 is damaged" in said


def test_only_the_latest_file_keeps_a_chunk_in_memory(store: Store, key: str, publish: Any):
    array = write(store, key, publish, Blosc()).array("x")
    for row in (0, 70_000, 40_000, 99_999):
        assert array[row] == VALUES[row]
    assert [shard._latest is not None for shard in array.shards] == [False, True]


@pytest.mark.parametrize(
    ("codec", "dtype", "says"),
    [
        (Blosc(delta=True), "float32", "delta does not keep float32 to the bit"),
        (Blosc(delta=True), "bool", "delta does not keep bool"),
        (Blosc("snoopy"), "int8", "no compressor 'snoopy'"),  # type: ignore[arg-type]
        (Blosc(clevel=10), "int8", "no level 10"),
        (Blosc(shuffle="riffle"), "int8", "cannot 'riffle'"),  # type: ignore[arg-type]
    ],
)
def test_other_codecs_are_refused(codec: Blosc, dtype: str, says: str):
    with pytest.raises(StoreError, match=says):
        Grid.of((4,), dtype, codec=codec)


def test_chunks_too_large_for_blosc_are_refused():
    with pytest.raises(StoreError, match="cannot compress a chunk of 4294967296 bytes"):
        Grid.of((1 << 29,), "int64", rows_per_chunk=1 << 29, codec=Blosc())


def test_metadata_of_other_codecs_is_refused():
    node = Grid.of((4,), "int64", codec=Blosc(delta=True)).to_zarr({})
    assert Grid.from_zarr(node) == Grid.of((4,), "int64", codec=Blosc(delta=True))
    codecs = node["codecs"][0]["configuration"]["codecs"]
    for other in ([codecs[1], {"name": "gzip", "configuration": {"level": 5}}], codecs[:1], []):
        changed = node["codecs"][0]["configuration"] | {"codecs": other}
        with pytest.raises(ValueError, match="not that of an array written by saevx"):
            Grid.from_zarr(
                node | {"codecs": [{"name": "sharding_indexed", "configuration": changed}]}
            )
