"""From nodes to make to arrays of jobs."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from saevx.dispatch.profiles import Profile, Resources
from saevx.query.flatten import explode
from saevx.resolve.plan import Node, group
from spec import Artifact, Keys, to_document
from store.names import safe_name

if TYPE_CHECKING:
    from saevx.resolve.recipe import FindRecipe
    from store import Store

T = TypeVar("T")

N_ELEMENTS = 256
"""More batches than this are packed, several to an element: a job costs seconds to start."""


class WorkItem(NamedTuple):
    """What one element makes."""

    batches: list[list[Node]]
    parts: list[int] = []  # noqa: RUF012
    """Which parts of the artifacts of its only batch; none for whole artifacts."""

    @property
    def nodes(self) -> list[Node]:
        return [node for batch in self.batches for node in batch]


class ArrayBatch(NamedTuple):
    """Elements that go into arrays together: nodes of one depth, one type, one set of resources."""

    recipe: str
    depth: int
    resources: Resources
    elements: list[WorkItem]


def waves(
    nodes: Sequence[Node],
    batch_text: dict[str, str],
    resources_of: Callable[[Node], Resources],
    lacking: Callable[[Sequence[Node]], list[int]] = lambda batch: [],
    width: int = 1,
) -> list[ArrayBatch]:
    """Cut nodes into batches, batches into elements; inputs before what reads them.

    Specs of one batch that ask for different resources go to different jobs. Batches are cut into
    parts as the profile says, else where they are fewer than `width`: `lacking` tells which parts
    a batch lacks.
    """
    asked = {node.key: resources_of(node) for node in nodes}
    together: dict[tuple[int, str, str], list[list[Node]]] = {}
    for nodes_of_batch in group(nodes, batch_text):
        by_resources: dict[str, list[Node]] = {}
        for node in nodes_of_batch:
            by_resources.setdefault(asked[node.key].text, []).append(node)
        for text, part in by_resources.items():
            where = (part[0].depth, type(part[0].spec).__name__, text)
            together.setdefault(where, []).append(part)
    made = []
    for (depth, recipe, _), batches in together.items():
        resources = asked[batches[0][0].key]
        n_shares = resources.parts or ceil(width / len(batches))
        loads: list[WorkItem] = []
        whole: list[list[Node]] = []
        for batch in batches:
            parts = lacking(batch) if n_shares > 1 else []
            if len(parts) > 1:
                loads += [WorkItem([batch], share) for share in shares(parts, n_shares)]
            else:
                whole.append(batch)
        pack = resources.pack or max(1, ceil(len(whole) / N_ELEMENTS))
        loads += [WorkItem(packed) for packed in chunks(whole, pack)]
        made.append(ArrayBatch(recipe, depth, resources, loads))
    return sorted(made, key=lambda wave: wave.depth)


@dataclass(frozen=True)
class Batcher:
    """Cuts the nodes of one plan into waves, as a profile and an executor want them."""

    profile: Profile
    keys: Keys
    store: Store
    find_recipe: FindRecipe
    width: int
    batch_text: dict[str, str] = field(default_factory=dict)

    def read_batches(self, nodes: Iterable[Node]) -> None:
        """Ask the recipes which nodes are made together."""
        for node in nodes:
            batch = self.find_recipe(type(node.spec)).batch_by(node.spec)
            self.batch_text[node.key] = self.keys.text(batch)

    def cut(self, nodes: Sequence[Node], least_memory_gb: Mapping[str, float]) -> list[ArrayBatch]:
        def resources(node: Node) -> Resources:
            return self._resources(node).with_memory(least_memory_gb.get(node.key, 0.0))

        return waves(nodes, self.batch_text, resources, self._lacking, self.width)

    def _resources(self, node: Node) -> Resources:
        def columns() -> Mapping[str, Any]:
            return explode(to_document(node.spec, self.keys))

        return self.profile.resources(type(node.spec).__name__, columns)

    def _lacking(self, batch: Sequence[Node]) -> list[int]:
        """The parts that some artifact of a batch lacks; none where it is not made in parts."""
        specs: list[Artifact] = [node.spec for node in batch]
        parts = self.find_recipe(type(specs[0])).parts
        if parts is None:
            return []
        there = [set(self.store.parts(node.spec.kind, node.key)) for node in batch]
        n_parts = parts.count(specs[0], self.keys.site)
        return [index for index in range(n_parts) if not all(index in found for found in there)]


def parts_text(parts: Sequence[int]) -> str:
    """Part numbers for people, as in "parts 0 to 7"; "" for none."""
    if not parts:
        return ""
    if len(parts) == 1:
        return f"part {parts[0]}"
    whole = parts[-1] - parts[0] == len(parts) - 1
    return f"parts {parts[0]} to {parts[-1]}" if whole else f"{len(parts)} parts from {parts[0]}"


def shares(items: list[T], n: int) -> list[list[T]]:
    """`items` in at most `n` runs whose lengths differ by one at most."""
    n = min(n, len(items))
    ends = [len(items) * i // n for i in range(n + 1)]
    return [items[start:end] for start, end in itertools.pairwise(ends)]


def chunks(items: list[T], n: int) -> Iterator[list[T]]:
    """Runs of at most `n` items."""
    yield from (items[start : start + n] for start in range(0, len(items), n))


def array_name(experiment: str, recipe: str) -> str:
    """A fresh name for an array, as `squeue` shows it."""
    return f"{safe_name(experiment, 24)}-{safe_name(recipe, 24)}-{os.urandom(5).hex()}"
