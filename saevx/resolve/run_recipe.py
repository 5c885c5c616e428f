"""Call a recipe for a batch: its parts first if it declares some, then the recipe itself."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from saevx.errors import RecipeError
from saevx.resolve.batch import A, Batch
from saevx.resolve.fork_guard import end_forked_children
from saevx.resolve.leases import Backoff
from saevx.resolve.parts import Parts, PendingParts
from saevx.resolve.recipe import Recipe

Wait = Callable[[dict[str, list[Any]]], None]
"""Called with the processes that are waited for -> the specs that they make; empty afterwards."""


def make(recipe: Recipe[A], batch: Batch[A], wait: Wait = lambda owners: None) -> None:
    """Make the artifacts of a batch."""
    if recipe.parts is not None:
        make_parts(recipe.parts, batch, range(batch.n_parts), wait)
        batch.restart_stopwatch()
    for spec in batch.open_specs:
        if (found := batch.store.find(spec.kind, batch.key_of(spec))) is not None:
            batch.accept(spec, found)
    if batch.open_specs:
        recipe.make(batch)


def make_parts(
    parts: Parts[A], batch: Batch[A], indices: Iterable[int], wait: Wait = lambda owners: None
) -> None:
    """Make those of the parts that artifacts of a batch lack. Return when all of them are there.

    Parts that other processes are making are waited for; if such a process ends without having made
    its part, the part is made here.
    """
    wanted = sorted(indices)
    backoff = Backoff()
    while (todo := PendingParts(batch, wanted)).indices:
        owners = todo.owners()
        wait(owners)
        if owners:
            backoff.pause()
        else:
            parts.make(batch, todo)
            todo.check()
            backoff.reset()
    wait({})


@contextmanager
def keep_failures(batch: Batch[Any]) -> Iterator[None]:
    """Turn what a recipe raises into the failure of its open specs: other batches go on.

    A process that the recipe forked ends here.
    """
    error: Exception
    try:
        with end_forked_children():
            yield
        return
    except SystemExit as stop:
        name = type(batch.specs[0]).__name__
        frame = traceback.extract_tb(stop.__traceback__)[-1]
        error = RecipeError(
            f"the recipe of {name} called sys.exit({stop.code!r}), in {frame.filename}, line "
            f"{frame.lineno}: a recipe that cannot go on must raise an error"
        )
        error.__cause__ = stop
    except Exception as raised:
        error = raised
    for spec in batch.open_specs:
        batch.fail(spec, error)
