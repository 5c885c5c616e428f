"""Marks for spec fields that count differently in a key: `Annotated[int, Exec()]`.

A mark speaks of a whole field, so it stands at the outermost place of its annotation:
`Annotated[str | None, Exec()]`, never `Annotated[str, Exec()] | None`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Exec:
    """The field says how or where to compute, never what: it is left out of the key.

    Examples: a device, a number of workers, the folder where a dataset happens to lie.
    """


@dataclass(frozen=True)
class Since:
    """The field was added after artifacts of this type existed.

    While its value equals `legacy`, the field is left out of the key, so older artifacts keep
    theirs. `legacy` is the behaviour of the code before the field came; it stays frozen even when
    the field's default changes later, which then makes new keys, as it must.
    """

    legacy: Any


def is_exec(info: FieldInfo) -> bool:
    """Whether a field is left out of the key."""
    return any(isinstance(mark, Exec) or mark is Exec for mark in info.metadata)


def check_marks(owner: str, fields: Mapping[str, FieldInfo]) -> None:
    """Raise TypeError for marks that would be passed over, since they are not outermost."""
    for name, info in fields.items():
        if Since in info.metadata:
            raise TypeError(f"{owner}.{name} is marked Since: say since what, Since(legacy=...)")
        for mark in _marks_inside(info.annotation, set()):
            raise TypeError(
                f"{owner}.{name} has {mark} inside its annotation, where it marks no field: put it "
                f"outermost, as in `{name}: Annotated[str | None, {mark}] = None`"
            )


def _marks_inside(annotation: Any, seen: set[int]) -> Iterator[str]:
    if id(annotation) in seen:  # `type Json = dict[str, Json]` names itself
        return
    seen.add(id(annotation))
    if get_origin(annotation) is Annotated:
        for mark in annotation.__metadata__:
            if isinstance(mark, Exec) or mark is Exec:
                yield "Exec()"
            elif isinstance(mark, Since) or mark is Since:
                yield "Since(legacy=...)"
    parts = annotation if isinstance(annotation, list) else get_args(annotation)
    for part in (*parts, getattr(annotation, "__value__", None)):
        yield from _marks_inside(part, seen)
