"""The plan: which artifacts a list of targets needs made, in which order, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from saevx.compute.memory import gc_paused
from saevx.resolve.lookup import look_up, warnings_of
from spec import Artifact, Keys

if TYPE_CHECKING:
    from store import Store
    from store.gc.records import Graph


class State(Enum):
    """Where an artifact stands when the plan is made."""

    PRESENT = "present"
    TO_MAKE = "to make"


@dataclass(slots=True)
class Node:
    """One artifact of a plan."""

    spec: Artifact
    key: str
    state: State
    why: str
    """Why it will run, or that it need not."""
    inputs: tuple[str, ...] = ()
    """Keys of what its recipe reads; empty when it need not run."""
    needed_by: list[str] = field(default_factory=list)
    """Keys of the nodes that will read it."""
    depth: int = 0
    """Longest way down to a node without inputs to make. Nodes of one depth need not each other."""
    warnings: tuple[str, ...] = ()
    """What its recipe found suspicious, if it was there when the plan was made."""


@dataclass
class Plan:
    """Nodes by key, inputs before what reads them. A finished target needs no inputs."""

    nodes: dict[str, Node]
    targets: tuple[str, ...]
    """Keys of what was asked for, each once, in the order asked."""

    @property
    def to_make(self) -> list[Node]:
        """What will run, in an order that works."""
        return [node for node in self.nodes.values() if node.state is State.TO_MAKE]

    @property
    def done(self) -> bool:
        """True when every target is there."""
        return not self.to_make


@gc_paused()
def make_plan(targets: Iterable[Artifact], keys: Keys, store: Store) -> Plan:
    """Ask the store for the targets, and for the inputs of what it lacks, and so on down.

    Raises CorruptArtifact when an artifact's spec is not the one that its key stands for.
    """
    wanted: dict[str, Artifact] = {}
    for target in targets:
        wanted.setdefault(keys.of(target), target)
    found: dict[str, Node] = {}
    begun: dict[str, dict[str, int]] = {}
    # An iterative depth-first walk, since a graph may be deeper than Python recurses.
    ordered: dict[str, Node] = {}
    for key, target in wanted.items():
        stack: list[tuple[Artifact, str, bool]] = [(target, key, False)]
        while stack:
            spec, key, inputs_done = stack.pop()
            if inputs_done:
                ordered[key] = found[key]
                continue
            if key in found:
                continue
            node = found[key] = _look_up(spec, key, keys, store, begun)
            stack.append((spec, key, True))
            if node.state is State.TO_MAKE:
                below = {keys.of(artifact): artifact for artifact in spec.inputs().values()}
                node.inputs = tuple(below)
                stack.extend((artifact, k, False) for k, artifact in reversed(below.items()))
    _link(ordered, wanted)
    return Plan(ordered, tuple(wanted))


def _look_up(
    spec: Artifact, key: str, keys: Keys, store: Store, begun: dict[str, dict[str, int]]
) -> Node:
    found = look_up(spec, keys, store)
    if isinstance(found, str):
        if spec.kind not in begun:
            begun[spec.kind] = store.begun(spec.kind)
        n_parts = begun[spec.kind].get(key, 0)
        parts = f", but {n_parts} part{'s' * (n_parts > 1)} of it" if n_parts else ""
        return Node(spec, key, State.TO_MAKE, found + parts)
    return Node(spec, key, State.PRESENT, "in the store", warnings=warnings_of(found))


def _link(nodes: dict[str, Node], targets: dict[str, Artifact]) -> None:
    """Fill in who needs whom, how deep each lies, and the reason in words."""
    for node in nodes.values():
        below = [nodes[key] for key in node.inputs]
        for other in below:
            other.needed_by.append(node.key)
        waiting = [other.depth + 1 for other in below if other.state is State.TO_MAKE]
        node.depth = max(waiting, default=0)
    for node in nodes.values():
        if node.state is State.TO_MAKE:
            node.why = "; ".join([node.why, *_reasons(node, nodes, node.key in targets)])


def _reasons(node: Node, nodes: dict[str, Node], is_target: bool) -> list[str]:
    reasons = ["asked for"] if is_target else []
    if node.needed_by:
        first = nodes[node.needed_by[0]]
        more = f" and {len(node.needed_by) - 1} more" if len(node.needed_by) > 1 else ""
        reasons.append(f"needed by {type(first.spec).__name__} {first.key[:8]}{more}")
    return reasons


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
    """Nodes that one call of a recipe makes: same depth, same type, same batch text (by key)."""
    groups: dict[tuple[int, str, str], list[Node]] = {}
    for node in nodes:
        where = (node.depth, type(node.spec).__name__, batch_text[node.key])
        groups.setdefault(where, []).append(node)
    return [groups[where] for where in sorted(groups, key=lambda where: where[0])]
