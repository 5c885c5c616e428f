"""saevx gc: move what nothing needs any more to the trash, and empty the trash after a time."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from saevx.cli.common.columns import size
from saevx.cli.common.options import clear_errors, json_option, store_option, warn
from saevx.cli.common.units import duration, things
from saevx.cli.maintenance.gc_report import Work
from store import KINDS

if TYPE_CHECKING:
    from store.gc.collector import Collected
    from store.gc.reachability import Reachability, Stale
    from store.layout import Ref


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.option("--kind", type=click.Choice(KINDS), help="Only artifacts of this kind.")
@click.option(
    "--keep-results",
    is_flag=True,
    help="With --kind: give up all of that kind that can be made again, though it is needed.",
)
@click.option(
    "--grace",
    type=duration,
    default="1h",
    show_default=True,
    metavar="TIME",
    help="Leave alone what is younger.",
)
@click.option(
    "--trash-days",
    type=click.FloatRange(min=0),
    default=7.0,
    show_default=True,
    help="Delete for good what has lain in the trash for so long.",
)
@click.option("--empty-trash", is_flag=True, help="Delete for good all that lies in the trash now.")
@click.option("--forget", metavar="FILE", help="Forget the recorded runs of this experiment.")
@click.option(
    "--unrecorded", is_flag=True, help="Go on although no run is recorded and nothing is pinned."
)
@click.option("--all", "show_all", is_flag=True, help="List every single thing.")
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
    """Move what nothing needs any more to the trash, after asking; delete what lay there for long.

    Needed is what the latest run of each experiment file wants, what is pinned, what is being made,
    what is younger than the grace time, and all that these were made from.
    """
    from saevx.workspace import open_workspace
    from store.gc.collector import collect
    from store.gc.reachability import Reachability
    from store.gc.roots import forget_runs

    _check_options(kind, keep_results, as_json, dry_run or yes)
    workspace = open_workspace(store)
    opened = workspace.store
    survey = Reachability(opened, grace, without=str(Path(forget).resolve()) if forget else "")
    _refresh(survey, quiet=as_json)
    if forget:
        _check_forgotten(survey, forget)
    work = _plan(survey, workspace, kind, keep_results)
    work.find_trash(opened, kind, 0.0 if empty_trash else trash_days)
    if not as_json:
        work.show(survey, show_all)
    if dry_run or (work.nothing and not forget):
        if not dry_run:
            collect(survey, [])  # it sweeps up after killed processes
        if as_json:
            click.echo(json.dumps(work.document(survey)))
        elif work.lacks_roots(survey) and not unrecorded:
            click.echo("\nas nothing says what is still wanted, gc moves nothing: see --unrecorded")
        return
    work.refuse_without_roots(survey, unrecorded)
    with _told_when_stopped("nothing was moved or deleted"):
        if not yes and not click.confirm(work.question(forget)):
            return
    with _told_when_stopped("what was moved is in the trash; gc again goes on from there"):
        n_forgotten = forget_runs(opened, forget) if forget else 0
        done = collect(survey, work.stale, None if as_json else _moving())
        deleted, deleted_bytes = work.empty_trash(opened)
    if as_json:
        click.echo(json.dumps(work.document(survey, done, deleted, deleted_bytes)))
    else:
        if forget:
            click.echo(f"forgot {things(n_forgotten, 'recorded run')} of {Path(forget).resolve()}")
        _say_done(done, deleted, deleted_bytes, trash_days)
    if done.failed:
        sys.exit(1)


def _check_options(kind: str | None, keep_results: bool, as_json: bool, decided: bool) -> None:
    if keep_results and kind is None:
        raise click.UsageError("--keep-results needs --kind, as in --kind shards --keep-results")
    if keep_results and kind == "results":
        raise click.UsageError("--keep-results keeps the results: choose another --kind")
    if as_json and not decided:
        raise click.UsageError("--json cannot ask: add --dry-run or --yes")


def _check_forgotten(survey: Reachability, file: str) -> None:
    """Refuses a file of which no run is recorded: it may be misspelt."""
    from saevx.errors import StoreError

    recorded = sorted({run.path for run in survey.roots.runs if run.path})
    if str(Path(file).resolve()) not in recorded:
        raise StoreError(
            f"no run of {Path(file).resolve()} is recorded in {survey.store.root}; recorded are "
            f"runs of {', '.join(recorded) or 'no file'}"
        )
    if any(run.path == str(Path(file).resolve()) for run in survey.roots.going_on):
        warn([f"a run of {file} may still be going on: its record, and what it wants, are kept"])


def _plan(survey: Reachability, workspace: Any, kind: str | None, keep_results: bool) -> Work:
    from saevx.check.sources import cannot_make
    from saevx.user_types import DeclaredTypes
    from store.gc.collector import evictable

    declared = DeclaredTypes(survey.roots.runs)
    stale = [item for item in survey.stale(declared.versions) if kind in (None, item.ref[0])]
    kept: list[tuple[Ref, int, str]] = []
    if keep_results and kind is not None:
        drop, kept = evictable(survey, kind, cannot_make(workspace, declared))
        stale += drop
    return Work(stale, kept)


def _refresh(survey: Reachability, quiet: bool) -> None:
    from saevx.cli.common.console import console

    out = console(stderr=True)
    if quiet or not out.is_terminal:
        survey.refresh()
        return
    with out.status("reading manifests") as status:
        survey.refresh(lambda n: status.update(f"reading manifests: {n:,}"))


@contextmanager
def _told_when_stopped(state: str) -> Iterator[None]:
    """Says on Ctrl-C how things stand."""
    try:
        yield
    except (KeyboardInterrupt, click.Abort):
        click.echo(f"\nstopped: {state}", err=True)
        sys.exit(128 + signal.SIGINT)


def _moving() -> Callable[[int, int], None] | None:
    """Tells on a terminal how far a long collection is."""
    if not sys.stderr.isatty():
        return None
    return lambda done, total: click.echo(f"\r{done:,} of {total:,}", nl=done == total, err=True)


def _say_done(done: Collected, deleted: int, deleted_bytes: int, trash_days: float) -> None:
    from store.gc.reachability import EVICTED, NOT_REACHED, OLDER

    can_come_back = {NOT_REACHED, OLDER, EVICTED}
    moved_bytes = sum(item.n_bytes for item in done.moved)
    if done.moved:
        whole = any(item.reason in can_come_back for item in done.moved)
        which = "a whole" if any(item.reason not in can_come_back for item in done.moved) else "an"
        back = f"`saevx restore KEY` brings {which} artifact back for {trash_days:g} days, and "
        click.echo(
            f"moved {things(len(done.moved), 'thing')}, {size(moved_bytes)}, to the trash; "
            f"{back if whole else ''}`saevx gc --empty-trash` frees the space"
        )
    if deleted:
        click.echo(f"deleted {things(deleted, 'thing')}, {size(deleted_bytes)}, for good")
    _say_each("left alone", done.spared)
    _say_each("could not be moved", done.failed)


def _say_each(what: str, items: Sequence[tuple[Stale, str]]) -> None:
    for item, why in items[:20]:
        click.echo(f"{what}: {item.ref[0]} {item.ref[1][:8]}: {why}", err=True)
    if len(items) > 20:
        click.echo(f"and {len(items) - 20} more", err=True)
