"""saevx ls: the artifacts in the store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from .options import clear_errors, json_option, store_option

if TYPE_CHECKING:
    from store import Artifact as Stored

KINDS = ("shards", "checkpoints", "activations", "results")


@click.command()
@click.option("--kind", type=click.Choice(KINDS), help="Only artifacts of this kind.")
@click.option("--columns", metavar="A,B", help="Fields to show, as in layer,vit.name,n_train.")
@store_option
@json_option
@clear_errors
def ls(kind: str | None, columns: str | None, store: str | None, as_json: bool) -> None:
    """List the artifacts in the store, newest last."""
    from ..config import open_store

    opened = open_store(store)
    artifacts = sorted(opened.scan(kind), key=lambda found: found.manifest.created)
    fields = [name.strip() for name in columns.split(",")] if columns else []
    rows = [_row(artifact, fields) for artifact in artifacts]
    if as_json:
        click.echo(json.dumps(rows))
        return
    from .console import console, table

    out = console()
    if rows:
        names = ["key", "kind", "type", "size", "made", *fields]
        shown = [
            [row["key"][:8], row["kind"], row["type"], _size(row["n_bytes"]), _when(row["created"])]
            + [row["fields"].get(name) for name in fields]
            for row in rows
        ]
        out.print(table(names, shown, right=["size", *fields]))
    total = sum(row["n_bytes"] for row in rows)
    out.print(f"{len(rows)} artifacts, {_size(total)} in {opened.root}", markup=False)


def _row(artifact: Stored, fields: list[str]) -> dict[str, Any]:
    from ..explode import explode

    manifest = artifact.manifest
    return {
        "key": manifest.key,
        "kind": manifest.kind,
        "type": manifest.type,
        "version": manifest.version,
        "n_bytes": artifact.n_bytes,
        "created": manifest.created,
        "fields": explode(manifest.spec),
    }


def _size(n_bytes: int) -> str:
    from rich.filesize import decimal

    return decimal(n_bytes)


def _when(created: str) -> str:
    return created[:16].replace("T", " ")
