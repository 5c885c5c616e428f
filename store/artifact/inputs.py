"""What an artifact was made from, also where a later saevx wrote it in a layout that is not known.

Such a manifest is whole, so what it says in the words of this layout is taken for true. What it
does not say so cannot be told.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from store.artifact.manifest import Manifest
from store.io import explained
from store.layout import KINDS, NODE_FILE, Ref, is_key


def inputs_of(manifest: Manifest) -> tuple[Ref, ...]:
    """What an artifact was made from: its parents, and the artifacts that its spec tells of.

    The spec tells of all, however far down; so an artifact whose parent is gone still keeps what
    that parent was made from.
    """
    parents = [(parent.kind, parent.key) for parent in manifest.parents.values()]
    return tuple(dict.fromkeys([*parents, *_refs_in(manifest.spec.get("fields", {}).values())]))


class Glimpse(NamedTuple):
    """What an artifact of a newer layout tells."""

    type: str
    """Name of its spec type; "" when it cannot be told."""
    inputs: tuple[Ref, ...] | None
    """What it was made from; None when that cannot be told, so that it may be anything."""


def glimpse(folder: Path) -> Glimpse:
    """What the artifact in a folder tells: nothing once another process has moved it away.

    Raises StoreError where its manifest cannot be read.
    """
    file = folder / NODE_FILE
    with explained("read", file):
        try:
            return glimpse_at(file.read_bytes())
        except FileNotFoundError:
            return Glimpse("", None)


def glimpse_at(data: bytes) -> Glimpse:
    """As `glimpse`, of a manifest's bytes."""
    try:
        body = msgspec.json.decode(data)["attributes"]["saevx"]
        name = body.get("type")
        name = name if isinstance(name, str) else ""
    except (msgspec.DecodeError, LookupError, TypeError, AttributeError):
        return Glimpse("", None)
    try:
        parents = [(parent["kind"], parent["key"]) for parent in body["parents"].values()]
        fields = body["spec"]["fields"].values()
        if not all(map(_is_ref, parents)):
            return Glimpse(name, None)  # of a kind that came later
    except (LookupError, TypeError, AttributeError):
        return Glimpse(name, None)
    return Glimpse(name, tuple(dict.fromkeys([*parents, *_refs_in(fields)])))


def _refs_in(values: Iterable[Any]) -> list[Ref]:
    """The artifacts that a document tells of, however far down."""
    found: dict[Ref, None] = {}
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            ref = value.get("kind"), value.get("key")
            if _is_ref(ref):
                found[ref] = None  # type: ignore[index]
            waiting.extend(value.values())
    return list(found)


def _is_ref(ref: tuple[Any, Any]) -> bool:
    kind, key = ref
    return kind in KINDS and isinstance(key, str) and is_key(key)
