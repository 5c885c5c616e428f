"""What `saevx export --to` and `saevx import` share: copies between stores."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from saevx.cli.common.columns import size
from saevx.cli.common.units import things

if TYPE_CHECKING:
    from store import Store, StoredArtifact
    from store.layout import Ref


class Copies:
    """What is to be copied, and what became of it."""

    def __init__(self, source: Store, target: Store) -> None:
        self.source, self.target = source, target
        self.wanted: dict[Ref, StoredArtifact] = {}
        self.absent: set[Ref] = set()
        """What an artifact was made from, and the source does not have."""
        self.copied: list[Ref] = []
        self.n_bytes = 0
        self.failed: list[tuple[str | None, str, str]] = []
        """Kind, key and why; no kind where a key stands for no artifact."""

    def ask_for(self, key: str, parents: bool) -> None:
        """Adds an artifact, after what it was made from."""
        from saevx.errors import StoreError
        from saevx.query.key_lookup import find_by_prefix
        from store.gc.scan import below

        try:
            artifact, fault = find_by_prefix(self.source, key)
            ref = artifact.kind, artifact.key
            if fault:
                self.failed.append((*ref, f"it is {fault}"))
                return
            for parent in below(self.source, ref)[:0:-1] if parents else []:
                found = self.source.find(*parent)
                if found is None:
                    self.absent.add(parent)
                else:
                    self.wanted[parent] = found
        except StoreError as error:
            self.failed.append((None, key, str(error)))
            return
        self.wanted[ref] = artifact

    def make(self, progress: Callable[[int], None] | None) -> None:
        from saevx.errors import StoreError
        from store.copy import copy

        for ref, artifact in self.wanted.items():
            try:
                if copy(self.source, self.target, *ref, progress):
                    self.copied.append(ref)
                    self.n_bytes += artifact.n_bytes
            except StoreError as error:
                self.failed.append((*ref, str(error)))

    @property
    def n_there(self) -> int:
        """How many the target had already."""
        failed = {(kind, key) for kind, key, _ in self.failed}
        return len(self.wanted.keys() - failed) - len(self.copied)

    def document(self) -> dict[str, Any]:
        return {
            "to": str(self.target.root),
            "copied": [{"kind": kind, "key": key} for kind, key in self.copied],
            "there": self.n_there,
            "absent": [{"kind": kind, "key": key} for kind, key in sorted(self.absent)],
            "failed": [{"kind": kind, "key": key, "why": why} for kind, key, why in self.failed],
            "n_bytes": self.n_bytes,
        }

    def show(self) -> None:
        n = self.n_there
        had = f"; {n} of {len(self.wanted)} there already" if n else ""
        what = f"{things(len(self.copied))}, {size(self.n_bytes)}"
        click.echo(f"copied {what}, to {self.target.root}{had}")
        if self.absent:
            n_absent = things(len(self.absent))
            click.echo(f"{n_absent} that they were made from are not in {self.source.root}")
        if self.copied:
            click.echo(
                f"`saevx gc` on {self.target.root} keeps what an experiment there wants, or what "
                "is pinned"
            )
        for kind, key, why in self.failed:
            click.echo(f"not copied: {f'{kind} ' if kind else ''}{key}: {why}", err=True)


def copy_all(
    source: Store, target: Store, keys: Sequence[str], parents: bool, as_json: bool
) -> None:
    """Copies artifacts, what they are made from first, and says what was done.

    Goes on with the others where one cannot be copied, and then ends with 1.
    """
    copies = Copies(source, target)
    for key in keys:
        copies.ask_for(key, parents)
    with _bar(sum(a.n_bytes for a in copies.wanted.values()), as_json) as progress:
        copies.make(progress)
    if as_json:
        click.echo(json.dumps(copies.document()))
    else:
        copies.show()
    if copies.failed:
        sys.exit(1)


def other_store(folder: str, must_exist: bool) -> Store:
    from saevx.config import open_store
    from saevx.errors import StoreError
    from store import KINDS

    store = open_store(folder)
    if must_exist and not any(store.root_of(kind).is_dir() for kind in KINDS):
        raise StoreError(f"there is no store at {store.root}")
    return store


@contextmanager
def _bar(total: int, quiet: bool) -> Iterator[Callable[[int], None] | None]:
    from saevx.cli.common.console import console

    out = console(stderr=True)
    if quiet or not out.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    with Progress(BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=out) as shown:
        task = shown.add_task("copying", total=total)
        yield lambda n: shown.advance(task, n)
