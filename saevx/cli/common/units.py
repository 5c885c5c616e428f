"""Lengths of time and counts as people write and read them."""

from __future__ import annotations

import re

import click

_SECONDS = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "days": 86400.0}


def duration(text: str) -> float:
    """Seconds of a length of time such as `90min`, `1h`, `7d`, or 0; a type of an option."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text)
    if found and (found[2] in _SECONDS or (not found[2] and float(found[1]) == 0)):
        return float(found[1]) * _SECONDS.get(found[2], 1.0)
    raise click.BadParameter(f"{text!r} is no length of time; write 90min, 1h or 7d")


def things(n: int, what: str = "artifact") -> str:
    """A count in words, as in `1 artifact`."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"
