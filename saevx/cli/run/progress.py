"""Progress of a run on standard error: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from saevx.cli.common.console import console
from saevx.cli.common.options import warn
from saevx.resolve.batch import Progress as OnProgress
from saevx.resolve.plan import Node, Plan
from saevx.resolve.run import Listener
from saevx.session import Display
from spec import Artifact

if TYPE_CHECKING:
    from saevx.dispatch.run_request import Counts

LINE_S = 10.0
"""Minimum seconds between two lines about jobs where there is no terminal."""


def count_by_type(specs: Iterable[Artifact]) -> str:
    """Return the number of specs of each type, as in `2 Shards, 6 RandomPrototypes`."""
    counts = Counter(type(spec).__name__ for spec in specs)
    return ", ".join(f"{n} {name}" for name, n in counts.items())


class TerminalDisplay(Display):
    """Shows the progress of a session; with `quiet`, only its warnings."""

    def __init__(self, name: str = "", quiet: bool = False) -> None:
        self._name = name
        self._console = console(stderr=True)
        self._console.quiet = quiet

    def begin(self, plan: Plan) -> None:
        to_make = count_by_type(node.spec for node in plan.to_make)
        self._console.print(f"{self._name}: to make: {to_make}", markup=False)

    @contextmanager
    def batches(self) -> Iterator[Listener]:
        with _bars(self._console, *_rated_columns()) as bars:
            yield BatchProgress(self._console, bars)

    @contextmanager
    def digests(self, n_files: int) -> Iterator[Callable[[int], None]]:
        with _bars(self._console, *_rated_columns()) as bars:
            if bars is None:
                yield lambda n_read: None
                return
            began = time.monotonic()
            task = bars.add_task("reading files to identify them", total=n_files, rate="files")
            yield lambda n_read: bars.update(
                task, completed=n_read, rate=_rate(n_read, "files", began)
            )

    @contextmanager
    def counts(self) -> Iterator[Callable[[Counts], None]]:
        with _bars(self._console, BarColumn(), TimeElapsedColumn()) as bars:
            yield JobProgress(self._console, bars).show

    def warn(self, problems: Iterable[str]) -> None:
        warn(problems)


@contextmanager
def _bars(out: Console, *columns: ProgressColumn) -> Iterator[Progress | None]:
    """Yield bars on a terminal, and None elsewhere."""
    if out.quiet or not out.is_terminal:
        yield None
        return
    with Progress(TextColumn("{task.description}"), *columns, console=out) as bars:
        yield bars


def _rated_columns() -> tuple[ProgressColumn, ...]:
    return (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )


def _rate(done: int, unit: str, began: float) -> str:
    wall_s = time.monotonic() - began
    return f"{unit}, {done / wall_s:,.1f}/s" if wall_s > 0.5 else unit


class BatchProgress(Listener):
    """Shows a bar for each batch made in this process, or one line once it has ended."""

    def __init__(self, out: Console, bars: Progress | None) -> None:
        self._console, self._bars = out, bars
        self._began = 0.0
        self._task: TaskID | None = None
        self._waiting: TaskID | None = None
        self._owners: set[str] = set()

    def begin(self, nodes: list[Node]) -> OnProgress | None:
        self.wait({})
        self._began = time.monotonic()
        if self._bars is None:
            return None
        self._task = self._bars.add_task(
            count_by_type(node.spec for node in nodes), total=None, rate=""
        )
        return self._advance

    def end(self, nodes: list[Node], failed: dict[str, BaseException]) -> None:
        wall_s = time.monotonic() - self._began
        if self._bars is None:
            failures = f", {len(failed)} failed" if failed else ""
            made = count_by_type(node.spec for node in nodes)
            self._console.print(f"{made}: {wall_s:.1f} s{failures}", markup=False)
        elif self._task is not None:
            self._bars.stop_task(self._task)

    def wait(self, owners: Mapping[str, Collection[Artifact]]) -> None:
        others = [f"{owner} to make {count_by_type(specs)}" for owner, specs in owners.items()]
        text = f"waiting for {', and for '.join(others)}"
        if self._bars is None:
            # Once for each set of other runs: a log does not need a line for each artifact.
            if owners and owners.keys() != self._owners:
                self._console.print(text, markup=False)
        elif not owners and self._waiting is not None:
            self._bars.remove_task(self._waiting)
            self._waiting = None
        elif owners and self._waiting is None:
            self._waiting = self._bars.add_task(text, total=None, rate="")
        elif self._waiting is not None:
            self._bars.update(self._waiting, description=text)
        self._owners = set(owners)

    def _advance(self, done: int, total: int, unit: str) -> None:
        assert self._bars is not None
        assert self._task is not None
        rate = _rate(done, unit, self._began)
        self._bars.update(self._task, completed=done, total=total, rate=rate)


class JobProgress:
    """Shows one bar for all jobs of a run, or a line when the numbers have changed."""

    def __init__(self, out: Console, bars: Progress | None) -> None:
        self._console, self._bars = out, bars
        self._task = bars.add_task("submitting", total=None) if bars else None
        self._text, self._printed = "", 0.0

    def show(self, counts: Counts) -> None:
        text = (
            f"{counts.made} of {counts.total} made; jobs: {counts.running} running, "
            f"{counts.waiting} waiting"
        )
        text += f" ({counts.reason})" if counts.reason else ""
        text += f", {counts.failed} failed" if counts.failed else ""
        if counts.unanswered_s > 5:
            text += f"; Slurm gives no answer for {counts.unanswered_s:.0f} s"
        now = time.monotonic()
        if self._bars is not None and self._task is not None:
            self._bars.update(
                self._task, description=text, completed=counts.made, total=counts.total
            )
        elif text != self._text and now - self._printed >= LINE_S:
            self._console.print(text, markup=False)
            self._text, self._printed = text, now
