"""A spec's document as flat columns, so that one frame can hold a whole experiment.

The fields of nested artifacts are lifted up (`layer`, not `scorer.shards.layer`), those of nested
descriptions keep the name of their field (`vit.name`, `train.split`). The name of a nested spec
itself holds its type. Should a lifted name be taken by a field further out, it keeps its full path.
"""

import json
from typing import Any

Scalar = str | int | float | bool | None


def explode(document: dict[str, Any]) -> dict[str, Scalar]:
    """Column name -> value of every field of a spec's document, `type` and `key` first."""
    columns: dict[str, Scalar] = {"type": document["type"]}
    if "key" in document:
        columns["key"] = document["key"]
    _add(document, "", "", columns)
    return columns


def _add(document: dict[str, Any], prefix: str, path: str, columns: dict[str, Scalar]) -> None:
    artifacts: list[tuple[str, dict[str, Any]]] = []
    for name, value in document["fields"].items():
        column = prefix + name if prefix + name not in columns else path + name
        if _is_document(value):
            columns[column] = value["type"]
            if "key" in value:
                artifacts.append((name, value))
            else:
                _add(value, column + ".", path + name + ".", columns)
        elif isinstance(value, list | dict):
            columns[column] = json.dumps(value)
        else:
            columns[column] = value
    # After this level's own fields, so that the outer of two equal names stays short.
    for name, artifact in artifacts:
        _add(artifact, "", path + name + ".", columns)


def _is_document(value: Any) -> bool:
    return isinstance(value, dict) and "type" in value and "fields" in value
