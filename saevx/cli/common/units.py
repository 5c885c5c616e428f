"""Sizes, lengths of time, counts and values as text."""

from __future__ import annotations

import re

import click

_SECONDS = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "days": 86400.0}


def duration(text: str) -> float:
    """Return the seconds of a time such as `90min`, `1h`, `7d` or 0; a click option type."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text)
    if found and (found[2] in _SECONDS or (not found[2] and float(found[1]) == 0)):
        return float(found[1]) * _SECONDS.get(found[2], 1.0)
    raise click.BadParameter(f"{text!r} is no length of time; write 90min, 1h or 7d")


def things(n: int, what: str = "artifact") -> str:
    """Return a count with its noun, as in `1 artifact`."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def size(n_bytes: float) -> str:
    """Return a number of bytes, as in `1.2 GB`."""
    unit, *larger = "B", "kB", "MB", "GB", "TB"
    while n_bytes >= 999.5 and larger:
        n_bytes, unit, larger = n_bytes / 1000, larger[0], larger[1:]
    return f"{n_bytes:.0f} {unit}" if unit == "B" or n_bytes >= 99.95 else f"{n_bytes:.1f} {unit}"


def age(seconds: float) -> str:
    """Return a length of time, as in `3 h`, with at most two digits up to 99 weeks."""
    for unit, length, until in (("s", 1, 99), ("min", 60, 99), ("h", 3600, 48), ("d", 86400, 99)):
        if seconds < until * length:
            return f"{max(0, int(seconds // length))} {unit}"
    return f"{int(seconds // (7 * 86400))} w"


def cell(value: str | float | bool | None) -> str:
    """Return a field's value as text; a missing value is `null`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def some(names: list[str]) -> str:
    """Return the first few names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
