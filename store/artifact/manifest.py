"""The manifest: what an artifact is, whence it came, and every file it must have.

It is kept in the attributes of the artifact's root group, under "saevx", so that any Zarr reader
shows it. Its file ends with a digest of all that stands before it, so that a manifest is whole or
no manifest; this ending is the same in every version of the layout.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import msgspec

from store.errors import CorruptArtifact, NewerLayout, StoreError
from store.io import FileRecord, digest, digest_file, explained, read_file, stat_opened
from store.layout import LAYOUT, NODE_FILE

_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
ABSENT = "not in the store"
_TAIL = b'"\n  }\n}\n'


class Reference(msgspec.Struct, frozen=True):
    """Another artifact, by kind and key."""

    kind: str
    key: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    layout: int = LAYOUT
    kind: str
    key: str
    type: str
    """Name of the spec type, and the version of its recipe."""
    version: int
    canonical: str
    """The text whose digest is the key; a hit compares it."""
    spec: dict[str, Any]
    """The spec's fields in plain values, for people and queries."""
    parents: dict[str, Reference]
    provenance: dict[str, Any]
    attributes: dict[str, Any]
    """Facts of the artifact, as its recipe chose."""
    files: dict[str, FileRecord]
    """Every file but the manifest's own, by path within the artifact."""
    created: str
    """ISO 8601, UTC."""


# The way from the root of the file to the manifest.
class _Attributes(msgspec.Struct):
    saevx: Manifest


class _Group(msgspec.Struct):
    attributes: _Attributes


_decode_group = msgspec.json.Decoder(_Group).decode


def group_file(attributes: object) -> bytes:
    """The zarr.json of a group."""
    node = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return msgspec.json.format(msgspec.json.encode(node), indent=2) + b"\n"


def encode_manifest(manifest: Manifest) -> bytes:
    """The zarr.json of an artifact's root group."""
    body = group_file({"saevx": manifest, "xxh3": ""}).removesuffix(_TAIL)
    return body + digest(body).encode() + _TAIL


def decode_manifest(data: bytes, where: str) -> Manifest:
    """Inverse of `encode_manifest`.

    Raises CorruptArtifact when the bytes are not all as written, NewerLayout when they are and
    this version of saevx cannot understand them.
    """
    end = len(data) - len(_TAIL)
    body, found = data[: end - 32], data[end - 32 : end]
    if not data.endswith(_TAIL) or digest(body).encode() != found:
        raise CorruptArtifact(f"{where} is torn or altered: its digest does not fit")
    try:
        manifest = _decode_group(data).attributes.saevx
        layout, fault = manifest.layout, None
    except msgspec.DecodeError as error:  # of another layout, or no manifest
        layout, fault = _layout_of(data), error
    if layout > LAYOUT:
        raise NewerLayout(
            f"{where} has layout {layout}, written by a later saevx; this one reads up to "
            f"layout {LAYOUT}. Upgrade saevx, or use another store"
        )
    if fault:
        raise CorruptArtifact(f"{where} is not a manifest: {fault}") from fault
    return manifest


def _layout_of(data: bytes) -> int:
    """Layout of a manifest in which nothing else need be as we know it."""
    try:
        layout = msgspec.json.decode(data)["attributes"]["saevx"]["layout"]
    except (msgspec.DecodeError, LookupError, TypeError):
        return LAYOUT
    return layout if isinstance(layout, int) else LAYOUT


def read_manifest(folder: str) -> Manifest | None:
    """The manifest of the artifact in a folder; None where there is no such file.

    Raises CorruptArtifact, NewerLayout, and StoreError where it cannot be read.
    """
    path = f"{folder}/{NODE_FILE}"
    with explained("read", path):
        try:
            data = read_file(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
    return decode_manifest(data, path)


def examine(folder: str, kind: str, key: str) -> Manifest | str:
    """The manifest of the artifact that a folder holds whole, else why it holds none.

    Whole: its manifest is as written, is of this kind and key, and every file it lists is there
    and has its size. Costs one read and a stat a file. Raises NewerLayout and StoreError.
    """
    # One for all, since a run may look at 20,000 artifacts.
    with explained("read", folder):
        try:
            at = os.open(folder, _FOLDER)
        except (FileNotFoundError, NotADirectoryError):
            if os.path.isdir(folder):  # moved away and put back in this instant
                return examine(folder, kind, key)
            there = os.path.lexists(folder)
            return "damaged: it has no manifest" if there else ABSENT
        try:
            return _examine(folder, at, kind, key)
        finally:
            os.close(at)


def _examine(folder: str, at: int, kind: str, key: str) -> Manifest | str:
    """As `examine`, `at` being the folder, opened: below it names are looked up faster."""
    try:
        data = read_file(NODE_FILE, at)
    except (FileNotFoundError, NotADirectoryError):
        return "damaged: it has no manifest"
    try:
        manifest = decode_manifest(data, f"{folder}/{NODE_FILE}")
    except CorruptArtifact as error:
        return f"damaged: {error}"
    if (manifest.kind, manifest.key) != (kind, key):
        return f"damaged: its manifest is that of {manifest.kind}/{manifest.key}"
    for name, record in manifest.files.items():
        try:
            whole = os.stat(name, dir_fd=at).st_size == record.size
        except (FileNotFoundError, NotADirectoryError):
            whole = False
        if not whole and (fault := size_fault(folder, name, record)):
            return f"damaged: {fault}"
    return manifest


def size_fault(folder: str, name: str, record: FileRecord) -> str | None:
    """What is wrong with a file's size, None if nothing. Raises OSError."""
    try:
        size = stat_opened(f"{folder}/{name}").st_size
    except (FileNotFoundError, NotADirectoryError):
        return f"{name} is missing"
    if size == record.size:
        return None
    n = abs(size - record.size)
    return f"{name} is {n} byte{'s' * (n > 1)} {'short' if size < record.size else 'too long'}"


def byte_fault(folder: str, name: str, record: FileRecord) -> str | None:
    """What is wrong with a file, every byte of it read, None if nothing. Raises OSError."""
    if fault := size_fault(folder, name, record):
        return fault
    same = digest_file(f"{folder}/{name}") == record
    return None if same else f"{name} has altered bytes: its digest differs"


def files_in(folder: Path) -> set[str]:
    """All files below a folder, as manifests name them."""
    return {
        os.path.relpath(os.path.join(place, name), folder)
        for place, _, names in os.walk(folder)
        for name in names
    }


def check_plain(value: object, where: str) -> None:
    """Refuses what JSON cannot keep exactly, NaN among it: it would come back as another value."""
    if isinstance(value, list | tuple):
        for i, item in enumerate(value):
            check_plain(item, f"{where}[{i}]")
    elif isinstance(value, dict):
        for name, item in value.items():
            if type(name) is not str:
                raise StoreError(f"{where} has the name {name!r}; names in JSON are strings")
            check_plain(name, f"a name in {where}")
            check_plain(item, f"{where}.{name}")
    elif not _is_plain(value):
        raise StoreError(
            f"{where} is {value!r}, of type {type(value).__name__}, which JSON cannot keep; use "
            "finite plain numbers, strings, booleans, None, and lists and dicts of them"
        )


def _is_plain(value: object) -> bool:
    # By exact type: numpy's float64 is a float and its str_ a str, and JSON takes neither.
    if isinstance(value, float):
        return type(value) is float and math.isfinite(value)
    if isinstance(value, str):
        return type(value) is str and not any("\ud800" <= char <= "\udfff" for char in value)
    if isinstance(value, int):
        return type(value) in (int, bool) and -(1 << 63) <= value < 1 << 64
    return value is None
