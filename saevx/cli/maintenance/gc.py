"""saevx gc: move what nothing needs any more to the trash, and delete what lay there for long."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from saevx.cli.common.console import console
from saevx.cli.common.options import clear_errors, json_option, store_option, warn
from saevx.cli.common.units import duration, things
from saevx.cli.maintenance.gc_report import Collection
from store import KINDS
from store.errors import StoreError
from store.gc.collector import evictable
from store.gc.reachability import Reachability
from store.gc.roots import forget_runs

if TYPE_CHECKING:
    from saevx.workspace import Workspace


@click.command()
@click.option("--dry-run", is_flag=True, help="Only print what would be done.")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.option("--kind", type=click.Choice(KINDS), help="Only artifacts of this kind.")
@click.option(
    "--keep-results",
    is_flag=True,
    help="With --kind: also evict artifacts that results need, if they can be recomputed.",
)
@click.option(
    "--grace",
    type=duration,
    default="1h",
    show_default=True,
    metavar="TIME",
    help="Keep what is younger than this.",
)
@click.option(
    "--trash-days",
    type=click.FloatRange(min=0),
    default=7.0,
    show_default=True,
    help="Delete for good what has been in the trash for this long.",
)
@click.option("--empty-trash", is_flag=True, help="Delete all of the trash for good.")
@click.option("--forget", metavar="FILE", help="Forget the recorded runs of this experiment.")
@click.option(
    "--unrecorded", is_flag=True, help="Collect even if no run is recorded and nothing is pinned."
)
@click.option("--all", "show_all", is_flag=True, help="List every item.")
@store_option
@json_option
@clear_errors
def gc(
    dry_run: bool,
    yes: bool,
    kind: str | None,
    keep_results: bool,
    grace: float,
    trash_days: float,
    empty_trash: bool,
    forget: str | None,
    unrecorded: bool,
    show_all: bool,
    store: str | None,
    as_json: bool,
) -> None:
    """Move what nothing needs to the trash, after asking, and delete what has long been there.

    Kept are the targets of the latest run of each experiment file, pins, what is being made, what
    is younger than the grace time, and everything that these were made from.
    """
    from saevx.workspace import open_workspace

    _check_options(kind, keep_results, as_json, dry_run or yes)
    workspace = open_workspace(store)
    forgotten = str(Path(forget).resolve()) if forget else ""
    survey = Reachability(workspace.store, grace, without=forgotten)
    with _status(as_json) as show:
        survey.refresh(lambda n: show(f"reading manifests: {n:,}"))
    if forget:
        _check_forgotten(survey, forgotten)
    found = _find(survey, workspace, kind, keep_results)
    found.find_trash(kind, 0.0 if empty_trash else trash_days)
    if not as_json:
        found.show(show_all)
    if not dry_run and (forget or not found.is_empty):
        if not unrecorded:
            found.check_roots()
        with _interrupt_reported("nothing was moved or deleted"):
            if not yes and not click.confirm(found.question(forget)):
                return
    if not dry_run:  # even if nothing is stale: it cleans up after killed processes
        interrupted = "what was moved is in the trash; run gc again to continue"
        with _interrupt_reported(interrupted), _status(as_json) as show:
            n_forgotten = forget_runs(workspace.store, forgotten) if forget else 0
            found.collect(lambda done, total: show(f"moving to the trash: {done:,} of {total:,}"))
        if forget and not as_json:
            click.echo(f"forgot {things(n_forgotten, 'recorded run')} of {forgotten}")
    if as_json:
        click.echo(json.dumps(found.document()))
    elif dry_run and found.lacks_roots and not unrecorded:
        click.echo("\nno run is recorded and nothing is pinned: gc needs --unrecorded to move this")
    else:
        found.show_done(trash_days)
    if found.done.failed:
        sys.exit(1)


def _check_options(kind: str | None, keep_results: bool, as_json: bool, decided: bool) -> None:
    if keep_results and kind is None:
        raise click.UsageError("--keep-results needs --kind, as in --kind shards --keep-results")
    if keep_results and kind == "results":
        raise click.UsageError("--keep-results keeps the results: choose another --kind")
    if as_json and not decided:
        raise click.UsageError("--json cannot ask: add --dry-run or --yes")


def _check_forgotten(survey: Reachability, file: str) -> None:
    """Raise StoreError for a file without recorded runs: it may be misspelt."""
    recorded = sorted({run.path for run in survey.roots.runs if run.path})
    if file not in recorded:
        raise StoreError(
            f"no run of {file} is recorded in {survey.store.root}; the recorded runs are of "
            f"{', '.join(recorded) or 'no file'}"
        )
    if any(run.path == file for run in survey.roots.in_progress):
        warn([f"a run of {file} may not have ended: its record, and what it needs, are kept"])


def _find(
    survey: Reachability, workspace: Workspace, kind: str | None, keep_results: bool
) -> Collection:
    from saevx.check.datasets import cannot_make
    from saevx.user_types import DeclaredTypes

    declared = DeclaredTypes(survey.roots.runs)
    found = Collection(
        survey, [item for item in survey.stale(declared.versions) if kind in (None, item.ref[0])]
    )
    if keep_results and kind is not None:
        evicted, found.kept = evictable(survey, kind, cannot_make(workspace, declared))
        found.stale += evicted
    return found


@contextmanager
def _status(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows one line of progress on a terminal."""
    out = console(stderr=True)
    if quiet or not out.is_terminal:
        yield lambda text: None
        return
    with out.status("") as status:
        yield status.update


@contextmanager
def _interrupt_reported(state: str) -> Iterator[None]:
    """Exit on Ctrl-C with a message about the state of the store."""
    try:
        yield
    except (KeyboardInterrupt, click.Abort):
        click.echo(f"\nstopped: {state}", err=True)
        sys.exit(128 + signal.SIGINT)
