"""From nodes to make to arrays of jobs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from math import ceil
from typing import NamedTuple, TypeVar

from ..resolve.plan import Node, group
from .profiles import Resources

T = TypeVar("T")

N_ELEMENTS = 256
"""More batches than this are packed, several to an element: a job costs seconds to start."""


class Wave(NamedTuple):
    """Elements that go into arrays together: nodes of one depth, one type, one set of resources."""

    recipe: str
    depth: int
    resources: Resources
    elements: list[list[list[Node]]]
    """Element -> batches -> nodes."""


def waves(
    nodes: Sequence[Node], batch_text: dict[str, str], resources_of: Callable[[Node], Resources]
) -> list[Wave]:
    """Cut nodes into batches, batches into elements; inputs before what reads them.

    Specs of one batch that ask for different resources go to different jobs.
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
        pack = resources.pack or ceil(len(batches) / N_ELEMENTS)
        made.append(Wave(recipe, depth, resources, list(chunks(batches, pack))))
    return sorted(made, key=lambda wave: wave.depth)


def chunks(items: list[T], n: int) -> Iterator[list[T]]:
    """Runs of at most `n` items."""
    yield from (items[start : start + n] for start in range(0, len(items), n))


def array_name(experiment: str, recipe: str) -> str:
    """A fresh name for an array, as `squeue` shows it."""
    return f"{experiment[:24]}-{recipe[:24]}-{os.urandom(5).hex()}"
