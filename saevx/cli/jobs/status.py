"""saevx status: what is queued and running."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from saevx.cli.common.options import clear_errors, json_option, store_option

if TYPE_CHECKING:
    from rich.console import Console

    from saevx.dispatch.follow.find import Follower
    from saevx.dispatch.runs.status import RunState, TaskState

SHOWN = 40
"""Elements of one run that are printed, unless --all."""

LOOK_S = 3.0
"""Seconds between two looks of --watch."""

COLUMNS = ("state", "job", "what", "node", "progress", "left", "why")
WHOLE = ("state", "job", "left")

_FIRST = ("running", "unknown")
_LAST = ("waiting",)


@click.command()
@click.option("--all", "show_all", is_flag=True, help="Print every job, however many there are.")
@click.option("--watch", "-w", is_flag=True, help="Look again every few seconds.")
@store_option
@json_option
@clear_errors
def status(show_all: bool, watch: bool, store: str | None, as_json: bool) -> None:
    """Say what is queued and running in the store's runs, and what has failed in them."""
    from saevx.config import open_store
    from saevx.dispatch.runs.status import run_states

    if watch and as_json:
        raise click.UsageError("--watch draws a table again and again: use --json without it")
    opened = open_store(store)
    if as_json:
        click.echo(json.dumps([run.document for run in run_states(opened)]))
        return
    from saevx.cli.common.console import console

    out = console()
    if watch:
        with suppress(KeyboardInterrupt):  # the only way to end it, and nothing is lost
            _watch(out, lambda: _draw(run_states(opened), show_all))
    else:
        out.print(_draw(run_states(opened), show_all))


def _watch(out: Console, draw: Callable[[], Any]) -> None:
    """Draw again and again: in place on a terminal, one below the other elsewhere."""
    from rich.live import Live

    if not out.is_terminal:
        while True:
            out.print(draw())
            time.sleep(LOOK_S)
    with Live(console=out, auto_refresh=False) as live:
        while True:
            live.update(draw(), refresh=True)
            time.sleep(LOOK_S)


def _draw(runs: list[RunState], show_all: bool) -> Any:
    from rich.console import Group
    from rich.text import Text

    if not runs:
        return Text("nothing is queued or running")
    parts: list[Any] = []
    for run in runs:
        parts.append(Text(_head(run), style="bold"))
        if run.follower:
            parts.append(Text(_following(run.follower)))
        elements = sorted(run.tasks, key=_place)
        shown = elements if show_all else elements[:SHOWN]
        if shown:
            parts.append(_table([_row(element) for element in shown]))
        if len(shown) < len(elements):
            parts.append(Text(f"and {len(elements) - len(shown)} more; --all prints them"))
        if run.artifacts.get("unknown"):
            parts.append(
                Text(f"unknown: it ended without a word; `saevx run {run.path}` finds out why")
            )
    return Group(*parts)


def _head(run: RunState) -> str:
    counts = ", ".join(f"{n} {state}" for state, n in run.artifacts.items())
    if not run.run:
        return f"{run.name} ({run.executor}, {run.user})"
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.began))
    return f"{run.name} ({run.executor}, {run.user}, since {since}): {counts or 'nothing sent'}"


def _following(one: Follower) -> str:
    does = f"runs on {one.node}" if one.running else f"waits ({one.reason})"
    return f"followed by Slurm job {one.job}, which {does}; log: {one.log}"


def _table(rows: list[list[Any]]) -> Any:
    """Rows of elements, without the columns that are empty in all of them."""
    from saevx.cli.common.console import table

    filled = [i for i in range(len(COLUMNS)) if any(row[i] for row in rows)]
    names = [COLUMNS[i] for i in filled]
    made = table(names, [[row[i] for i in filled] for row in rows], right=["left"])
    for column, i in zip(made.columns, filled, strict=True):
        column.overflow = "fold"
        # Text wraps between words; a word is never broken, but for those of the last column.
        if COLUMNS[i] in WHOLE:
            column.no_wrap = True
        elif COLUMNS[i] != "why":
            words = [word for row in rows for word in str(row[i]).split()]
            column.min_width = max(map(len, words), default=0)
    return made


def _place(element: TaskState) -> int:
    return 0 if element.state in _FIRST else 2 if element.state in _LAST else 1


def _row(element: TaskState) -> list[Any]:
    from saevx.dispatch.batching import parts_text

    what = f"{element.recipe} {element.keys[0][:8]}"
    what += f" and {len(element.keys) - 1} more" if len(element.keys) > 1 else ""
    what += f", {parts_text(element.parts)}" if element.parts else ""
    progress = [f"{element.n_made}/{len(element.keys)} artifacts"] if element.n_made else []
    if element.total:
        progress.append(f"{element.done}/{element.total} {element.unit}")
    if element.rate:
        progress.append(f"{element.rate:,.1f}/s")
    left = "" if element.left_s is None else f"{element.left_s:,.0f} s"
    return [
        element.state,
        element.job,
        what,
        element.node,
        ", ".join(progress),
        left,
        element.reason[:200],
    ]
