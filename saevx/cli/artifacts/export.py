"""saevx export: artifacts to another store, or to a file for other programs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from saevx.cli.artifacts.copy import copy_all
from saevx.cli.common.options import clear_errors, json_option, store_option
from saevx.config import open_store
from saevx.query.export import write_file
from saevx.query.key_lookup import find_by_prefix


@click.command()
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option("--to", "to", metavar="FOLDER", help="The store to copy to.")
@click.option("--parents", is_flag=True, help="With --to: also copy what they were made from.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write: .csv, .parquet or .json for tables, .safetensors for arrays.",
)
@click.option("--table", metavar="NAME", help="Which table, where an artifact has several.")
@click.option("--spec", "explode_spec", is_flag=True, help="Add the spec's fields as columns.")
@store_option
@json_option
@clear_errors
def export(
    keys: tuple[str, ...],
    to: str | None,
    parents: bool,
    output: Path | None,
    table: str | None,
    explode_spec: bool,
    store: str | None,
    as_json: bool,
) -> None:
    """Copy artifacts to another store, or write them to one file.

    A copy has the same bytes and the same key, and is verified on the way. A file holds the table
    or the arrays of one artifact, or the tables of several with their specs as columns.
    """
    if (to is None) == (output is None):
        raise click.UsageError("give either --to FOLDER, a store, or -o FILE")
    opened = open_store(store)
    if to is not None:
        copy_all(opened, open_store(to), keys, parents, as_json)
        return
    assert output is not None
    found = [find_by_prefix(opened, key).artifact for key in keys]
    artifacts = [opened.open(artifact.kind, artifact.key) for artifact in found]
    what = write_file(artifacts, output, table, explode_spec=explode_spec)
    if as_json:
        click.echo(json.dumps({"file": str(output), "keys": [a.key for a in artifacts]}))
    else:
        click.echo(f"{output}: {what}")
