"""saevx cancel: cancel what is queued or running."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from saevx.cli.common.options import clear_errors, json_option, store_option
from saevx.cli.common.units import things
from saevx.dispatch.follow.find import Follower
from saevx.dispatch.run_folder import RunFolder
from saevx.dispatch.runs.cancel import Cancelled
from saevx.dispatch.runs.cancel import cancel as cancel_chosen
from store.errors import StoreError

MIN_DIGITS = 6
"""Of the prefix of a key: a shorter one may match jobs by accident."""


@click.command()
@click.argument("what", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Cancel all runs of the store.")
@store_option
@json_option
@clear_errors
def cancel(what: tuple[str, ...], everything: bool, store: str | None, as_json: bool) -> None:
    """Cancel the jobs of WHAT: experiment files, or prefixes of keys (6 digits or more).

    Exits with 1 if an argument matches nothing, or something could not be cancelled.
    """
    from saevx.config import open_store

    if not what and not everything:
        raise StoreError("nothing to cancel: give an experiment file, a key, or --all")
    paths = {word: str(Path(word).resolve()) for word in what if word.endswith(".py")}
    prefixes = tuple(word for word in what if word not in paths)
    for word in prefixes:
        if len(word) < MIN_DIGITS:
            raise StoreError(
                f"{word!r} is neither an experiment file (.py) nor a prefix of a key of "
                f"{MIN_DIGITS} digits or more"
            )

    def is_chosen(run: RunFolder, keys: list[str]) -> bool:
        if everything or run.info.path in paths.values():
            return True
        return bool(prefixes) and any(key.startswith(prefixes) for key in keys)

    def is_followed(follower: Follower) -> bool:
        return everything or any(map(follower.is_of, paths.values()))

    done = cancel_chosen(open_store(store), is_chosen, is_followed)

    def is_matched(word: str) -> bool:
        if word not in paths:
            return any(key.startswith(word) for key in done.keys)
        # Between two stages, a file may have no jobs but its follower.
        return paths[word] in done.paths or any(f.is_of(paths[word]) for f in done.followers)

    unmatched = [word for word in what if not is_matched(word)]
    if as_json:
        document = {
            "cancelled": done.jobs,
            "keys": sorted(done.keys),
            "followers": [follower.job for follower in done.followers],
            "nothing": unmatched,
            "refused": done.refused,
        }
        click.echo(json.dumps(document))
    else:
        _show(done, () if paths or everything else prefixes, unmatched)
    if unmatched or done.refused:
        sys.exit(1)


def _show(done: Cancelled, prefixes: tuple[str, ...], unmatched: list[str]) -> None:
    click.echo(f"cancelled {things(done.jobs, 'job')}")
    for follower in done.followers:
        click.echo(f"cancelled Slurm job {follower.job}, which followed them")
    others = [f"{name} {key}" for key, name in done.keys.items() if not key.startswith(prefixes)]
    if prefixes and others:
        click.echo(f"the cancelled jobs were also to make: {', '.join(others)}")
    for word in unmatched:
        click.echo(f"nothing is queued or running for {word}", err=True)
    for reason in done.refused:
        click.echo(f"not cancelled: {reason}", err=True)
