"""Cancelling what is queued or running."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from store.owner import Life, Owner

from ..errors import StoreError
from . import slurm
from .endings import unfinished
from .executors import death_outcome
from .folder import RunFolder, active_runs
from .followers import Follower, find_followers
from .records import End

if TYPE_CHECKING:
    from store import Store


@dataclass
class Cancelled:
    """What was cancelled."""

    jobs: int = 0
    """Elements; those of local runs count, too."""
    keys: dict[str, str] = field(default_factory=dict)
    """Key -> type of what they were to make."""
    paths: set[str] = field(default_factory=set)
    """Experiment files whose runs they belonged to."""
    followers: list[str] = field(default_factory=list)
    """Slurm jobs that waited for them."""


def cancel(
    store: Store,
    chosen: Callable[[RunFolder, list[str]], bool],
    followed: Callable[[Follower], bool] = lambda one: False,
) -> Cancelled:
    """Cancel the elements that are `chosen` by run and keys, and before them the followers.

    Raises SlurmError, and StoreError for a local run of which a part was chosen, or that belongs
    to another host.
    """
    jobs: list[slurm.Job] = []
    touched: list[RunFolder] = []
    done = Cancelled()
    # First who would submit them anew.
    done.followers = [one.job for one in find_followers(store) if followed(one)]
    slurm.scancel(done.followers)
    for folder in active_runs(store):
        flights = unfinished(folder)
        wanted = [flight for flight in flights if chosen(folder, flight.keys)]
        if not wanted:
            continue
        touched.append(folder)
        if folder.info.executor == "local":
            _end_local(folder, whole=len(wanted) == len(flights))
        done.paths.add(folder.info.path)
        for flight in wanted:
            array = folder.array(flight.element.array)
            done.jobs += 1
            done.keys |= dict.fromkeys(flight.keys, array.recipe if array else "")
            # First the word, so that nobody who watches takes it for dead and tries again.
            end = death_outcome(flight.keys, End.CANCELLED, "by `saevx cancel`")
            folder.write_outcome(flight.element.array, flight.element.at, end)
            if flight.at_slurm:
                jobs.append(flight.slurm_job)
    slurm.cancel(jobs)
    for folder in touched:
        if folder.is_over:
            folder.end()
    return done


def _end_local(folder: RunFolder, whole: bool) -> None:
    owner = Owner.parse(folder.info.owner)
    if owner.life() is Life.UNKNOWN:
        raise StoreError(f"{folder.info.name} runs on {owner.host}: cancel it there")
    if owner.life() is Life.DEAD:
        return
    if not whole:
        raise StoreError(
            f"{folder.info.name} runs in processes of this machine, which can be cancelled only "
            f"together: `saevx cancel {folder.info.path}`, or Ctrl-C where it runs"
        )
    with suppress(ProcessLookupError):
        os.kill(owner.pid, signal.SIGTERM)  # its workers end with it
