"""Canonical JSON: one spelling for one value, whatever the process, machine or hash seed.

Sorted keys, no white space, UTF-8 as is; floats by shortest round trip with -0.0 as 0.0; sets as
sorted lists. NaN and infinity have no JSON spelling, and a path, bytes or any other object has no
meaning on another machine: all are refused.
"""

import json
import math
from collections.abc import Callable
from enum import Enum
from typing import Any

from .errors import SpecError


def canonical_json(value: Any) -> str:
    """The canonical JSON text of plain data, as made by `plain`."""
    return _encoder.encode(value)


_encoder = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


def plain(value: Any, where: str, nested: Callable[[Any, str], Any]) -> Any:
    """`value` as JSON data. `nested` turns the objects that JSON does not know, or refuses them.

    `where` is the dotted place of the value, for the error message.
    Raises SpecError for NaN, infinity, keys that are not text, and whatever `nested` refuses.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return plain(value.value, where, nested)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise SpecError(f"{where} is {value}: NaN and infinity cannot be part of a key")
        return float(value) + 0.0  # -0.0 + 0.0 is 0.0
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{i}]", nested) for i, item in enumerate(value)]
    if isinstance(value, set | frozenset):
        items = [plain(item, f"{where}{{}}", nested) for item in value]
        return sorted(items, key=canonical_json)
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise SpecError(f"{where} has the key {key!r}: only text keys can be in a key")
        return {str(k): plain(v, f"{where}.{k}", nested) for k, v in value.items()}
    return nested(value, where)
