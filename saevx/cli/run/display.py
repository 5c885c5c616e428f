"""How commands show a session that goes on: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import click

from saevx.cli.common.options import warn
from saevx.session import Display

if TYPE_CHECKING:
    from saevx.dispatch.request import Counts
    from saevx.resolve.plan import Plan
    from saevx.resolve.run import Listener

LINE_S = 10.0
"""Where there is no terminal, a line of news comes no more often."""


class Terminal(Display):
    """Shows a session on standard error; only warnings if `quiet`."""

    def __init__(self, name: str, quiet: bool = False) -> None:
        self._name, self._quiet = name, quiet

    def begin(self, plan: Plan) -> None:
        from saevx.cli.run.progress_bars import count

        if not self._quiet:
            click.echo(f"{self._name}: to make: {count(plan.to_make)}", err=True)

    def batches(self) -> AbstractContextManager[Listener]:
        from saevx.cli.run.progress_bars import Bars

        return Bars(self._quiet)

    def counts(self) -> AbstractContextManager[Callable[[Counts], None]]:
        return Watching(self._quiet)

    def warn(self, problems: Iterable[str]) -> None:
        warn(problems)


class Watching(AbstractContextManager["Callable[[Counts], None]"]):
    """Shows counts: a bar on a terminal, a line whenever they change elsewhere."""

    def __init__(self, quiet: bool) -> None:
        from saevx.cli.common.console import console

        self._console = console(stderr=True)
        self._quiet = quiet
        self._bar: Any = None
        self._last, self._printed = "", 0.0

    def __enter__(self) -> Callable[[Counts], None]:
        if self._console.is_terminal and not self._quiet:
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TimeElapsedColumn(),
                console=self._console,
            )
            self._bar.start()
            self._task = self._bar.add_task("sending", total=None)
        return self._show

    def __exit__(self, *exc: Any) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _show(self, counts: Counts) -> None:
        text = (
            f"{counts.made} of {counts.total} made, {counts.running} jobs running, "
            f"{counts.waiting} waiting"
        )
        text += f" ({counts.reason})" if counts.reason else ""
        text += f", {counts.failed} failed" if counts.failed else ""
        text += (
            f"; Slurm gives no answer for {counts.silent_s:.0f} s" if counts.silent_s > 5 else ""
        )
        if self._bar is not None:
            self._bar.update(
                self._task, description=text, completed=counts.made, total=counts.total
            )
        elif text != self._last and not self._quiet:
            now = time.monotonic()
            if now - self._printed >= LINE_S:
                self._console.print(text, markup=False)
                self._last, self._printed = text, now
