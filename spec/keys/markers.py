"""Markers of spec fields that count differently in a key: `Annotated[int, Exec()]`.

A marker applies to a whole field, so it must be outermost in the annotation:
`Annotated[str | None, Exec()]`, never `Annotated[str, Exec()] | None`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Exec:
    """The field says how or where to compute, not what. It is left out of the key.

    Examples: a device, a number of workers, the folder of a dataset.
    """


@dataclass(frozen=True)
class Since:
    """The field was added after artifacts of this type existed.

    While its value equals `legacy`, the field is left out of the key, so older artifacts keep
    their keys. `legacy` is what the code did before the field was added. Never change it: when the
    default changes later, specs that use the default get new keys, as they must.
    """

    legacy: Any


def is_exec(info: FieldInfo) -> bool:
    """Return whether a field is left out of the key."""
    return any(isinstance(marker, Exec) or marker is Exec for marker in info.metadata)


def check_markers(owner: str, fields: Mapping[str, FieldInfo]) -> None:
    """Raise TypeError for markers that would be ignored because they are not outermost."""
    for name, info in fields.items():
        if Since in info.metadata:
            raise TypeError(f"{owner}.{name} is marked Since: write Since(legacy=...)")
        for marker in _nested_markers(info.annotation, set()):
            raise TypeError(
                f"{owner}.{name} has {marker} inside its annotation, where it has no effect: put "
                f"it outermost, as in `{name}: Annotated[str | None, {marker}] = None`"
            )


def _nested_markers(annotation: Any, seen: set[int]) -> Iterator[str]:
    if id(annotation) in seen:  # `type Json = dict[str, Json]` names itself
        return
    seen.add(id(annotation))
    if get_origin(annotation) is Annotated:
        for marker in annotation.__metadata__:
            if isinstance(marker, Exec) or marker is Exec:
                yield "Exec()"
            elif isinstance(marker, Since) or marker is Since:
                yield "Since(legacy=...)"
    parts = annotation if isinstance(annotation, list) else get_args(annotation)
    for part in (*parts, getattr(annotation, "__value__", None)):
        yield from _nested_markers(part, seen)
