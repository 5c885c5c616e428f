"""The console of commands, with tables and progress bars drawn by rich."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 10_000
"""Width in characters where output is not a terminal: nothing is cut or wrapped."""


def console(*, stderr: bool = False) -> Console:
    """Return a console that wraps lines at the width of a terminal, and nowhere else."""
    made = Console(stderr=stderr, highlight=False, soft_wrap=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=WIDE)


def table(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[str] = ()
) -> Table:
    """Return a plain table; columns named in `right` are aligned right."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    return made


@contextmanager
def byte_bar(label: str, *, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Draw a progress bar on a terminal, else none.

    Yields a function of the number of bytes that are done, and of their total.
    """
    out = console(stderr=True)
    if quiet or not out.is_terminal:
        yield None
        return
    from rich import progress as rich

    columns = (
        rich.TextColumn(label),
        rich.BarColumn(),
        rich.DownloadColumn(),
        rich.TransferSpeedColumn(),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=out) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
