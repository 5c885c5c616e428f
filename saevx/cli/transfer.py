"""What `saevx export --to` and `saevx import` share: copies between stores."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from .listing import size
from .units import things

if TYPE_CHECKING:
    from store import Artifact, Store


def copy_all(
    source: Store, target: Store, keys: Sequence[str], parents: bool, as_json: bool
) -> None:
    """Copies artifacts, what they are made from first, and says what was done."""
    from store.inventory import below
    from store.transfer import copy

    from ..errors import StoreError
    from .show import find_one

    asked = [find_one(source, key) for key in keys]
    wanted: dict[tuple[str, str], Artifact] = {}
    absent: set[tuple[str, str]] = set()
    for artifact in asked:
        refs = below(source, (artifact.kind, artifact.key))[::-1] if parents else []
        for ref in [*refs, (artifact.kind, artifact.key)]:
            found = source.find(*ref)
            if found is not None:
                wanted[ref] = found
            elif ref == (artifact.kind, artifact.key):
                raise StoreError(f"{artifact.path} is {source.absence(*ref)}; nothing was copied")
            else:
                absent.add(ref)
    copied, n_bytes = [], 0
    with _bar(sum(a.n_bytes for a in wanted.values()), as_json) as advance:
        for (kind, key), artifact in wanted.items():
            if copy(source, target, kind, key, advance):
                copied.append((kind, key))
                n_bytes += artifact.n_bytes
    if as_json:
        document = {
            "to": str(target.root),
            "copied": [{"kind": kind, "key": key} for kind, key in copied],
            "there": len(wanted) - len(copied),
            "absent": [{"kind": kind, "key": key} for kind, key in sorted(absent)],
            "n_bytes": n_bytes,
        }
        click.echo(json.dumps(document))
        return
    n_there = len(wanted) - len(copied)
    had = f"; {n_there} of {len(wanted)} there already" if n_there else ""
    click.echo(f"copied {things(len(copied))}, {size(n_bytes)}, to {target.root}{had}")
    if absent:
        click.echo(f"{things(len(absent))} that they were made from are not in {source.root}")
    if copied:
        click.echo(
            f"`saevx gc` on {target.root} keeps what an experiment there wants, or what is pinned"
        )


def other_store(folder: str, must_exist: bool) -> Store:
    from store import KINDS

    from ..config import open_store
    from ..errors import StoreError

    store = open_store(folder)
    if must_exist and not any(store.root_of(kind).is_dir() for kind in KINDS):
        raise StoreError(f"there is no store at {store.root}")
    return store


@contextmanager
def _bar(total: int, quiet: bool) -> Iterator[Callable[[int], None] | None]:
    from .console import console

    out = console(stderr=True)
    if quiet or not out.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    with Progress(BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=out) as shown:
        task = shown.add_task("copying", total=total)
        yield lambda n: shown.advance(task, n)
