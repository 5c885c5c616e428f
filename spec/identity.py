"""The name by which something is known wherever it lies: its type and what counts of its fields."""

from typing import Any

from .canonical import canonical_json, plain
from .errors import SpecError
from .markers import is_exec
from .model import SpecModel


def path_free(spec: SpecModel) -> str | None:
    """A name for what `spec` points at that is the same on every machine; None if there is none.

    A spec that must be told a path, as an ImageFolder must, says nothing without it: any folder may
    lie there. One that need not be told, as CUB200Images, names one dataset by its type and fields.
    """
    try:
        return canonical_json(_named(spec, type(spec).__name__))
    except _NeedsPath:
        return None


class _NeedsPath(Exception):
    """A spec was found that says nothing without a path."""


def _named(value: Any, where: str) -> Any:
    if not isinstance(value, SpecModel):
        raise SpecError(f"{where} is a {type(value).__name__}, which has no place in a name")
    fields: dict[str, Any] = {}
    for name, info in type(value).model_fields.items():
        if not is_exec(info):
            fields[name] = plain(getattr(value, name), f"{where}.{name}", _named)
        elif info.is_required():
            raise _NeedsPath
    return {type(value).__name__: fields}
