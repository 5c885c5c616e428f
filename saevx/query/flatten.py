"""A spec's document as flat columns, so that one frame can hold a whole experiment.

Fields of nested artifacts are lifted (`layer`, not `scorer.shards.layer`); fields of nested
descriptions keep the name of their field (`vit.name`, `train.split`). The column of a nested spec
itself holds its type. A lifted name that an outer field has already keeps its full path. Searches
accept the full path of every field.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from store.index.reader import Scalar

if TYPE_CHECKING:
    from store import Manifest

FORM = "facts-1"
"""The version of what `facts_of` returns. Change both together: catalogues are then rebuilt."""

LONGEST = 500
"""Characters of a text that a catalogue keeps."""

Columns = dict[str, tuple[str, Scalar]]
"""Column name -> full path and value of a field."""


def explode(document: dict[str, Any]) -> dict[str, Scalar]:
    """Return column name -> value of every field of a spec's document, `type` and `key` first."""
    return {name: value for name, (_, value) in _columns(document).items()}


def short_names(manifest: Manifest, taken: Collection[str]) -> dict[str, str]:
    """Return full path -> name in `facts_of` of the fields whose path and name differ."""
    if not _is_document(manifest.spec):
        return {}
    return {
        path: f"spec.{name}" if name in taken else name
        for name, (path, _) in _columns(manifest.spec).items()
        if path != name and path not in taken
    }


def facts_of(manifest: Manifest, taken: Collection[str]) -> dict[str, Scalar]:
    """Return what can be searched for: the spec's columns, then attributes with plain values.

    Names that are `taken` are prefixed: `spec.size`, `attributes.size`.
    """
    spec = manifest.spec
    columns = explode(spec if _is_document(spec) else {"type": manifest.type, "fields": spec})
    facts = {
        f"spec.{name}" if name in taken else name: value
        for name, value in columns.items()
        if name not in ("type", "key")
    }
    for name, value in _plain(manifest.attributes):
        facts[f"attributes.{name}" if name in taken or name in facts else name] = value
    return {name: v[:LONGEST] if isinstance(v, str) else v for name, v in facts.items()}


def _plain(attributes: Mapping[str, Any]) -> Iterator[tuple[str, Scalar]]:
    for name, value in attributes.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", scalar) for inner, scalar in _plain(value))
        elif not isinstance(value, list):
            yield name, value


def _columns(document: dict[str, Any]) -> Columns:
    columns: Columns = {n: (n, document[n]) for n in ("type", "key") if n in document}
    _add(document, "", "", columns)
    return columns


def _add(document: dict[str, Any], prefix: str, path: str, columns: Columns) -> None:
    artifacts: list[tuple[str, dict[str, Any]]] = []
    for name, value in document["fields"].items():
        column = prefix + name if prefix + name not in columns else path + name
        if _is_document(value):
            columns[column] = path + name, value["type"]
            if "key" in value:
                artifacts.append((name, value))
            else:
                _add(value, column + ".", path + name + ".", columns)
        else:
            is_nested = isinstance(value, list | dict)
            columns[column] = path + name, json.dumps(value) if is_nested else value
    # After this level's own fields, so that the outer of two equal names stays short.
    for name, artifact in artifacts:
        _add(artifact, "", path + name + ".", columns)


def _is_document(value: Any) -> bool:
    return type(value) is dict and "type" in value and "fields" in value
