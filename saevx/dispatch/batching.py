"""From the nodes of a plan to job arrays: which specs go into one job."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, NamedTuple, TypeVar

from saevx.dispatch.profiles import Profile, Resources
from saevx.query.flatten import explode
from saevx.resolve.context import Context
from saevx.resolve.plan import Node, group
from spec import Artifact, to_document
from store.names import safe_name

T = TypeVar("T")

N_TASKS = 256
"""More batches than this share tasks: a job takes seconds to start."""


class WorkItem(NamedTuple):
    """What one task makes."""

    batches: list[list[Node]]
    parts: list[int] = []  # noqa: RUF012
    """Parts of the artifacts of its only batch; none for whole artifacts."""

    @property
    def nodes(self) -> list[Node]:
        return [node for batch in self.batches for node in batch]


class ArrayBatch(NamedTuple):
    """Tasks that may share an array: nodes of one depth, one type and one set of resources."""

    recipe: str
    resources: Resources
    tasks: list[WorkItem]


class Batcher:
    """Packs nodes of one plan into tasks, as a profile and an executor want them."""

    def __init__(
        self, profile: Profile, context: Context, jobs_per_batch: int, nodes: Sequence[Node]
    ) -> None:
        """Ask the recipes which of the nodes are made together."""
        self._profile, self._context, self._jobs_per_batch = profile, context, jobs_per_batch
        self._batch_text = {
            node.key: context.keys.text(context.find_recipe(type(node.spec)).batch_by(node.spec))
            for node in nodes
        }

    def pack(self, nodes: Sequence[Node], least_memory_gb: Mapping[str, float]) -> list[ArrayBatch]:
        """Pack nodes into tasks, inputs before what reads them.

        Specs of one batch that need different resources go to different tasks.
        """
        resources = {
            node.key: self._resources(node).with_memory(least_memory_gb.get(node.key, 0.0))
            for node in nodes
        }
        text = {node.key: resources[node.key].text for node in nodes}
        batches: dict[tuple[int, str, str], list[list[Node]]] = {}
        for batch in group(nodes, {key: self._batch_text[key] + text[key] for key in text}):
            first = batch[0]
            shared = first.depth, type(first.spec).__name__, text[first.key]
            batches.setdefault(shared, []).append(batch)
        return [
            ArrayBatch(recipe, needed, self._tasks(found, needed))
            for (_, recipe, _), found in batches.items()
            for needed in [resources[found[0][0].key]]
        ]

    def _tasks(self, batches: list[list[Node]], resources: Resources) -> list[WorkItem]:
        """Share each batch between tasks if the profile says so, or if workers would be idle."""
        n_shares = resources.parts or ceil(self._jobs_per_batch / len(batches))
        tasks: list[WorkItem] = []
        whole: list[list[Node]] = []
        for batch in batches:
            parts = self._missing_parts(batch) if n_shares > 1 else []
            if len(parts) > 1:
                tasks += [WorkItem([batch], share) for share in shares(parts, n_shares)]
            else:
                whole.append(batch)
        pack = resources.pack or max(1, ceil(len(whole) / N_TASKS))
        return tasks + [WorkItem(packed) for packed in chunks(whole, pack)]

    def _resources(self, node: Node) -> Resources:
        def columns() -> Mapping[str, Any]:
            return explode(to_document(node.spec, self._context.keys))

        return self._profile.resources(type(node.spec).__name__, columns)

    def _missing_parts(self, batch: Sequence[Node]) -> list[int]:
        """The parts that some artifact of a batch lacks; none where it is not made in parts."""
        specs: list[Artifact] = [node.spec for node in batch]
        parts = self._context.find_recipe(type(specs[0])).parts
        if parts is None:
            return []
        store = self._context.store
        present = [set(store.parts(node.spec.kind, node.key)) for node in batch]
        n_parts = parts.count(specs[0], self._context.keys.site)
        return [part for part in range(n_parts) if not all(part in found for found in present)]


def parts_text(parts: Sequence[int]) -> str:
    """Part numbers for people, as in "parts 0 to 7"; "" for none."""
    if not parts:
        return ""
    if len(parts) == 1:
        return f"part {parts[0]}"
    is_range = parts[-1] - parts[0] == len(parts) - 1
    return f"parts {parts[0]} to {parts[-1]}" if is_range else f"{len(parts)} parts from {parts[0]}"


def shares(items: list[T], n: int) -> list[list[T]]:
    """Cut items into at most `n` consecutive lists whose lengths differ by one at most."""
    n = min(n, len(items))
    ends = [len(items) * i // n for i in range(n + 1)]
    return [items[start:end] for start, end in itertools.pairwise(ends)]


def chunks(items: list[T], n: int) -> list[list[T]]:
    """Cut items into consecutive lists of at most `n`."""
    return [items[start : start + n] for start in range(0, len(items), n)]


def array_name(experiment: str, recipe: str) -> str:
    """A new name for an array, as `squeue` shows it."""
    return f"{safe_name(experiment, 24)}-{safe_name(recipe, 24)}-{os.urandom(5).hex()}"
