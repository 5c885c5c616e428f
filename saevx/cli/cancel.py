"""saevx cancel: end what is queued or running."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import clear_errors, json_option, store_option

if TYPE_CHECKING:
    from ..dispatch.cancel import Cancelled
    from ..dispatch.folder import RunFolder
    from ..dispatch.followers import Follower


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
    from ..dispatch.followers import find_followers
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

    def followed(one: Follower) -> bool:
        return everything or any(map(one.is_of, paths))

    opened = open_store(store)
    # Of one file the follower may be all that there is, between two stages.
    followers = find_followers(opened)
    found = {word for word in what if any(map(_is_followed(word), followers))}
    done = cancel_chosen(opened, chosen, followed)
    nothing = [word for word in what if word not in found and not _was_met(word, done)]
    others = [] if everything else _others(done, paths, prefixes)
    if as_json:
        document = {
            "cancelled": done.jobs,
            "keys": sorted(done.keys),
            "followers": done.followers,
            "nothing": nothing,
        }
        click.echo(json.dumps(document))
    else:
        click.echo(f"{done.jobs} jobs cancelled")
        for job in done.followers:
            click.echo(f"and Slurm job {job}, which followed them")
        if others:
            click.echo(f"the same jobs were to make: {', '.join(others)}")
        for word in nothing:
            click.echo(f"nothing is queued or running for {word}", err=True)
    if nothing:
        sys.exit(1)


def _is_followed(word: str) -> Callable[[Follower], bool]:
    return lambda one: word.endswith(".py") and one.is_of(str(Path(word).resolve()))


def _was_met(word: str, done: Cancelled) -> bool:
    if word.endswith(".py"):
        return str(Path(word).resolve()) in done.paths
    return any(key.startswith(word) for key in done.keys)


def _others(done: Cancelled, paths: set[str], prefixes: tuple[str, ...]) -> list[str]:
    """What was not asked for by its key, and went with what was."""
    if paths or not prefixes:
        return []
    return [f"{name} {key}" for key, name in done.keys.items() if not key.startswith(prefixes)]
