"""Plans of recorded runs: what a run wants is written down before the store is asked for it.

These are steps R1 to R3 of the protocol in store/gc.py: a collection beside a run either knows what
the run wants, or is over before the run looks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from spec import Artifact, Keys
from store.gc import wait_for_collectors

from .plan import Plan, State, make_plan

if TYPE_CHECKING:
    from store import Store
    from store.records import Graph, Ref
    from store.roots import Recording

    from .run import Outcome


def plan_recorded(
    specs: Iterable[Artifact], keys: Keys, store: Store, recording: Recording
) -> Plan:
    """The plan of specs that `recording` has written down. Raises what `make_plan` raises."""
    specs = list(specs)
    targets = [_ref(spec, keys) for spec in specs]
    recording.want(targets, recording.known(targets) or graph_of(specs, keys))
    wait_for_collectors(store)
    return make_plan(specs, keys, store)


def graph_of(specs: Iterable[Artifact], keys: Keys) -> Graph:
    """All that specs are made from, whether or not it is there."""
    graph: Graph = {}
    waiting = list(specs)
    while waiting:
        spec = waiting.pop()
        ref = _ref(spec, keys)
        if ref not in graph:
            below = list(spec.inputs().values())
            graph[ref] = tuple(_ref(artifact, keys) for artifact in below)
            waiting.extend(below)
    return graph


def vanished(plan: Plan, outcome: Outcome, store: Store) -> list[str]:
    """Keys of inputs that were there when a run began, and are gone where it failed."""
    suspects = {key: None for failed in outcome.failed for key in plan.nodes[failed].inputs}
    nodes = [plan.nodes[key] for key in suspects]
    return [
        node.key
        for node in nodes
        if node.state is State.PRESENT and store.find(node.spec.kind, node.key) is None
    ]


def _ref(spec: Artifact, keys: Keys) -> Ref:
    return spec.kind, keys.of(spec)
