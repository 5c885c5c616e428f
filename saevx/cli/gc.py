"""saevx gc: move what nothing needs any more to the trash, and empty the trash after a time."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import clear_errors, json_option, store_option
from .units import duration, size, things

if TYPE_CHECKING:
    from store import Store
    from store.gc import Collected
    from store.records import Ref
    from store.survey import Stale, Survey
    from store.trash import Entry

KINDS = ("shards", "checkpoints", "activations", "results")


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
    from store.gc import collect
    from store.roots import forget_runs
    from store.survey import Survey

    from ..workspace import open_workspace

    _check_options(kind, keep_results, as_json, dry_run or yes)
    workspace = open_workspace(store)
    opened = workspace.store
    survey = Survey(opened, grace, without=str(Path(forget).resolve()) if forget else "")
    _refresh(survey, quiet=as_json)
    work = _plan(survey, workspace, kind, keep_results)
    work.find_trash(opened, kind, 0.0 if empty_trash else trash_days)
    if not as_json:
        work.show(survey, show_all)
    if dry_run or (work.nothing and not forget):
        if as_json:
            click.echo(json.dumps(work.document(survey)))
        return
    work.refuse_without_roots(survey, unrecorded)
    if not yes and not click.confirm(work.question(forget)):
        return
    if forget:
        forget_runs(opened, forget)
    done = collect(survey, work.stale, None if as_json else _moving())
    deleted, deleted_bytes = work.empty_trash(opened)
    if as_json:
        click.echo(json.dumps(work.document(survey, done, deleted, deleted_bytes)))
    else:
        _say_done(done, deleted, deleted_bytes, trash_days)
    if done.failed:
        sys.exit(1)


class Work:
    """What a collection is to do."""

    def __init__(self, stale: list[Stale], kept: list[tuple[Ref, int, str]]) -> None:
        self.stale = stale
        self.kept = kept
        """What is not given up although asked for: bytes, and why."""
        self.trash: list[tuple[Entry, int]] = []

    @property
    def nothing(self) -> bool:
        return not self.stale and not self.trash

    @property
    def n_bytes(self) -> int:
        return sum(item.n_bytes for item in self.stale)

    def find_trash(self, store: Store, kind: str | None, days: float) -> None:
        from store.trash import bytes_in, entries

        before = time.time() - 86400 * days
        self.trash = [(e, bytes_in(e.path)) for e in entries(store, kind) if e.moved <= before]

    def empty_trash(self, store: Store) -> tuple[int, int]:
        from store.gc import empty_trash

        gone = list(empty_trash(store, [entry for entry, _ in self.trash])) if self.trash else []
        return len(gone), sum(n_bytes for _, n_bytes in gone)

    def refuse_without_roots(self, survey: Survey, unrecorded: bool) -> None:
        from ..errors import StoreError

        wanted = survey.runs or survey.roots.pins
        if unrecorded or wanted or not any(item.type for item in self.stale):
            return
        raise StoreError(
            f"no run is recorded in {survey.store.root} and nothing is pinned, so that nothing "
            "says what is still wanted. Run the experiments that matter again (`saevx run FILE` "
            "makes nothing again that is there), or pin what to keep (`saevx pin KEY`), or pass "
            "--unrecorded"
        )

    def question(self, forget: str | None) -> str:
        parts = [f"Forget the runs of {forget}"] if forget else []
        if self.stale:
            parts.append(
                f"move {things(len(self.stale), 'thing')}, {size(self.n_bytes)}, to the trash"
            )
        if self.trash:
            n_bytes = sum(n for _, n in self.trash)
            what = f"{things(len(self.trash), 'thing')}, {size(n_bytes)}, in the trash for good"
            parts.append(f"delete {what}")
        text = ", and ".join(parts)
        return f"\n{text[0].upper()}{text[1:]}?"

    def show(self, survey: Survey, show_all: bool) -> None:
        from .console import console, table

        out = console()
        _show_roots(survey)
        rows = _by_reason(
            (item.ref[0], item.reason, item.type, item.n_bytes) for item in self.stale
        )
        rows += _by_reason((e.kind, "in the trash for long", "", n) for e, n in self.trash)
        if not rows:
            out.print("\nnothing is stale", markup=False)
        else:
            out.print("")
            out.print(table(["kind", "reason", "what", "count", "size"], rows, ["count", "size"]))
        kept: dict[str, list[int]] = {}
        for _, n_bytes, why in self.kept:
            kept.setdefault(why, []).append(n_bytes)
        for why, sizes in kept.items():
            out.print(f"kept: {things(len(sizes))}, {size(sum(sizes))}: {why}", markup=False)
        if show_all:
            lines = [[i.ref[1], i.ref[0], i.type, size(i.n_bytes), i.detail] for i in self.stale]
            out.print("")
            out.print(table(["key", "kind", "type", "size", "why"], lines, ["size"]))

    def document(
        self,
        survey: Survey,
        done: Collected | None = None,
        deleted: int = 0,
        deleted_bytes: int = 0,
    ) -> dict[str, Any]:
        alive = [one for ref, one in survey.standing.items() if ref in survey.causes]
        return {
            "store": str(survey.store.root),
            "roots": [str(root) for root in (*survey.runs, *survey.roots.pins)],
            "alive": {"n": len(alive), "n_bytes": sum(one.n_bytes for one in alive)},
            "stale": [_item(item) for item in self.stale],
            "kept": [
                {"kind": ref[0], "key": ref[1], "n_bytes": n_bytes, "why": why}
                for ref, n_bytes, why in self.kept
            ],
            "old_trash": [
                {"kind": e.kind, "key": e.key, "moved": e.moved, "n_bytes": n}
                for e, n in self.trash
            ],
            "moved": [item.ref[1] for item in done.moved] if done else [],
            "spared": [_item(item) | {"detail": why} for item, why in done.spared] if done else [],
            "failed": [_item(item) | {"detail": why} for item, why in done.failed] if done else [],
            "deleted": {"n": deleted, "n_bytes": deleted_bytes},
        }


def _check_options(kind: str | None, keep_results: bool, as_json: bool, decided: bool) -> None:
    if keep_results and kind is None:
        raise click.UsageError("--keep-results needs --kind, as in --kind shards --keep-results")
    if keep_results and kind == "results":
        raise click.UsageError("--keep-results keeps the results: choose another --kind")
    if as_json and not decided:
        raise click.UsageError("--json cannot ask: add --dry-run or --yes")


def _plan(survey: Survey, workspace: Any, kind: str | None, keep_results: bool) -> Work:
    from store.gc import given_up

    from ..doctor import cannot_make, known_versions

    versions = known_versions()
    stale = [item for item in survey.stale(versions) if kind in (None, item.ref[0])]
    kept: list[tuple[Ref, int, str]] = []
    if keep_results and kind is not None:
        drop, kept = given_up(survey, kind, cannot_make(workspace, versions))
        stale += drop
    return Work(stale, kept)


def _refresh(survey: Survey, quiet: bool) -> None:
    from .console import console

    out = console(stderr=True)
    if quiet or not out.is_terminal:
        survey.refresh()
        return
    with out.status("reading manifests") as status:
        survey.refresh(lambda n: status.update(f"reading manifests: {n:,}"))


def _moving() -> Callable[[int, int], None] | None:
    """Tells on a terminal how far a long collection is."""
    if not sys.stderr.isatty():
        return None
    return lambda done, total: click.echo(f"\r{done:,} of {total:,}", nl=done == total, err=True)


def _show_roots(survey: Survey) -> None:
    from .console import console

    out = console()
    alive = [one for ref, one in survey.standing.items() if ref in survey.causes]
    total = size(sum(one.n_bytes for one in alive))
    out.print(f"{things(len(alive))} alive, {total} in {survey.store.root}; kept by", markup=False)
    if not survey.causes:
        out.print("  nothing: no run is recorded, and nothing is pinned")
    for run in survey.runs:
        gone = "" if not run.path or Path(run.path).exists() else "  (no such file here)"
        out.print(f"  {run}: {things(len(run.targets), 'target')}{gone}", markup=False)
    for pin in survey.roots.pins:
        out.print(f"  {pin.kind} {pin.key[:8]}, {pin}", markup=False)
    if making := survey.making():
        out.print(f"  {things(len(making))} being made")
    if young := len(survey.young):
        from store.survey import duration as words

        out.print(f"  {things(young)} younger than {words(survey.grace_s)}")


def _by_reason(items: Any) -> list[list[Any]]:
    groups: dict[tuple[str, str, str], list[int]] = {}
    for kind, reason, type_name, n_bytes in items:
        groups.setdefault((kind, reason, type_name), []).append(n_bytes)
    return [[*where, f"{len(n):,}", size(sum(n))] for where, n in sorted(groups.items())]


def _item(item: Stale) -> dict[str, Any]:
    return {
        "kind": item.ref[0],
        "key": item.ref[1],
        "type": item.type,
        "reason": item.reason,
        "detail": item.detail,
        "n_bytes": item.n_bytes,
    }


def _say_done(done: Collected, deleted: int, deleted_bytes: int, trash_days: float) -> None:
    moved_bytes = sum(item.n_bytes for item in done.moved)
    if done.moved:
        click.echo(
            f"moved {things(len(done.moved), 'thing')}, {size(moved_bytes)}, to the trash; "
            f"`saevx restore KEY` brings an artifact back for {trash_days:g} days, and "
            "`saevx gc --empty-trash` frees the space"
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
