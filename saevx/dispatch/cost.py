"""The arrays that a run would submit, and their cost by the history of the store."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import msgspec

from saevx.dispatch.batching import Batcher, chunks
from saevx.dispatch.executors.base import Executor
from saevx.dispatch.profiles import Profile, Resources
from saevx.query.search import catalogue
from saevx.resolve.context import Context
from saevx.resolve.plan import Plan

if TYPE_CHECKING:
    from store import Store

N_SAMPLES = 20
"""The most recent artifacts of a type, on which an estimate is based."""


@dataclass(frozen=True)
class ArrayEstimate:
    """Arrays of one depth, type and set of resources."""

    recipe: str
    n_artifacts: int
    arrays: list[int]
    """Number of tasks of each array."""
    resources: Resources
    work_s: float | None
    """Seconds of work, all artifacts added up; None where none of the type was made yet."""
    n_bytes: float | None

    @property
    def document(self) -> dict[str, Any]:
        return {**self.__dict__, "resources": msgspec.to_builtins(self.resources)}


def estimate_arrays(
    plan: Plan, context: Context, profile: Profile, executor: Executor
) -> list[ArrayEstimate]:
    """List the arrays for what a plan lacks, in the order in which they would be submitted."""
    batcher = Batcher(profile, context, executor.jobs_per_batch, plan.to_make)
    estimates = []
    for batch in batcher.pack(plan.to_make, {}):
        nodes = {node.key: node for task in batch.tasks for node in task.nodes}
        kind = next(iter(nodes.values())).spec.kind
        cost = _cost(context.store, kind, batch.recipe)
        estimates.append(
            ArrayEstimate(
                recipe=batch.recipe,
                n_artifacts=len(nodes),
                arrays=[len(part) for part in chunks(batch.tasks, executor.max_array_size)],
                resources=batch.resources,
                work_s=len(nodes) * cost[0] if cost else None,
                n_bytes=len(nodes) * cost[1] if cost else None,
            )
        )
    return estimates


def _cost(store: Store, kind: str, spec_type: str) -> tuple[float, float] | None:
    """Median seconds and bytes of the most recent artifacts of a type; None without any."""
    entries = [entry for entry in catalogue(store).entries(kind) if entry.type == spec_type]
    latest = sorted(entries, key=lambda entry: entry.created)[-N_SAMPLES:]
    made = [artifact for entry in latest if (artifact := store.find(entry.kind, entry.key))]
    facts = [artifact.manifest.provenance for artifact in made]
    seconds = [f["wall_s"] / f["n_batch"] for f in facts if f.get("n_batch") and "wall_s" in f]
    return (median(seconds), median(entry.n_bytes for entry in latest)) if seconds else None
