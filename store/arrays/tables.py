"""Convert a polars table to a group of arrays, one per column, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import polars as pl

from store.arrays.reader import AnyArray, Array
from store.errors import StoreError
from store.layout import TABLE, VALID_SUFFIX, name_fault

_NUMBERS = (
    *("Boolean", "Float16", "Float32", "Float64", "Int8", "Int16", "Int32", "Int64"),
    *("UInt8", "UInt16", "UInt32", "UInt64"),
)
_STRINGS = (pl.String, pl.Categorical, pl.Enum)


class Column(NamedTuple):
    """One array of a table."""

    name: str
    values: AnyArray
    attributes: dict[str, Any]


def encode(frame: pl.DataFrame) -> tuple[dict[str, Any], list[Column]]:
    """Return the attributes of the table's group, and its arrays.

    Raises StoreError, which lists every column that cannot be stored.
    """
    if not isinstance(frame, pl.DataFrame):
        raise StoreError(f"a table is a polars DataFrame, not a {type(frame).__name__}")
    if not frame.width and frame.height:
        raise StoreError(f"a table of {frame.height} rows has no columns")
    faults = [fault for name in frame.columns if (fault := _fault_of(frame[name]))]
    if faults:
        raise StoreError("the table cannot be stored: " + "; ".join(faults))
    columns, arrays = [], []
    for series in frame:
        entry, parts = _encode_column(series)
        columns.append(entry)
        arrays += parts
    return {TABLE: {"rows": frame.height, "columns": columns}}, arrays


def decode(attributes: Mapping[str, Any], array: Callable[[str], Array]) -> pl.DataFrame:
    """Invert `encode`; `array` opens an array by its name. Raises CorruptArtifact."""
    return pl.DataFrame([_decode_column(c, array) for c in attributes[TABLE]["columns"]])


def _fault_of(series: pl.Series) -> str | None:
    name = series.name
    if fault := name_fault(name):
        return f"{name!r} cannot name a column: {fault}; rename it"
    if name.endswith(VALID_SUFFIX):
        return f"column {name!r} ends in {VALID_SUFFIX!r}, which is reserved; rename it"
    if str(series.dtype) in _NUMBERS or series.dtype in _STRINGS:
        return None
    return (
        f"column {name!r} is of {series.dtype}; cast it to numbers, booleans or strings, or store "
        "it as an array"
    )


def _encode_column(series: pl.Series) -> tuple[dict[str, Any], list[Column]]:
    name = series.name
    if series.dtype in _STRINGS:
        codes, dictionary = _codes_of(series.cast(pl.String))
        entry = {"name": name, "dtype": "String", "nulls": False}
        return entry, [Column(name, codes, {"dictionary": dictionary})]
    entry = {"name": name, "dtype": str(series.dtype), "nulls": series.has_nulls()}
    if not series.has_nulls():
        return entry, [Column(name, series.to_numpy(), {})]
    zero = False if series.dtype == pl.Boolean else 0
    return entry, [
        Column(name, series.fill_null(zero).to_numpy(), {}),
        Column(name + VALID_SUFFIX, series.is_not_null().to_numpy(), {}),
    ]


def _codes_of(strings: pl.Series) -> tuple[AnyArray, list[str]]:
    """Return the index of each string among the distinct ones, -1 for null, and those."""
    dictionary = strings.drop_nulls().unique(maintain_order=True)
    places = pl.arange(len(dictionary), dtype=pl.Int32, eager=True)
    codes = strings.replace_strict(dictionary, places, default=None, return_dtype=pl.Int32)
    return codes.fill_null(-1).to_numpy(), dictionary.to_list()


def _decode_column(entry: Mapping[str, Any], array: Callable[[str], Array]) -> pl.Series:
    name = entry["name"]
    values = array(name)
    if entry["dtype"] == "String":
        dictionary = pl.Series(name, values.attributes["dictionary"], dtype=pl.String)
        codes = pl.Series(values.read())
        return dictionary.gather(codes.set(codes < 0, None))
    series = pl.Series(name, values.read())
    if entry["nulls"]:
        valid = pl.Series(array(name + VALID_SUFFIX).read())
        series = series.set(~valid, None)
    return series
