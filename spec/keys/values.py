"""Values that pydantic would convert into something else, and so into another key."""

from functools import cache
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel

_EXACT = frozenset({int, float, str, NoneType})
"""Types that are passed on as they are."""


class _Admits(NamedTuple):
    """What an annotation admits."""

    sets: bool
    bools: bool


def exact(spec_type: type[BaseModel], data: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with NumPy scalars as the Python numbers of the same value.

    Raises ValueError for True and False where a number is expected, and for a set where the order
    of items counts: its order differs between processes, and so would the key.
    """
    admits = _admitted(spec_type)
    return {
        name: value
        if type(value) in _EXACT or name not in admits
        else _exact(value, admits[name], name)
        for name, value in data.items()
    }


def _exact(value: Any, admits: _Admits, where: str) -> Any:
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        value = value.item()
    if isinstance(value, bool) and not admits.bools:
        raise ValueError(f"{where} is {value}: write the number or text that you mean")
    if isinstance(value, set | frozenset):
        if not admits.sets:
            raise ValueError(
                f"{where} is a set, whose order differs between processes: pass a list or a tuple"
            )
        return type(value)(_exact(item, admits, f"{where}{{}}") for item in value)
    if type(value) in (list, tuple):
        return type(value)(_exact(item, admits, f"{where}[{i}]") for i, item in enumerate(value))
    if type(value) is dict:
        return {key: _exact(item, admits, f"{where}.{key}") for key, item in value.items()}
    return value


@cache
def _admitted(spec_type: type[BaseModel]) -> dict[str, _Admits]:
    """Return what the annotation of each field admits, at any depth."""
    found = {}
    for name, info in spec_type.model_fields.items():
        types = _types_in(info.annotation, set())
        anything = bool(types & {Any, object})
        found[name] = _Admits(
            sets=anything or any(isinstance(t, type) and issubclass(t, _SETS) for t in types),
            bools=anything or bool in types,
        )
    return found


_SETS = (set, frozenset)


def _types_in(annotation: Any, seen: set[int]) -> set[Any]:
    if id(annotation) in seen:  # `type Json = dict[str, Json]` names itself
        return set()
    seen.add(id(annotation))
    if get_origin(annotation) is Literal:
        return {type(value) for value in get_args(annotation)}
    found = {annotation, get_origin(annotation)} if annotation.__hash__ else set()
    for part in (*get_args(annotation), getattr(annotation, "__value__", None)):
        if part is not None:
            found |= _types_in(part, seen)
    return found
