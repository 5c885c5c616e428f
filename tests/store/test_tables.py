"""Tables as groups of columns: polars in, the same polars out."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from polars.testing.parametric import dataframes

from store import CorruptArtifact, Store, StoreError

pytestmark = pytest.mark.usefixtures("no_fsync")

DTYPES = [
    *(pl.Boolean, pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32),
    *(pl.UInt64, pl.Float32, pl.Float64, pl.String),
]


def round_trip(store: Store, publish: Any, frame: pl.DataFrame) -> Any:
    with store.draft("results", "a" * 32) as draft:
        draft.table("table", frame)
        return publish(draft)


@given(frame=dataframes(allowed_dtypes=DTYPES, allow_null=True, max_cols=5, max_size=12))
@settings(max_examples=100)
def test_round_trip(publish: Any, frame: pl.DataFrame) -> None:
    with tempfile.TemporaryDirectory() as root:
        artifact = round_trip(Store(root), publish, frame)
        assert_frame_equal(artifact.table("table"), frame, check_exact=True)
        assert artifact.verify() == []


@given(frame=dataframes(allowed_dtypes=DTYPES, allow_null=True, min_cols=1, max_cols=3, max_size=9))
@settings(max_examples=40)
def test_any_zarr_reader_can_rebuild_a_table(publish: Any, frame: pl.DataFrame) -> None:
    with tempfile.TemporaryDirectory() as root:
        group = round_trip(Store(root), publish, frame).zarr()["table"]
        for entry in group.attrs["saevx_table"]["columns"]:
            array = group[entry["name"]]
            values = array[:].tolist()
            if entry["dtype"] == "String":
                words = array.attrs["dictionary"]
                values = [None if code < 0 else words[code] for code in values]
            elif entry["nulls"]:
                valid = group[entry["name"] + ".valid"][:]
                assert not array[:][~valid].any()
                values = [v if ok else None for v, ok in zip(values, valid, strict=True)]
            np.testing.assert_equal(values, frame[entry["name"]].to_list())


@given(words=st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"])), max_size=20))
@settings(max_examples=60)
def test_strings_of_any_script(publish: Any, words: list[str | None]) -> None:
    frame = pl.DataFrame({"word": words}, schema={"word": pl.String})
    with tempfile.TemporaryDirectory() as root:
        table = round_trip(Store(root), publish, frame).table("table")
    assert_frame_equal(table, frame)


def test_nan_is_not_null(store: Store, publish: Any) -> None:
    frame = pl.DataFrame({"ap": [1.0, None, float("nan"), -0.0]})
    ap = round_trip(store, publish, frame).table("table")["ap"]
    assert ap.is_null().to_list() == [False, True, False, False]
    assert ap.is_nan().to_list() == [False, None, True, False]
    assert np.signbit(ap[3])


def test_float16(store: Store, publish: Any) -> None:
    if not hasattr(pl, "Float16"):
        pytest.skip("this polars has no Float16")
    frame = pl.DataFrame({"x": [0.5, None, float("inf")]}, schema={"x": pl.Float16})
    assert_frame_equal(round_trip(store, publish, frame).table("table"), frame)


@pytest.mark.parametrize("dtype", [pl.Categorical(), pl.Enum(["b", "a", "unused"])])
def test_categories_come_back_as_strings(store: Store, publish: Any, dtype: Any) -> None:
    words = ["a", None, "b", "a"]
    table = round_trip(store, publish, pl.DataFrame({"w": words}, schema={"w": dtype})).table(
        "table"
    )
    assert_frame_equal(table, pl.DataFrame({"w": words}))


def test_column_names_of_any_script_keep_their_order(store: Store, publish: Any) -> None:
    names = ["vit.name", "b", "a", "größe", "mAP @ 10 %", "特徴", "🦆", "x.valid.y"]
    table = round_trip(store, publish, pl.DataFrame({name: [1] for name in names})).table("table")
    assert table.columns == names


def test_no_rows_and_no_columns(store: Store, publish: Any) -> None:
    frame = pl.DataFrame(schema={"s": pl.String, "f": pl.Float32, "b": pl.Boolean})
    assert_frame_equal(round_trip(store, publish, frame).table("table"), frame)
    with store.draft("results", "b" * 32) as draft:
        draft.table("none", pl.DataFrame())
        assert_frame_equal(publish(draft).table("none"), pl.DataFrame())


def test_all_faults_are_reported_together(store: Store, key: str) -> None:
    frame = pl.DataFrame(
        {"ok": [1], "day": ["2020-01-01"], "list": [[1]], "null": [None], "x.valid": [1], ".a": [1]}
    ).with_columns(pl.col("day").str.to_date())
    with store.draft("results", key) as draft:
        with pytest.raises(StoreError) as error:
            draft.table("table", frame)
        for said in (
            "'day' is of Date",
            "'list' is of List",
            "'null' is of Null",
            "'x.valid'",
            "'.a'",
        ):
            assert said in str(error.value)
        assert "'ok'" not in str(error.value)
        draft.table("table", frame.select("ok"))  # nothing of the refused one is in the way


@pytest.mark.parametrize("frame", [pl.LazyFrame({"a": [1]}), {"a": [1]}])
def test_only_frames_are_tables(store: Store, key: str, frame: Any) -> None:
    with (
        store.draft("results", key) as draft,
        pytest.raises(StoreError, match="a polars DataFrame, not"),
    ):
        draft.table("table", frame)


def test_columns_are_not_listed_as_arrays(store: Store, key: str, publish: Any) -> None:
    with store.draft("results", key) as draft:
        draft.write("ap", np.zeros(3))
        draft.write("tab/ap", np.zeros(3))
        draft.table("table", pl.DataFrame({"ap": [1.0, None]}))
        draft.table("by/trait", pl.DataFrame({"ap": [1.0]}))
        artifact = publish(draft)
    assert artifact.arrays() == ["ap", "tab/ap"]
    assert artifact.tables() == ["by/trait", "table"]
    with pytest.raises(StoreError, match="has no table 'ap'; it has 'by/trait', 'table'"):
        artifact.table("ap")
    with pytest.raises(StoreError, match="has no array 'table'"):
        artifact.array("table")


@pytest.mark.parametrize("file", ["table/ap/c.0", "table/zarr.json", "table/word/zarr.json"])
def test_altered_bytes_never_reach_a_frame(store: Store, publish: Any, file: str) -> None:
    artifact = round_trip(store, publish, pl.DataFrame({"ap": [0.5, 0.25], "word": ["a", "b"]}))
    path = artifact.path / file
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)
    found = store.find("results", "a" * 32)
    assert found is not None
    with pytest.raises(CorruptArtifact, match="digest"):
        found.table("table")
