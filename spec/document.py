"""Conversion of specs to JSON documents that a person can read, and back.

    {"type": "Shards", "version": 1, "kind": "shards", "key": "...", "fields": {...}}

Unlike in a key, nested artifacts are written out whole. Sets become lists. Documents in manifests
leave `Exec` fields out, since those hold paths; documents for other processes keep them.
"""

from typing import Any

from spec.base import Artifact, Spec
from spec.errors import SpecError
from spec.keys.canonical import plain
from spec.keys.key import Keys
from spec.keys.markers import Since, is_exec
from spec.keys.type_names import named_types, type_name

Document = dict[str, Any]


def to_document(spec: Spec, keys: Keys, *, with_exec: bool = False) -> Document:
    """Return the spec as plain JSON data; `with_exec` keeps the fields marked `Exec`."""

    def nested(value: Any, where: str) -> Any:
        if isinstance(value, Spec):
            return to_document(value, keys, with_exec=with_exec)
        raise SpecError(f"{where} is a {type(value).__name__}, which cannot be written as JSON")

    name = type(spec).__name__
    document: Document = {"type": type_name(type(spec)), "version": type(spec).version}
    if isinstance(spec, Artifact):
        document |= {"kind": spec.kind, "key": keys.of(spec)}
    content = spec.fingerprints(keys.site)
    if content:
        document["content"] = content
    document["fields"] = {
        field: plain(getattr(spec, field), f"{name}.{field}", nested)
        for field, info in type(spec).model_fields.items()
        if with_exec or not is_exec(info)
    }
    return document


def from_document(document: Document) -> Spec:
    """Return the spec that a document describes. Fields added since have their `Since` value.

    Raises SpecError when no imported module defines its type, and pydantic's ValidationError when
    its fields do not fit today's type.
    """
    found = named_types().get(document["type"])
    if found is None or not issubclass(found, Spec):
        raise SpecError(
            f"no spec type {document['type']!r} is defined: import the module that defines it"
        )
    since = {
        name: marker.legacy
        for name, info in found.model_fields.items()
        for marker in info.metadata
        if isinstance(marker, Since)
    }
    fields = {name: _value(value) for name, value in document["fields"].items()}
    return found(**since | fields)


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        if isinstance(value.get("type"), str) and isinstance(value.get("fields"), dict):
            return from_document(value)
        return {name: _value(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_value(item) for item in value]
    return value
