"""What `saevx gc` is about to collect, and what it has collected."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from saevx.cli.common.columns import lay_out
from saevx.cli.common.console import console, table
from saevx.cli.common.units import size, things
from store.errors import StoreError
from store.gc.collector import Collected, collect, empty_trash
from store.gc.reachability import Reachability, Stale, StaleReason, duration
from store.io import bytes_in
from store.layout import Ref
from store.trash.contents import TrashEntry, entries

SHOWN = 20
"""Items of one outcome that are printed."""


@dataclass
class Collection:
    """What to collect, and once that is done, the outcome."""

    survey: Reachability
    stale: list[Stale]
    kept: list[tuple[Ref, int, str]] = field(default_factory=list)
    """Artifacts that --keep-results does not evict: their bytes, and why."""
    trash: list[tuple[TrashEntry, int]] = field(default_factory=list)
    """What to delete from the trash, with its bytes."""
    done: Collected = field(default_factory=Collected)
    deleted: list[int] = field(default_factory=list)
    """Bytes of each entry deleted from the trash."""

    @property
    def is_empty(self) -> bool:
        return not self.stale and not self.trash

    @property
    def lacks_roots(self) -> bool:
        """Whether artifacts would be moved although nothing in the store says what is needed."""
        roots = self.survey.runs or self.survey.roots.pins
        return not roots and any(item.type for item in self.stale)

    def find_trash(self, kind: str | None, days: float) -> None:
        before = time.time() - 86400 * days
        found = entries(self.survey.store, kind)
        self.trash = [(entry, bytes_in(entry.path)) for entry in found if entry.moved <= before]

    def check_roots(self) -> None:
        """Raise StoreError if nothing in the store says what is needed."""
        if self.lacks_roots:
            raise StoreError(
                f"no run is recorded in {self.survey.store.root} and nothing is pinned, so gc "
                "cannot tell what is still needed. Run the experiments that matter again (`saevx "
                "run FILE` recomputes nothing that is in the store), pin what to keep (`saevx pin "
                "KEY`), or pass --unrecorded"
            )

    def collect(self, progress: Callable[[int, int], None]) -> None:
        """Move stale items to the trash, and delete old ones from it."""
        self.done = collect(self.survey, self.stale, progress)
        if self.trash:
            gone = empty_trash(self.survey.store, [entry for entry, _ in self.trash])
            self.deleted = [n_bytes for _, n_bytes in gone]

    def question(self, forget: str | None) -> str:
        parts = [f"forget the runs of {forget}"] if forget else []
        if self.stale:
            parts.append(f"move {_total(i.n_bytes for i in self.stale)} to the trash")
        if self.trash:
            parts.append(f"delete {_total(n for _, n in self.trash)} from the trash for good")
        text = ", and ".join(parts)
        return f"\n{text[0].upper()}{text[1:]}?"

    def show(self, show_all: bool) -> None:
        """Print what keeps artifacts, and what is to be collected."""
        self._show_roots()
        rows = _by_reason((i.ref[0], i.reason, i.type, i.n_bytes) for i in self.stale)
        rows += _by_reason((entry.kind, "in the trash", "", n) for entry, n in self.trash)
        if rows:
            click.echo("")
            names = ["kind", "reason", "type", "count", "size"]
            console().print(table(names, rows, ["count", "size"]))
        else:
            click.echo("\nnothing is stale")
        kept: dict[str, list[int]] = {}
        for _, n_bytes, why in self.kept:
            kept.setdefault(why, []).append(n_bytes)
        for why, sizes in kept.items():
            click.echo(f"kept: {things(len(sizes))}, {size(sum(sizes))}: {why}")
        if show_all and self.stale:  # not by rich, which would break keys
            lines = [[i.ref[1], i.ref[0], i.type, size(i.n_bytes), i.detail] for i in self.stale]
            names = ["key", "kind", "type", "size", "why"]
            click.echo("\n".join(["", *lay_out(names, lines, {"size"})]))

    def _show_roots(self) -> None:
        survey, alive = self.survey, self._alive
        click.echo(
            f"{things(len(alive))} alive, {size(sum(alive))} in {survey.store.root}; kept by"
        )
        lines = []
        for run in survey.runs:
            gone = "" if not run.path or Path(run.path).exists() else "  (no such file here)"
            lines.append(f"{run}: {things(len(run.targets), 'target')}{gone}")
        lines += [f"{pin.kind} {pin.key[:8]}, {pin}" for pin in survey.roots.pins]
        if making := survey.being_made():
            lines.append(f"{things(len(making))} being made")
        if survey.young:
            lines.append(f"{things(len(survey.young))} younger than {duration(survey.grace_s)}")
        for line in lines or ["nothing: no run is recorded, and nothing is pinned"]:
            click.echo(f"  {line}")

    def show_done(self, trash_days: float) -> None:
        """Print what was moved and deleted, and what was not and why."""
        if self.done.moved:
            moved = _total(item.n_bytes for item in self.done.moved)
            intact = any(
                i.reason in (StaleReason.NOT_REACHED, StaleReason.OLDER, StaleReason.EVICTED)
                for i in self.done.moved
            )
            days = f"`saevx restore KEY` brings an artifact back within {trash_days:g} days; "
            click.echo(
                f"moved {moved} to the trash; {days if intact else ''}"
                "`saevx gc --empty-trash` frees the space now"
            )
        if self.deleted:
            click.echo(f"deleted {_total(self.deleted)} for good")
        _show_each("not moved", self.done.spared)
        _show_each("could not be moved", self.done.failed)

    def document(self) -> dict[str, Any]:
        survey = self.survey
        return {
            "store": str(survey.store.root),
            "roots": [str(root) for root in (*survey.runs, *survey.roots.pins)],
            "alive": {"n": len(self._alive), "n_bytes": sum(self._alive)},
            "stale": [_item(item, item.detail) for item in self.stale],
            "kept": [
                {"kind": ref[0], "key": ref[1], "n_bytes": n_bytes, "why": why}
                for ref, n_bytes, why in self.kept
            ],
            "old_trash": [
                {"kind": e.kind, "key": e.key, "moved": e.moved, "n_bytes": n}
                for e, n in self.trash
            ],
            "moved": [item.ref[1] for item in self.done.moved],
            "spared": [_item(item, why) for item, why in self.done.spared],
            "failed": [_item(item, why) for item, why in self.done.failed],
            "deleted": {"n": len(self.deleted), "n_bytes": sum(self.deleted)},
        }

    @property
    def _alive(self) -> list[int]:
        """Bytes of each artifact in the store that something keeps."""
        survey = self.survey
        return [entry.n_bytes for ref, entry in survey.artifacts.items() if ref in survey.reachable]


def _total(sizes: Iterable[int]) -> str:
    """Return a number of items and their bytes, as in `2 items (1.2 GB)`."""
    sizes = list(sizes)
    return f"{things(len(sizes), 'item')} ({size(sum(sizes))})"


def _by_reason(items: Iterable[tuple[str, str, str, int]]) -> list[list[Any]]:
    groups: dict[tuple[str, str, str], list[int]] = {}
    for kind, reason, type_name, n_bytes in items:
        groups.setdefault((kind, reason, type_name), []).append(n_bytes)
    return [[*group, f"{len(n):,}", size(sum(n))] for group, n in sorted(groups.items())]


def _show_each(outcome: str, items: Sequence[tuple[Stale, str]]) -> None:
    for item, why in items[:SHOWN]:
        click.echo(f"{outcome}: {item.ref[0]} {item.ref[1][:8]}: {why}", err=True)
    if len(items) > SHOWN:
        click.echo(f"and {len(items) - SHOWN} more", err=True)


def _item(item: Stale, detail: str) -> dict[str, Any]:
    return {
        "kind": item.ref[0],
        "key": item.ref[1],
        "type": item.type,
        "reason": item.reason,
        "detail": detail,
        "n_bytes": item.n_bytes,
    }
