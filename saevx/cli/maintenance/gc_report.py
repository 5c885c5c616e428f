"""What a collection is to do, as `saevx gc` tells and asks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from saevx.cli.common.columns import lay_out, size
from saevx.cli.common.units import things

if TYPE_CHECKING:
    from store import Store
    from store.gc.collector import Collected
    from store.gc.reachability import Reachability, Stale
    from store.layout import Ref
    from store.trash.contents import Entry


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
        from store.io import bytes_in
        from store.trash.contents import entries

        before = time.time() - 86400 * days
        self.trash = [(e, bytes_in(e.path)) for e in entries(store, kind) if e.moved <= before]

    def empty_trash(self, store: Store) -> tuple[int, int]:
        from store.gc.collector import empty_trash

        gone = list(empty_trash(store, [entry for entry, _ in self.trash])) if self.trash else []
        return len(gone), sum(n_bytes for _, n_bytes in gone)

    def lacks_roots(self, survey: Reachability) -> bool:
        """Whether it would move artifacts of a store that does not say what is wanted."""
        wanted = survey.runs or survey.roots.pins
        return not wanted and any(item.type for item in self.stale)

    def refuse_without_roots(self, survey: Reachability, unrecorded: bool) -> None:
        from saevx.errors import StoreError

        if unrecorded or not self.lacks_roots(survey):
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

    def show(self, survey: Reachability, show_all: bool) -> None:
        from saevx.cli.common.console import console, table

        out = console()
        _show_roots(survey)
        rows = _by_reason(
            (item.ref[0], item.reason, item.type, item.n_bytes) for item in self.stale
        )
        rows += _by_reason((e.kind, "in the trash", "", n) for e, n in self.trash)
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
            names = ["key", "kind", "type", "size", "why"]
            if lines:  # not in a table: keys must not be broken
                click.echo("\n".join(["", *lay_out(names, lines, {"size"})]))

    def document(
        self,
        survey: Reachability,
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


def _show_roots(survey: Reachability) -> None:
    from saevx.cli.common.console import console

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
        from store.gc.reachability import duration as words

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
