"""Specs whose recipes die in many ways, for tests of dispatch.

Each making is written to the file $UNRULY_LOG, a line when it begins and one when it has published.
"""

import os
import signal
import time
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import polars as pl

from saevx import Artifact, Batch, Exec, RecipeError, recipe

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
        end = time.monotonic() + spec.pause_s
        while time.monotonic() < end:
            time.sleep(0.05)
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
