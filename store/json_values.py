"""Values that JSON keeps exactly."""

from __future__ import annotations

import math

from store.errors import StoreError


def check_json(value: object, where: str) -> None:
    """Raise StoreError where JSON does not keep a value exactly, such as NaN."""
    if isinstance(value, list | tuple):
        for i, item in enumerate(value):
            check_json(item, f"{where}[{i}]")
    elif isinstance(value, dict):
        for name, item in value.items():
            if type(name) is not str:
                raise StoreError(f"{where} has the name {name!r}; names in JSON are strings")
            check_json(name, f"a name in {where}")
            check_json(item, f"{where}.{name}")
    elif not _is_exact(value):
        raise StoreError(
            f"{where} is {value!r}, of type {type(value).__name__}, which JSON cannot keep; use "
            "finite plain numbers, strings, booleans, None, and lists and dicts of them"
        )


def _is_exact(value: object) -> bool:
    # By exact type: numpy's float64 is a float and its str_ a str, and JSON takes neither.
    if isinstance(value, float):
        return type(value) is float and math.isfinite(value)
    if isinstance(value, str):
        return type(value) is str and not any("\ud800" <= char <= "\udfff" for char in value)
    if isinstance(value, int):
        return type(value) in (int, bool) and -(1 << 63) <= value < 1 << 64
    return value is None
