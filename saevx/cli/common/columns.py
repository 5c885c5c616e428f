"""Many rows in columns, at once: rich takes ten seconds for what takes one here."""

from __future__ import annotations

from collections.abc import Sequence

import click

GAP = "  "


def lay_out(names: Sequence[str], rows: Sequence[Sequence[str]], right: set[str]) -> list[str]:
    """Lines of text, the head first and bold; columns named in `right` are aligned right."""
    columns = [(name, *cells) for name, cells in zip(names, zip(*rows, strict=True), strict=True)]
    padded = []
    for place, cells in enumerate(columns):
        width = max(map(len, cells))
        if cells[0] in right:
            padded.append([cell.rjust(width) for cell in cells])
        elif place == len(columns) - 1:
            padded.append(list(cells))  # no blanks at the end of lines
        else:
            padded.append([cell.ljust(width) for cell in cells])
    head, *lines = [GAP.join(cells) for cells in zip(*padded, strict=True)]
    return [click.style(head, bold=True), *lines]


def width_of(name: str, cells: Sequence[str]) -> int:
    """Characters that a column takes, with the gap before it."""
    return len(GAP) + max(len(name), max(map(len, cells), default=0))


def cut(text: str, width: int | None) -> str:
    """A line no longer than the terminal."""
    return text if width is None or len(text) <= width else text[: width - 1] + "…"


def size(n_bytes: float) -> str:
    """As in `1.2 GB`."""
    unit, *larger = "B", "kB", "MB", "GB", "TB"
    while n_bytes >= 999.5 and larger:
        n_bytes, unit, larger = n_bytes / 1000, larger[0], larger[1:]
    return f"{n_bytes:.0f} {unit}" if unit == "B" or n_bytes >= 99.95 else f"{n_bytes:.1f} {unit}"


def age(seconds: float) -> str:
    """As in `3 h`: at most two digits, where that is possible."""
    for unit, length, until in (("s", 1, 99), ("min", 60, 99), ("h", 3600, 48), ("d", 86400, 99)):
        if seconds < until * length:
            return f"{max(0, int(seconds // length))} {unit}"
    return f"{int(seconds // (7 * 86400))} w"


def cell(value: str | float | bool | None) -> str:
    """A field's value; `null` is told from what is not there at all."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)
