"""Canonical JSON: the same text for the same value in every process and on every machine.

Keys are sorted, there is no white space, and text is UTF-8 without escapes. Floats are written by
shortest round trip, -0.0 as 0.0, and sets as sorted lists. NaN and infinity, which JSON lacks, are
refused, and so are paths, bytes and other objects that mean nothing on another machine.
"""

import json
import math
from collections.abc import Callable
from enum import Enum
from typing import Any

from spec.errors import SpecError


def canonical_json(value: Any) -> str:
    """Return the canonical JSON text of plain data, as `plain` returns it."""
    return _encoder.encode(value)


_encoder = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


def plain(value: Any, where: str, nested: Callable[[Any, str], Any]) -> Any:
    """Return `value` as JSON data. `nested` converts or refuses the objects that JSON lacks.

    `where` is the dotted path of the value, for error messages.
    Raises SpecError for NaN, infinity, dict keys that are not text, and what `nested` refuses.
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
                raise SpecError(f"{where} has the dict key {key!r}: use text as dict keys")
        return {str(k): plain(v, f"{where}.{k}", nested) for k, v in value.items()}
    return nested(value, where)
