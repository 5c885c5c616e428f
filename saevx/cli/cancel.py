"""saevx cancel: end what is queued or running."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import clear_errors, json_option, store_option

if TYPE_CHECKING:
    from ..dispatch.folder import RunFolder


@click.command()
@click.argument("what", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All runs of the store.")
@store_option
@json_option
@clear_errors
def cancel(what: tuple[str, ...], everything: bool, store: str | None, as_json: bool) -> None:
    """Cancel the jobs of WHAT: experiment files, or beginnings of keys (6 digits or more)."""
    from ..config import open_store
    from ..dispatch.cancel import cancel as cancel_chosen
    from ..errors import StoreError

    if not what and not everything:
        raise StoreError("say what to cancel: an experiment file, a key, or --all")
    paths = {str(Path(word).resolve()) for word in what if word.endswith(".py")}
    prefixes = tuple(word for word in what if not word.endswith(".py"))
    short = [word for word in prefixes if len(word) < 6]
    if short:
        raise StoreError(f"{short[0]!r} is no experiment file (.py), and too short for a key")

    def chosen(folder: RunFolder, keys: list[str]) -> bool:
        if everything or folder.info.path in paths:
            return True
        return bool(prefixes) and any(key.startswith(prefixes) for key in keys)

    n = cancel_chosen(open_store(store), chosen)
    click.echo(json.dumps({"cancelled": n}) if as_json else f"{n} jobs cancelled")
