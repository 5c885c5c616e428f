"""saevx cancel: end what is queued or running."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from saevx.cli.common.options import clear_errors, json_option, store_option

if TYPE_CHECKING:
    from saevx.dispatch.follow.find import Follower
    from saevx.dispatch.run_folder import RunFolder
    from saevx.dispatch.runs.cancel import Cancelled


@click.command()
@click.argument("what", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All runs of the store.")
@store_option
@json_option
@clear_errors
def cancel(what: tuple[str, ...], everything: bool, store: str | None, as_json: bool) -> None:
    """Cancel the jobs of WHAT: experiment files, or beginnings of keys (6 digits or more)."""
    from saevx.config import open_store
    from saevx.dispatch.runs.cancel import cancel as cancel_chosen
    from saevx.errors import StoreError

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

    def followed(one: Follower) -> bool:
        return everything or any(map(one.is_of, paths))

    opened = open_store(store)
    done = cancel_chosen(opened, chosen, followed)
    nothing = [word for word in what if not _was_met(word, done)]
    others = [] if everything else _others(done, paths, prefixes)
    if as_json:
        document = {
            "cancelled": done.jobs,
            "keys": sorted(done.keys),
            "followers": [one.job for one in done.followers],
            "nothing": nothing,
            "refused": done.refused,
        }
        click.echo(json.dumps(document))
    else:
        click.echo(f"{done.jobs} jobs cancelled")
        for one in done.followers:
            click.echo(f"and Slurm job {one.job}, which followed them")
        if others:
            click.echo(f"the same jobs were to make: {', '.join(others)}")
        for word in nothing:
            click.echo(f"nothing is queued or running for {word}", err=True)
        for why in done.refused:
            click.echo(f"not cancelled: {why}", err=True)
    if nothing or done.refused:
        sys.exit(1)


def _was_met(word: str, done: Cancelled) -> bool:
    if word.endswith(".py"):
        path = str(Path(word).resolve())
        # Between two stages of one file its follower may be all that there is.
        return path in done.paths or any(one.is_of(path) for one in done.followers)
    return any(key.startswith(word) for key in done.keys)


def _others(done: Cancelled, paths: set[str], prefixes: tuple[str, ...]) -> list[str]:
    """What was not asked for by its key, and went with what was."""
    if paths or not prefixes:
        return []
    return [f"{name} {key}" for key, name in done.keys.items() if not key.startswith(prefixes)]
