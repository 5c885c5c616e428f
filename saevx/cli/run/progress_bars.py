"""Progress bars while a run goes on, with rate and time left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from saevx.cli.common.console import console
from saevx.resolve.batch import Progress as OnProgress
from saevx.resolve.leases import Held
from saevx.resolve.plan import Node
from saevx.resolve.run import Listener


def count(nodes: Sequence[Node]) -> str:
    """Nodes by type, as in `2 Shards, 6 RandomPrototypes`."""
    counts: dict[str, int] = {}
    for node in nodes:
        counts[type(node.spec).__name__] = counts.get(type(node.spec).__name__, 0) + 1
    return ", ".join(f"{n} {name}" for name, n in counts.items())


class Bars(Listener):
    """A bar for each batch on a terminal; one line per batch elsewhere, or nothing if `quiet`."""

    def __init__(self, quiet: bool = False) -> None:
        self._console = console(stderr=True)
        self._quiet = quiet
        self._began = 0.0
        self._bars: Progress | None = None
        self._task: TaskID | None = None
        self._waiting: TaskID | None = None
        self._holders: set[str] = set()
        if self._console.is_terminal and not quiet:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
            )

    def __enter__(self) -> Bars:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._bars is not None:
            self._bars.stop()

    def begin(self, nodes: list[Node]) -> OnProgress | None:
        self.wait({})
        self._began = time.monotonic()
        if self._bars is None:
            return None
        self._task = self._bars.add_task(count(nodes), total=None, rate="")
        return self._advance

    def end(self, nodes: list[Node], failed: dict[str, BaseException]) -> None:
        wall = time.monotonic() - self._began
        if self._bars is not None and self._task is not None:
            self._bars.stop_task(self._task)
        elif not self._quiet:
            trouble = f", {len(failed)} failed" if failed else ""
            self._console.print(f"{count(nodes)}: {wall:.1f} s{trouble}", markup=False)

    def wait(self, held: Held) -> None:
        whom = [f"{holder} to make {count(nodes)}" for holder, nodes in held.items()]
        text = f"waiting for {', and for '.join(whom)}"
        if self._bars is None:
            # Once for each set of others; a log has no use for every artifact they finish.
            if held and held.keys() != self._holders and not self._quiet:
                self._console.print(text, markup=False)
        elif not held and self._waiting is not None:
            self._bars.remove_task(self._waiting)
            self._waiting = None
        elif held and self._waiting is None:
            self._waiting = self._bars.add_task(text, total=None, rate="")
        elif self._waiting is not None:
            self._bars.update(self._waiting, description=text)
        self._holders = set(held)

    def _advance(self, done: int, total: int, unit: str) -> None:
        assert self._bars is not None
        assert self._task is not None
        wall = time.monotonic() - self._began
        rate = f"{unit}, {done / wall:,.1f}/s" if wall > 0.5 else unit
        self._bars.update(self._task, completed=done, total=total, rate=rate)
