"""Names of datasets that hold on every machine: the type, and the fields that count in keys."""

from typing import Any

from spec.errors import SpecError
from spec.keys.canonical import canonical_json, plain
from spec.keys.markers import is_exec
from spec.keys.model import SpecModel
from spec.keys.type_names import type_name


def portable_name(spec: SpecModel) -> str | None:
    """Return a name for the files of `spec` that is the same on every machine, or None.

    A spec with a required path, such as ImageFolder, has no such name: the path may hold any
    files. One with an optional path, such as CUB200Images, names one dataset by type and fields.
    """
    try:
        return canonical_json(_plain_spec(spec, type(spec).__name__))
    except _NeedsPath:
        return None


class _NeedsPath(Exception):
    """A spec has a required path."""


def _plain_spec(value: Any, where: str) -> Any:
    if not isinstance(value, SpecModel):
        raise SpecError(f"{where} is a {type(value).__name__}, which cannot be part of a name")
    fields: dict[str, Any] = {}
    for name, info in type(value).model_fields.items():
        if not is_exec(info):
            fields[name] = plain(getattr(value, name), f"{where}.{name}", _plain_spec)
        elif info.is_required():
            raise _NeedsPath
    return {type_name(type(value)): fields}
