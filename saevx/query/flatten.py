"""A spec's document as flat columns, so that one frame can hold a whole experiment.

The fields of nested artifacts are lifted up (`layer`, not `scorer.shards.layer`), those of nested
descriptions keep the name of their field (`vit.name`, `train.split`). The name of a nested spec
itself holds its type. Should a lifted name be taken by a field further out, it keeps its full path.
Searches understand the full path of every field.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from store import Manifest

Scalar = str | int | float | bool | None

FORM = "facts-1"
"""Names what `facts_of` gives. Change it together with that, and catalogues are made anew."""

LONGEST = 500
"""Characters of a text that are kept among the facts."""


def explode(document: dict[str, Any]) -> dict[str, Scalar]:
    """Column name -> value of every field of a spec's document, `type` and `key` first."""
    columns: dict[str, Scalar] = {"type": document["type"]}
    if "key" in document:
        columns["key"] = document["key"]
    _add(document, "", "", columns, {})
    return columns


def short_names(manifest: Manifest, taken: Collection[str]) -> dict[str, str]:
    """Full paths of fields, as `scorer.shards.layer` -> names in `facts_of`, where they differ."""
    if not _is_document(manifest.spec):
        return {}
    columns: dict[str, Scalar] = {"type": None, "key": None}
    paths: dict[str, str] = {}
    _add(manifest.spec, "", "", columns, paths)
    return {
        path: f"spec.{column}" if column in taken else column
        for path, column in paths.items()
        if path != column and path not in taken
    }


def facts_of(manifest: Manifest, taken: Collection[str]) -> dict[str, Scalar]:
    """What can be searched for: the spec's columns, then the attributes that are plain values.

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


def _plain(attributes: Mapping[str, Any]) -> list[tuple[str, Scalar]]:
    found: list[tuple[str, Scalar]] = []
    for name, value in attributes.items():
        if isinstance(value, dict):
            found += [(f"{name}.{inner}", scalar) for inner, scalar in _plain(value)]
        elif not isinstance(value, list):
            found.append((name, value))
    return found


def _add(
    document: dict[str, Any],
    prefix: str,
    path: str,
    columns: dict[str, Scalar],
    paths: dict[str, str],
) -> None:
    """Adds the fields of a document to `columns`, and to `paths` by which column each is at."""
    artifacts: list[tuple[str, dict[str, Any]]] = []
    for name, value in document["fields"].items():
        column = prefix + name if prefix + name not in columns else path + name
        paths[path + name] = column
        if _is_document(value):
            columns[column] = value["type"]
            if "key" in value:
                artifacts.append((name, value))
            else:
                _add(value, column + ".", path + name + ".", columns, paths)
        elif isinstance(value, list | dict):
            columns[column] = json.dumps(value)
        else:
            columns[column] = value
    # After this level's own fields, so that the outer of two equal names stays short.
    for name, artifact in artifacts:
        _add(artifact, "", path + name + ".", columns, paths)


def _is_document(value: Any) -> bool:
    return type(value) is dict and "type" in value and "fields" in value
