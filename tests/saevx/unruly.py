"""Specs whose recipes fail in many ways, for tests of dispatch.

Recipes write to the file $UNRULY_LOG: a line when they begin and one when they have published.
"""

import os
import signal
import time
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import polars as pl

from saevx import Artifact, Batch, Exec, Parts, PendingParts, RecipeError, recipe

MIB = 2**20


class Leaf(Artifact):
    kind: ClassVar = "checkpoints"
    value: int
    how: str = "well"
    group: int | None = None
    pause_s: Annotated[float, Exec()] = 0.0


class Branch(Artifact):
    kind: ClassVar = "activations"
    leaf: Leaf
    value: int


class Top(Artifact):
    kind: ClassVar = "results"
    branch: Branch
    value: int


def note(word: str, key: str) -> None:
    log = os.environ.get("UNRULY_LOG")
    if log:
        with open(log, "a") as file:
            file.write(f"{word} {key} {os.environ.get('SLURM_JOB_ID', os.getpid())}\n")


def is_in_a_hurry() -> bool:
    """Whether the test has seen what it made a pause for."""
    log = os.environ.get("UNRULY_LOG")
    return log is not None and Path(log).with_name("hurry").exists()


def pause(seconds: float) -> None:
    """Wait so long, or until the test has seen what it made the pause for."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not is_in_a_hurry():
        time.sleep(0.05)


def is_first_time(spec: Leaf) -> bool:
    """Whether this is asked for the first time about a spec."""
    try:
        (Path(os.environ["UNRULY_LOG"]).parent / f"{spec.how}.{spec.value}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@recipe(Leaf, batch_by=lambda spec: spec if spec.group is None else spec.group)
def make_leaf(batch: Batch[Leaf]) -> None:
    for spec in batch.specs:
        note("begin", spec.key)
        if spec.how == "error":
            batch.fail(spec, RecipeError(f"{spec.value} cannot be made"))
            continue
        if spec.how == "killed" or (spec.how == "killed once" and is_first_time(spec)):
            os.kill(os.getpid(), signal.SIGKILL)
        if spec.how == "hungry":
            fat = np.ones(330 * MIB, dtype=np.uint8)
            time.sleep(4)
            del fat
        pause(spec.pause_s)
        batch.draft(spec).write("value", np.arange(1000) + spec.value)
        batch.publish(spec)
        note("made", spec.key)


@recipe(Branch)
def make_branch(batch: Batch[Branch]) -> None:
    (spec,) = batch.specs
    note("begin", spec.key)
    batch.draft(spec).write("value", batch.input(spec.leaf).array("value").read() * spec.value)
    batch.publish(spec)
    note("made", spec.key)


@recipe(Top, load=lambda artifact: artifact.table("tops"))
def make_top(batch: Batch[Top]) -> None:
    (spec,) = batch.specs
    note("begin", spec.key)
    total = int(batch.input(spec.branch).array("value").read().sum()) + spec.value
    batch.draft(spec).table("tops", pl.DataFrame({"total": [total]}))
    batch.publish(spec)
    note("made", spec.key)


class Album(Artifact):
    """Made in parts of 10 rows, each of which takes `pause_s`."""

    kind: ClassVar = "shards"
    value: int
    n_parts: int
    how: str = "well"
    """`part I error`, `part I killed once`: what happens to one of them."""
    group: int | None = None
    pause_s: Annotated[float, Exec()] = 0.0


def make_pages(batch: Batch[Album], todo: PendingParts[Album]) -> None:
    for part in todo:
        batch.progress(part.index, batch.specs[0].n_parts, "pages")
        for spec in part.specs:
            page = f"{spec.key}/{part.index}"
            note("begin", page)
            pause(spec.pause_s)
            if spec.how == f"part {part.index} error":
                batch.fail(spec, RecipeError(f"page {part.index} of {spec.value} is torn"))
                continue
            if spec.how == f"part {part.index} killed once" and is_first_time(spec):
                os.kill(os.getpid(), signal.SIGKILL)
            rows = np.arange(10) + 10 * part.index + spec.value
            with part.draft(spec).array("value", (10,), rows.dtype, rows_per_shard=10) as writer:
                writer.append(rows)
            part.publish(spec)
            note("made", page)


@recipe(
    Album,
    batch_by=lambda spec: spec if spec.group is None else spec.group,
    parts=Parts(lambda spec, site: spec.n_parts, make_pages),
)
def bind(batch: Batch[Album]) -> None:
    for spec in batch.open_specs:
        parts = batch.parts(spec)
        batch.draft(spec).join("value", [part.array("value") for part in parts])
        batch.publish(spec)
        note("made", spec.key)
