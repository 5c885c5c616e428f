"""Artifacts as files for other programs: csv, parquet, json and safetensors."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from saevx.errors import StoreError
from saevx.query.flatten import explode
from saevx.query.tables import joined

if TYPE_CHECKING:
    import polars as pl

    from store import StoredArtifact

TABLES = (".csv", ".parquet", ".json")
FORMATS = (*TABLES, ".safetensors")

_DTYPES = {
    "bool": "BOOL",
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
}
"""Names of types: numpy's -> those of safetensors."""

_BLOCK_BYTES = 64 << 20


def write_file(
    artifacts: Sequence[StoredArtifact],
    path: Path,
    table: str | None = None,
    *,
    explode_spec: bool = False,
) -> str:
    """Write one artifact, or the concatenated tables of several, in the format of the suffix.

    Returns a description of what was written. With `explode_spec`, or several artifacts, the specs'
    fields are columns. Raises StoreError when an artifact cannot be written in that format.
    """
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise StoreError(f"{path} has no known ending; use one of {', '.join(FORMATS)}")
    if ending in TABLES:
        frame = _frame(artifacts, table, explode_spec or len(artifacts) > 1)
        with _replacing(path) as scratch:
            getattr(frame, f"write_{ending[1:]}")(scratch)
        return f"a table of {frame.height} x {frame.width}"
    if len(artifacts) > 1:
        raise StoreError("a safetensors file takes the arrays of one artifact: give one key")
    with _replacing(path) as scratch:
        n = _write_safetensors(artifacts[0], scratch)
    return f"{n} array{'s' * (n != 1)}"


def _frame(
    artifacts: Sequence[StoredArtifact], table: str | None, explode_spec: bool
) -> pl.DataFrame:
    frames = []
    for artifact in artifacts:
        names = artifact.tables()
        if table is None and len(names) != 1:
            there = (
                f"the tables {', '.join(names)}: choose one with --table"
                if names
                else "no table: write its arrays to a .safetensors file"
            )
            raise StoreError(f"{artifact.manifest.type} {artifact.key[:8]} has {there}")
        frames.append(artifact.table(table or names[0]))
    return joined(frames, [explode(a.manifest.spec) if explode_spec else {} for a in artifacts])


def _write_safetensors(artifact: StoredArtifact, path: Path) -> int:
    """Stream all arrays of an artifact, without the columns of tables; return their number.

    The format: 8 bytes, the length of the header; the header, JSON; the arrays in C order.
    """
    names = artifact.arrays()
    if not names:
        raise StoreError(
            f"{artifact.manifest.type} {artifact.key[:8]} has no arrays; write its table to a "
            ".csv, .parquet or .json file"
        )
    manifest = artifact.manifest
    facts = {"kind": manifest.kind, "key": manifest.key, "spec": manifest.spec}
    header: dict[str, object] = {
        "__metadata__": {"saevx": json.dumps(facts | {"attributes": manifest.attributes})}
    }
    arrays = {name: artifact.array(name) for name in names}
    end = 0
    for name, array in arrays.items():
        begin, end = end, end + array.dtype.itemsize * prod(array.shape)
        header[name] = {
            "dtype": _DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            row_bytes = array.dtype.itemsize * prod(array.shape[1:])
            step = max(1, _BLOCK_BYTES // max(1, row_bytes))
            for start in range(0, array.shape[0], step):
                file.write(array[start : start + step].tobytes())
    return len(names)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a file to write to, which replaces `path` once it is complete."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield scratch
        os.replace(scratch, path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            scratch.unlink()
