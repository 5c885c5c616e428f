"""What an artifact was made from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from store.artifact.manifest import Manifest
from store.layout import KINDS, Ref, is_key


def inputs_of(manifest: Manifest) -> tuple[Ref, ...]:
    """What an artifact was made from: its parents, and the artifacts that its spec tells of.

    The spec tells of all, however far down; so an artifact whose parent is gone still keeps what
    that parent was made from.
    """
    parents = [(parent.kind, parent.key) for parent in manifest.parents.values()]
    return tuple(dict.fromkeys([*parents, *_refs_in(manifest.spec.get("fields", {}).values())]))


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
