"""A spec as a JSON document that a person can read, and back.

    {"type": "Shards", "kind": "shards", "version": 1, "key": "...", "fields": {...}}

Other than in a key, nested artifacts are written out whole. Sets become lists. The document of a
manifest leaves `Exec` fields out, since they hold paths; one for another process keeps them.
"""

from typing import Any

from .base import Artifact, Spec
from .canonical import plain
from .errors import SpecError
from .key import Keys
from .markers import Since, is_exec

Document = dict[str, Any]


def to_document(spec: Spec, keys: Keys, *, with_exec: bool = False) -> Document:
    """The spec as plain JSON data; `with_exec` keeps fields that are marked `Exec`."""

    def nested(value: Any, where: str) -> Any:
        if isinstance(value, Spec):
            return to_document(value, keys, with_exec=with_exec)
        raise SpecError(f"{where} is a {type(value).__name__}, which JSON cannot hold")

    name = type(spec).__name__
    document: Document = {"type": name}
    if isinstance(spec, Artifact):
        document |= {"kind": spec.kind, "version": type(spec).version, "key": keys.of(spec)}
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
    """The spec that a document describes. Fields that came after it have their `Since` value.

    Raises SpecError when its type is not known here (import the module that defines it first), or
    pydantic's ValidationError when its fields do not fit the type as it is today.
    """
    found = known_types().get(document["type"])
    if found is None:
        raise SpecError(
            f"no spec type {document['type']!r} is known here: import the module that defines it"
        )
    since = {
        name: mark.legacy
        for name, info in found.model_fields.items()
        for mark in info.metadata
        if isinstance(mark, Since)
    }
    written = {name: _value(value) for name, value in document["fields"].items()}
    return found(**since | written)


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        if isinstance(value.get("type"), str) and isinstance(value.get("fields"), dict):
            return from_document(value)
        return {name: _value(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_value(item) for item in value]
    return value


def known_types() -> dict[str, type[Spec]]:
    """Spec types by name, of the modules imported so far; of two of one name, the later one."""
    types: dict[str, type[Spec]] = {}
    waiting: list[type[Spec]] = [Spec]
    for found in waiting:
        types[found.__name__] = found
        # In the order in which they were declared: a notebook's cell may be run again.
        waiting.extend(found.__subclasses__())
    return types
