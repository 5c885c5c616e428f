"""The manifest: what an artifact is, what it was made from, and every file that it must have.

It is stored in the attributes of the artifact's root group, under "saevx", so that any Zarr reader
shows it. The file ends with a digest of everything before, so that a torn or altered manifest is
detected; this ending is the same in every version of the layout.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from store.errors import CorruptArtifact, NewerLayout
from store.io import FileRecord, digest, explained, read_file
from store.layout import KINDS, LAYOUT, NODE_FILE, Ref, is_key

_TAIL = b'"\n  }\n}\n'


class Reference(msgspec.Struct, frozen=True):
    """Another artifact, by kind and key."""

    kind: str
    key: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a published artifact says about itself."""

    layout: int = LAYOUT
    kind: str
    key: str
    type: str
    """Name of the spec type, and the version of its recipe."""
    version: int
    canonical: str
    """The canonical JSON of the spec, whose digest is the key."""
    spec: dict[str, Any]
    """The spec's fields as plain values, for people and queries."""
    parents: dict[str, Reference]
    provenance: dict[str, Any]
    attributes: dict[str, Any]
    """Facts about the artifact, chosen by its recipe."""
    files: dict[str, FileRecord]
    """Every file except the manifest's own, by its path within the artifact."""
    created: str
    """ISO 8601, UTC."""

    @property
    def n_bytes(self) -> int:
        """Size of its files, without the manifest's own."""
        return sum(record.size for record in self.files.values())


# Where the manifest is in its file.
class _Attributes(msgspec.Struct):
    saevx: Manifest


class _Group(msgspec.Struct):
    attributes: _Attributes


_decode_group = msgspec.json.Decoder(_Group).decode


def group_file(attributes: object) -> bytes:
    """Return the zarr.json of a group."""
    node = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return msgspec.json.format(msgspec.json.encode(node), indent=2) + b"\n"


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the zarr.json of an artifact's root group."""
    body = group_file({"saevx": manifest, "xxh3": ""}).removesuffix(_TAIL)
    return body + digest(body).encode() + _TAIL


def decode_manifest(data: bytes, where: str) -> Manifest:
    """Invert `encode_manifest`. `where` is named in errors.

    Raises CorruptArtifact where the bytes are not as written, and NewerLayout where a later saevx
    wrote them.
    """
    end = len(data) - len(_TAIL)
    body, found = data[: end - 32], data[end - 32 : end]
    if not data.endswith(_TAIL) or digest(body).encode() != found:
        raise CorruptArtifact(f"{where} is torn or altered: its digest does not fit")
    try:
        manifest = _decode_group(data).attributes.saevx
        layout, fault = manifest.layout, None
    except msgspec.DecodeError as error:  # another layout, or no manifest
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
    """Return the layout of a manifest of which nothing else is known."""
    try:
        layout = msgspec.json.decode(data)["attributes"]["saevx"]["layout"]
    except (msgspec.DecodeError, LookupError, TypeError):
        return LAYOUT
    return layout if isinstance(layout, int) else LAYOUT


def read_manifest(folder: str) -> Manifest | None:
    """Return the manifest of the artifact in a folder; None where there is none.

    Raises CorruptArtifact, NewerLayout, and StoreError where it cannot be read.
    """
    path = f"{folder}/{NODE_FILE}"
    with explained("read", path):
        try:
            data = read_file(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
    return decode_manifest(data, path)


def inputs_of(manifest: Manifest) -> tuple[Ref, ...]:
    """Return what an artifact was made from: its parents, and all artifacts named in its spec.

    The spec names them at any depth, so an artifact whose parent is gone still keeps what that
    parent was made from.
    """
    parents = [(parent.kind, parent.key) for parent in manifest.parents.values()]
    return tuple(dict.fromkeys([*parents, *_refs_in(manifest.spec.get("fields", {}).values())]))


def _refs_in(values: Iterable[Any]) -> Iterator[Ref]:
    """Yield the artifacts that a document names, at any depth."""
    for value in values:
        if isinstance(value, dict):
            match value:
                case {"kind": str(kind), "key": str(key)} if kind in KINDS and is_key(key):
                    yield kind, key
            yield from _refs_in(value.values())
        elif isinstance(value, list):
            yield from _refs_in(value)
