"""What a run would submit, and what it would cost by the history of the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from saevx.dispatch.batching import Batcher, chunks
from saevx.dispatch.executors.base import Executor
from saevx.dispatch.profiles import Profile, Resources
from saevx.query.search import catalogue
from saevx.resolve.context import Context
from saevx.resolve.plan import Node, Plan

if TYPE_CHECKING:
    from store import Store

N_SAMPLES = 20
"""The latest artifacts of a type that an estimate rests on."""


@dataclass(frozen=True)
class Line:
    """Arrays of one depth, type and set of resources."""

    recipe: str
    n_artifacts: int
    arrays: list[int]
    """Elements of each array."""
    resources: Resources
    work_s: float | None
    """Seconds of work in all, one after the other; None where nothing like it was made yet."""
    n_bytes: float | None

    @property
    def document(self) -> dict[str, Any]:
        import msgspec

        return {**self.__dict__, "resources": msgspec.to_builtins(self.resources)}


def forecast(plan: Plan, context: Context, profile: Profile, executor: Executor) -> list[Line]:
    """The arrays for what a plan lacks, in the order in which they would be submitted."""
    nodes = plan.to_make
    history = _history(context.store, nodes)
    batcher = Batcher(profile, context, executor.width, nodes)
    lines = []
    for wave in batcher.pack(nodes, {}):
        n = len({node.key for load in wave.tasks for node in load.nodes})
        cost = history.get(wave.recipe)
        lines.append(
            Line(
                recipe=wave.recipe,
                n_artifacts=n,
                arrays=[len(part) for part in chunks(wave.tasks, executor.largest_array)],
                resources=wave.resources,
                work_s=n * cost[0] if cost else None,
                n_bytes=n * cost[1] if cost else None,
            )
        )
    return lines


def _history(store: Store, nodes: Sequence[Node]) -> dict[str, tuple[float, float]]:
    """Type -> seconds and bytes of one artifact: medians over the latest of that type."""
    kinds = {type(node.spec).__name__: node.spec.kind for node in nodes}
    found = {}
    for name, kind in kinds.items():
        entries = [entry for entry in catalogue(store).entries(kind) if entry.type == name]
        latest = sorted(entries, key=lambda entry: entry.created)[-N_SAMPLES:]
        made = [store.find(entry.kind, entry.key) for entry in latest]
        facts = [artifact.manifest.provenance for artifact in made if artifact]
        seconds = [f["wall_s"] / f["n_batch"] for f in facts if f.get("n_batch") and "wall_s" in f]
        if seconds:
            found[name] = median(seconds), median(entry.n_bytes for entry in latest)
    return found
