"""Specs and recipes that only write numbers, for experiment files that tests write."""

import os
import signal
import time
from typing import Annotated, ClassVar

import numpy as np
import polars as pl

from saevx import Artifact, Batch, Exec, RecipeError, recipe


class Number(Artifact):
    kind: ClassVar = "checkpoints"
    value: int
    pause_s: Annotated[float, Exec()] = 0.0


class Square(Artifact):
    kind: ClassVar = "results"
    number: Number


@recipe(Number, batch_by=lambda spec: 0, load=lambda artifact: artifact.array("value").read())
def make_numbers(batch: Batch[Number]) -> None:
    for done, spec in enumerate(batch.specs, start=1):
        time.sleep(spec.pause_s)
        if spec.value < 0:
            batch.fail(spec, RecipeError(f"{spec.value} is below zero: use a positive number"))
            continue
        batch.draft(spec).write("value", np.arange(1000) + spec.value)
        if os.environ.get("TOY_KILLED") == f"inside {done}":
            os.kill(os.getpid(), signal.SIGKILL)
        batch.publish(spec)
        if os.environ.get("TOY_KILLED") == f"after {done}":
            os.kill(os.getpid(), signal.SIGKILL)
        batch.progress(done, len(batch.specs), "numbers")


@recipe(Square, load=lambda artifact: artifact.table("squares"))
def make_square(batch: Batch[Square]) -> None:
    (spec,) = batch.specs
    (value, *_) = batch.input(spec.number).array("value").read().tolist()
    batch.draft(spec).table("squares", pl.DataFrame({"square": [value**2], "pid": [os.getpid()]}))
    batch.publish(spec)
