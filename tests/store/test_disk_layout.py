"""Read what the store writes with a reader made from docs/disk-layout.md alone."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import polars as pl
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from store import Store
from store.arrays.codecs import Blosc
from store.arrays.grid import DTYPES, Grid
from store.arrays.reader import Array

MISSING = 2**64 - 1


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def read_manifest(folder: Path) -> dict[str, Any]:
    data = (folder / "zarr.json").read_bytes()
    assert data[-8:] == b'"\n  }\n}\n'
    node = json.loads(data)
    assert list(node) == ["zarr_format", "node_type", "attributes"]
    assert node["zarr_format"] == 3
    assert node["node_type"] == "group"
    assert list(node["attributes"]) == ["saevx", "xxh3"]
    assert node["attributes"]["xxh3"] == xxhash.xxh3_128(data[:-40]).hexdigest()
    return node["attributes"]["saevx"]


def read_array(folder: Path) -> np.ndarray:
    node = json.loads((folder / "zarr.json").read_text())
    if pieces := node["attributes"].get("saevx_pieces"):
        arrays = [read_array(folder / str(i)) for i in range(len(pieces["rows"]))]
        assert [len(values) for values in arrays] == pieces["rows"]
        for i, per_chunk in enumerate(pieces["rows_per_chunk"]):
            piece = json.loads((folder / str(i) / "zarr.json").read_text())
            sharding = piece["codecs"][0]["configuration"]
            assert sharding["chunk_shape"][0] == per_chunk
            per_shard = piece["chunk_grid"]["configuration"]["chunk_shape"][0]
            assert per_shard == max(1, -(-len(arrays[i]) // per_chunk)) * per_chunk
        return np.concatenate(arrays)
    dtype = np.dtype(node["data_type"]).newbyteorder("<")
    n_rows, *row_shape = node["shape"]
    sharding = node["codecs"][0]["configuration"]
    rows_per_shard = node["chunk_grid"]["configuration"]["chunk_shape"][0]
    rows_per_chunk = sharding["chunk_shape"][0]
    row_nbytes = int(np.prod(row_shape)) * dtype.itemsize
    chunk_nbytes = rows_per_chunk * row_nbytes
    n_chunks = rows_per_shard // rows_per_chunk

    parts = [np.empty((0, *row_shape), dtype)]
    for start in range(0, n_rows if row_nbytes else 0, rows_per_shard):
        name = f"c.{start // rows_per_shard}" + ".0" * len(row_shape)
        data = (folder / name).read_bytes()
        rows = min(rows_per_shard, n_rows - start)
        index, crc = data[-16 * n_chunks - 4 : -4], data[-4:]
        assert struct.unpack("<I", crc)[0] == crc32c(index)
        used = -(-rows // rows_per_chunk)
        if sharding["codecs"][-1]["name"] == "blosc":
            data = decompress(data, index, used, sharding["codecs"], dtype) + index + crc
            index = raw_index(used, n_chunks, chunk_nbytes)
        parts.append(
            np.frombuffer(data, dtype, rows * row_nbytes // dtype.itemsize).reshape(
                rows, *row_shape
            )
        )
        for i, entry in enumerate(struct.iter_unpack("<QQ", index)):
            assert entry == ((i * chunk_nbytes, chunk_nbytes) if i < used else (MISSING, MISSING))
        padding = np.frombuffer(data[rows * row_nbytes : used * chunk_nbytes], dtype)
        assert len(data) == used * chunk_nbytes + len(index) + 4
        np.testing.assert_array_equal(padding, np.full_like(padding, filler(node, dtype)))
    if row_nbytes == 0:
        return np.empty((n_rows, *row_shape), dtype)
    return np.concatenate(parts)


def decompress(data: bytes, index: bytes, used: int, codecs: list[Any], dtype: np.dtype) -> bytes:
    """Return the chunks of a shard without compression. Needs Blosc, from numcodecs."""
    entries = list(struct.iter_unpack("<QQ", index))
    assert entries[used:] == [(MISSING, MISSING)] * (len(entries) - used)
    end, chunks = 0, []
    for offset, nbytes in entries[:used]:
        assert offset == end
        end += nbytes
        values = np.frombuffer(numcodecs.Blosc().decode(data[offset:end]), dtype)
        if codecs[0]["name"] == "numcodecs.delta":
            values = np.cumsum(values, dtype=dtype)
        chunks.append(values.tobytes())
    assert len(data) == end + len(index) + 4
    return b"".join(chunks)


def raw_index(used: int, n_chunks: int, chunk_nbytes: int) -> bytes:
    entries = [(i * chunk_nbytes, chunk_nbytes) for i in range(used)]
    entries += [(MISSING, MISSING)] * (n_chunks - used)
    return b"".join(struct.pack("<QQ", *entry) for entry in entries)


def filler(node: dict[str, Any], dtype: np.dtype) -> object:
    assert node["fill_value"] == ("NaN" if dtype.kind == "f" else False if dtype.kind == "b" else 0)
    return np.nan if dtype.kind == "f" else 0


def read_table(folder: Path) -> dict[str, list[object]]:
    table = json.loads((folder / "zarr.json").read_text())["attributes"]["saevx_table"]
    out: dict[str, list[object]] = {}
    for column in table["columns"]:
        name = column["name"]
        values = read_array(folder / name).tolist()
        if column["dtype"] == "String":
            node = json.loads((folder / name / "zarr.json").read_text())
            words = node["attributes"]["dictionary"]
            values = [None if code == -1 else words[code] for code in values]
        elif column["nulls"]:
            valid = read_array(folder / (name + ".valid")).tolist()
            values = [value if ok else None for value, ok in zip(values, valid, strict=True)]
        assert len(values) == table["rows"]
        out[name] = values
    return out


@pytest.fixture
def written(store: Store, key: str, publish: Any) -> Any:
    def stored(store: Store, values: np.ndarray, codec: Blosc | None) -> Array:
        number = len(store.parts("shards", key))
        with store.draft("shards", key, number) as part:
            with part.array("x", (None,), "int64", rows_per_chunk=2, codec=codec) as writer:
                writer.append(values)
            return publish(part).array("x")

    rng = np.random.default_rng(0)
    arrays = {
        "one": rng.standard_normal((9, 3, 4)).astype("float16"),
        "deep/er/two": rng.integers(0, 99, 5),
        "empty": np.empty((0, 3), "int8"),
        "hollow": np.empty((3, 0), "float64"),
        "flags": rng.random(9) < 0.5,
    }
    frame = pl.DataFrame({"trait": ["bird", None, "bird", ""], "ap": [0.5, None, 1.0, 0.0], "n": 3})
    with store.draft("shards", key) as draft:
        for name, values in arrays.items():
            with draft.array(
                name, values.shape, values.dtype, rows_per_chunk=2, rows_per_shard=6
            ) as writer:
                writer.append(values)
        codecs = {"small": Blosc(), "smaller": Blosc("lz4", delta=True)}
        for name, codec in codecs.items():
            arrays[name] = rng.integers(0, 99, (17, 3)).cumsum(axis=0).astype("uint16")
            with draft.array(
                name, (None, 3), "uint16", rows_per_chunk=2, rows_per_shard=6, codec=codec
            ) as writer:
                writer.append(arrays[name])
        for name, codec in {"pieces": None, "small pieces": Blosc()}.items():
            values = [np.arange(n) for n in (3, 0, 5)]
            arrays[name] = np.concatenate(values)
            draft.join_pieces(name, [stored(store, each, codec) for each in values])
        draft.table("table", frame)
        return publish(draft), arrays, frame


def test_the_documented_layout_reads_a_store(store: Store, key: str, written: Any) -> None:
    artifact, arrays, frame = written
    folder = store.root / "shards" / key[:2] / key
    assert artifact.path == folder
    for name, values in arrays.items():
        np.testing.assert_array_equal(read_array(folder / name), values)
        assert read_array(folder / name).dtype == values.dtype
    assert read_table(folder / "table") == frame.to_dict(as_series=False)


def test_manifest_lists_every_other_file(store: Store, key: str, written: Any) -> None:
    artifact, _, _ = written
    manifest = read_manifest(artifact.path)
    files = {str(p.relative_to(artifact.path)) for p in artifact.path.rglob("*") if p.is_file()}
    assert set(manifest["files"]) == files - {"zarr.json"}
    assert list(manifest["files"]) == sorted(manifest["files"])
    for name, record in manifest["files"].items():
        data = (artifact.path / name).read_bytes()
        assert record == {"size": len(data), "xxh3": xxhash.xxh3_128(data).hexdigest()}
    assert artifact.n_bytes == sum(record["size"] for record in manifest["files"].values())


def test_manifest_fields(written: Any, key: str) -> None:
    manifest = read_manifest(written[0].path)
    assert manifest.pop("created").endswith("+00:00")
    manifest.pop("files")
    assert manifest == {
        "layout": 1,
        "kind": "shards",
        "key": key,
        "type": "Thing",
        "version": 1,
        "canonical": '{"n":1}',
        "spec": {"n": 1, "vit": {"name": "tiny"}},
        "parents": {"shards": {"kind": "shards", "key": "f" * 32}},
        "provenance": {"host": "here", "wall_s": 0.5},
        "attributes": {},
    }


def test_every_metadata_file_is_indented_json(written: Any) -> None:
    for path in written[0].path.rglob("zarr.json"):
        text = path.read_text()
        assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"


def test_same_input_gives_the_same_bytes(store: Store, make: Any, key: str) -> None:
    first, second = make(store, key).manifest, make(store, "b" * 32).manifest
    assert first.files == second.files


@given(
    shape=st.lists(st.integers(0, 9), min_size=1, max_size=3),
    dtype=st.sampled_from(DTYPES),
    per_chunk=st.integers(1, 4),
    n_chunks=st.integers(1, 4),
)
def test_geometry(shape: list[int], dtype: str, per_chunk: int, n_chunks: int) -> None:
    grid = Grid.of(
        tuple(shape), dtype, rows_per_chunk=per_chunk, rows_per_shard=per_chunk * n_chunks
    )
    assert Grid.from_zarr(json.loads(json.dumps(grid.to_zarr({"a": 1})))) == grid
    rows = [grid.shard_rows(shard) for shard in range(grid.n_shards)]
    assert sum(rows) == (grid.n_rows if grid.row_nbytes else 0)
    for shard in range(grid.n_shards):
        index = grid.encode_index(grid.raw_entries(grid.shard_chunks(shard)))
        assert len(index) == grid.index_nbytes
