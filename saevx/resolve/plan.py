"""Plans: which artifacts must be made for a list of targets, in which order, and why."""

from __future__ import annotations

import functools
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from saevx.compute.memory import gc_paused
from saevx.resolve.lookup import look_up, warnings_of
from spec import Artifact, Keys

if TYPE_CHECKING:
    from store import Store, StoredArtifact
    from store.gc.records import Graph


class State(Enum):
    """Whether the store has an artifact."""

    PRESENT = "present"
    TO_MAKE = "to make"


@dataclass(slots=True)
class Node:
    """One artifact of a plan."""

    spec: Artifact
    key: str
    state: State
    why: str
    """Why it will run, or that it is in the store."""
    inputs: tuple[str, ...] = ()
    """Keys of what its recipe reads; empty if it will not run."""
    depth: int = 0
    """Longest path to a node without inputs to make. Nodes of one depth do not need each other."""
    warnings: tuple[str, ...] = ()
    """What its recipe found suspicious, if it was in the store when the plan was made."""


@dataclass
class Plan:
    """Nodes by key, each after its inputs. A target that is in the store needs no inputs."""

    nodes: dict[str, Node]
    targets: tuple[str, ...]
    """Keys of the targets, each once, in the order given."""

    @property
    def to_make(self) -> list[Node]:
        """The nodes that will run, each after its inputs."""
        return [node for node in self.nodes.values() if node.state is State.TO_MAKE]

    @property
    def done(self) -> bool:
        """Whether every target is in the store."""
        return not self.to_make


@gc_paused()
def make_plan(
    targets: Iterable[Artifact],
    keys: Keys,
    store: Store,
    sources: Mapping[str, str] | None = None,
) -> Plan:
    """Plan the targets that the store lacks, the inputs of these that it lacks, and so on.

    `sources` are the digests of the code of users' types: artifacts that other code made get a
    warning.

    Raise CorruptArtifact if the store has an artifact of another spec under one of their keys.
    """
    wanted: dict[str, Artifact] = {}
    for target in targets:
        wanted.setdefault(keys.of(target), target)
    count_parts = functools.cache(store.count_parts)
    found: dict[str, Node] = {}
    ordered: dict[str, Node] = {}
    # Depth first, and iterative, since a graph may be deeper than Python recurses.
    stack = [(target, key, False) for key, target in reversed(wanted.items())]
    while stack:
        spec, key, inputs_done = stack.pop()
        if inputs_done:
            ordered[key] = found[key]
        elif key not in found:
            node = found[key] = _look_up(spec, key, keys, store, count_parts, sources or {})
            stack.append((spec, key, True))
            if node.state is State.TO_MAKE:
                inputs = {keys.of(artifact): artifact for artifact in spec.inputs().values()}
                node.inputs = tuple(inputs)
                stack.extend((artifact, k, False) for k, artifact in reversed(inputs.items()))
    _explain(ordered, wanted)
    return Plan(ordered, tuple(wanted))


def _look_up(
    spec: Artifact,
    key: str,
    keys: Keys,
    store: Store,
    count_parts: Callable[[str], dict[str, int]],
    sources: Mapping[str, str],
) -> Node:
    found = look_up(spec, keys, store)
    if not isinstance(found, str):
        warnings = (*warnings_of(found), *_other_code(found, sources))
        return Node(spec, key, State.PRESENT, "in the store", warnings=warnings)
    n_parts = count_parts(spec.kind).get(key, 0)
    parts = f", but {n_parts} part{'s' * (n_parts > 1)} of it" if n_parts else ""
    return Node(spec, key, State.TO_MAKE, found + parts)


def _other_code(stored: StoredArtifact, sources: Mapping[str, str]) -> Iterator[str]:
    name = stored.manifest.type
    made_by = stored.manifest.provenance.get("source")
    if name in sources and made_by and made_by != sources[name]:
        yield (
            f"made by other code: {name} or its recipe has changed since; raise its version to "
            "make it again, or give the class a namespace if it is another type"
        )


def _explain(nodes: dict[str, Node], targets: Container[str]) -> None:
    """Fill in the depth of each node, and why it will run."""
    needed_by: dict[str, list[Node]] = {}
    for node in nodes.values():
        inputs = [nodes[key] for key in node.inputs]
        for each in inputs:
            needed_by.setdefault(each.key, []).append(node)
        to_make = [each.depth + 1 for each in inputs if each.state is State.TO_MAKE]
        node.depth = max(to_make, default=0)
    for key, node in nodes.items():
        if node.state is State.TO_MAKE:
            node.why += "; asked for" if key in targets else ""
            node.why += _need(needed_by[key]) if key in needed_by else ""


def _need(readers: list[Node]) -> str:
    more = f" and {len(readers) - 1} more" if len(readers) > 1 else ""
    return f"; needed by {type(readers[0].spec).__name__} {readers[0].key[:8]}{more}"


def graph_of(specs: Iterable[Artifact], keys: Keys) -> Graph:
    """Return all that specs are made from, whether or not the store has it."""
    graph: Graph = {}
    waiting = list(specs)
    while waiting:
        spec = waiting.pop()
        ref = (spec.kind, keys.of(spec))
        if ref not in graph:
            inputs = list(spec.inputs().values())
            graph[ref] = tuple((artifact.kind, keys.of(artifact)) for artifact in inputs)
            waiting.extend(inputs)
    return graph


def group(nodes: Sequence[Node], batch_text: dict[str, str]) -> list[list[Node]]:
    """Return batches: nodes of equal depth, type and batch text, which is given by key."""
    groups: dict[tuple[int, str, str], list[Node]] = {}
    for node in nodes:
        where = (node.depth, type(node.spec).__name__, batch_text[node.key])
        groups.setdefault(where, []).append(node)
    return [groups[where] for where in sorted(groups, key=lambda where: where[0])]
