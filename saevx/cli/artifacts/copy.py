"""Copies between stores, for `saevx export --to` and `saevx import`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from saevx.cli.common.console import byte_bar
from saevx.cli.common.units import size, things
from saevx.config import open_store
from saevx.errors import StoreError
from saevx.query.key_lookup import find_by_prefix
from store import KINDS, Store, StoredArtifact
from store.copy import copy
from store.gc.scan import below
from store.layout import Ref


class Copies:
    """The artifacts to copy, and the result of each copy."""

    def __init__(self, source: Store, target: Store) -> None:
        self.source, self.target = source, target
        self.wanted: dict[Ref, StoredArtifact] = {}
        self.absent: set[Ref] = set()
        """Parents that the source does not have."""
        self.copied: list[Ref] = []
        self.n_present = 0
        """How many the target had already."""
        self.failed: list[tuple[str | None, str, str]] = []
        """Kind, key and reason; no kind where a key matches no artifact."""

    def add(self, key: str, parents: bool) -> None:
        """Add an artifact, after its parents if these are asked for."""
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
        else:
            self.wanted[ref] = artifact

    def make(self, progress: Callable[[int, int], None] | None) -> None:
        """Copy all; `progress` is called with the bytes copied so far, and with all bytes."""
        total, done = sum(artifact.n_bytes for artifact in self.wanted.values()), 0

        def advance(n: int) -> None:
            nonlocal done
            done += n
            if progress:
                progress(done, total)

        for ref in self.wanted:
            try:
                if copy(self.source, self.target, *ref, advance):
                    self.copied.append(ref)
                else:
                    self.n_present += 1
            except StoreError as error:
                self.failed.append((*ref, str(error)))

    def document(self) -> dict[str, Any]:
        return {
            "to": str(self.target.root),
            "copied": [{"kind": kind, "key": key} for kind, key in self.copied],
            "there": self.n_present,
            "absent": [{"kind": kind, "key": key} for kind, key in sorted(self.absent)],
            "failed": [{"kind": kind, "key": key, "why": why} for kind, key, why in self.failed],
            "n_bytes": self.n_bytes,
        }

    @property
    def n_bytes(self) -> int:
        return sum(self.wanted[ref].n_bytes for ref in self.copied)

    def show(self) -> None:
        present = f"; {self.n_present} of {len(self.wanted)} there already"
        click.echo(
            f"copied {things(len(self.copied))}, {size(self.n_bytes)}, to {self.target.root}"
            f"{present if self.n_present else ''}"
        )
        if self.absent:
            click.echo(f"{things(len(self.absent), 'parent')} not found in {self.source.root}")
        if self.copied:
            click.echo(
                f"`saevx gc` on {self.target.root} keeps what an experiment there wants, and what "
                "is pinned"
            )
        for kind, key, why in self.failed:
            click.echo(f"not copied: {f'{kind} ' if kind else ''}{key}: {why}", err=True)


def copy_all(
    source: Store, target: Store, keys: Sequence[str], parents: bool, as_json: bool
) -> None:
    """Copy artifacts, parents first, and print a summary.

    Continues where one cannot be copied, and then exits with 1.
    """
    copies = Copies(source, target)
    for key in keys:
        copies.add(key, parents)
    with byte_bar("copying", quiet=as_json) as progress:
        copies.make(progress)
    if as_json:
        click.echo(json.dumps(copies.document()))
    else:
        copies.show()
    if copies.failed:
        sys.exit(1)


def existing_store(folder: str) -> Store:
    """Open the store at a folder. Raises StoreError if there is none."""
    store = open_store(folder)
    if not any(store.root_of(kind).is_dir() for kind in KINDS):
        raise StoreError(f"there is no store at {store.root}")
    return store
