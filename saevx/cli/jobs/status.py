"""saevx status: print what is queued, running and failed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from saevx.cli.common.console import console, table
from saevx.cli.common.options import clear_errors, json_option, store_option
from saevx.dispatch.batching import parts_text
from saevx.dispatch.runs.status import RunState, TaskState, run_states

SHOWN = 40
"""Jobs of one run that are printed without --all."""

REFRESH_S = 3.0
"""Seconds between two tables of --watch."""

COLUMNS = ("state", "job", "what", "node", "progress", "left", "why")
UNBROKEN = ("state", "job", "left")
"""Columns that never wrap."""

ORDER = {"running": 0, "unknown": 0, "waiting": 2}
"""Jobs that failed come between those that run and those that wait."""


@click.command()
@click.option("--all", "show_all", is_flag=True, help="Print every job.")
@click.option("--watch", "-w", is_flag=True, help="Refresh every few seconds.")
@store_option
@json_option
@clear_errors
def status(show_all: bool, watch: bool, store: str | None, as_json: bool) -> None:
    """Print which jobs of the store's runs are queued, running and failed."""
    from saevx.config import open_store

    if watch and as_json:
        raise click.UsageError("--watch refreshes a table: use --json without it")
    opened = open_store(store)
    if as_json:
        click.echo(json.dumps([run.document for run in run_states(opened)]))
        return
    out = console()
    if not watch:
        out.print(_draw(run_states(opened), show_all))
        return
    with suppress(KeyboardInterrupt):  # the normal way to end it
        _watch(out, lambda: _draw(run_states(opened), show_all))


def _watch(out: Console, draw: Callable[[], RenderableType]) -> None:
    """Refresh a table forever: in place on a terminal, one below the other elsewhere."""
    with Live(console=out, auto_refresh=False) if out.is_terminal else nullcontext() as live:
        while True:
            if live is not None:
                live.update(draw(), refresh=True)
            else:
                out.print(draw())
            time.sleep(REFRESH_S)


def _draw(runs: list[RunState], show_all: bool) -> RenderableType:
    parts: list[RenderableType] = []
    for run in runs:
        parts.append(Text(_heading(run), style="bold"))
        if one := run.follower:
            state = f"running on {one.node}" if one.running else f"queued ({one.reason})"
            parts.append(Text(f"followed by Slurm job {one.job}, {state}; log: {one.log}"))
        tasks = sorted(run.tasks, key=lambda task: ORDER.get(task.state, 1))
        shown = tasks if show_all else tasks[:SHOWN]
        if shown:
            parts.append(_table([_row(task) for task in shown]))
        if len(shown) < len(tasks):
            parts.append(Text(f"and {len(tasks) - len(shown)} more; --all prints them"))
        if run.artifacts.get("unknown"):
            how = f"`saevx run {run.path}` finds out why, and submits it again"
            parts.append(Text(f"unknown: the job has ended without an outcome; {how}"))
    return Group(*parts) if parts else Text("nothing is queued or running")


def _heading(run: RunState) -> str:
    if not run.run:
        return f"{run.name} ({run.executor}, {run.user})"
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.began))
    counts = ", ".join(f"{n} {state}" for state, n in run.artifacts.items()) or "nothing submitted"
    return f"{run.name} ({run.executor}, {run.user}, since {since}): {counts}"


def _table(rows: list[list[str]]) -> Table:
    """Return a table of jobs, without the columns that are empty for all of them."""
    columns = [i for i in range(len(COLUMNS)) if any(row[i] for row in rows)]
    rows = [[row[i] for i in columns] for row in rows]
    made = table([COLUMNS[i] for i in columns], rows, right=["left"])
    for column, i, cells in zip(made.columns, columns, zip(*rows, strict=True), strict=True):
        # Cells wrap between words. Only words of the last column may be broken.
        if COLUMNS[i] in UNBROKEN:
            column.no_wrap = True
        elif COLUMNS[i] != "why":
            words = [word for cell in cells for word in cell.split()]
            column.min_width = max(map(len, words), default=0)
    return made


def _row(task: TaskState) -> list[str]:
    """Return the cells of one job, as COLUMNS has them."""
    n = len(task.keys)
    what = f"{task.recipe} {task.keys[0][:8]}"
    what += f" and {n - 1} more" if n > 1 else ""
    what += f", {parts_text(task.parts)}" if task.parts else ""
    progress = [
        f"{task.n_made}/{n} artifacts" if task.n_made else "",
        f"{task.done}/{task.total} {task.unit}" if task.total else "",
        f"{task.rate:,.1f}/s" if task.rate else "",
    ]
    left = "" if task.left_s is None else f"{task.left_s:,.0f} s"
    done = ", ".join(filter(None, progress))
    return [task.state, task.job, what, task.node, done, left, task.reason[:200]]
