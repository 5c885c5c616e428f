"""saevx import: artifacts from another store."""

from __future__ import annotations

import click

from saevx.cli.artifacts.copy import copy_all, existing_store
from saevx.cli.common.options import clear_errors, json_option, store_option
from saevx.config import open_store


@click.command("import")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option("--from", "source", required=True, metavar="FOLDER", help="The store to copy from.")
@click.option("--parents", is_flag=True, help="Also copy everything that they were made from.")
@store_option
@json_option
@clear_errors
def import_(
    keys: tuple[str, ...], source: str, parents: bool, store: str | None, as_json: bool
) -> None:
    """Copy artifacts from another store: the same bytes and keys, verified on the way."""
    copy_all(existing_store(source), open_store(store), keys, parents, as_json)
