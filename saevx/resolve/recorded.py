"""Plans of recorded runs: what a run wants is written down before the store is asked for it.

These are steps R1 to R3 of the protocol in store/gc/collector.py: a concurrent collection either
knows what the run wants, or ends before the run looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from saevx.compute.memory import gc_paused
from saevx.resolve.context import Context
from saevx.resolve.plan import Plan, State, make_plan
from saevx.resolve.run import RunResult, run_plan
from saevx.user_types import declared_types
from spec import Artifact, Keys
from store.errors import MissingArtifact, StoreError
from store.gc.collector import wait_for_collectors

if TYPE_CHECKING:
    from store import Store
    from store.gc.records import Graph
    from store.gc.roots import RunRecording
    from store.layout import Ref

Execute = Callable[[Plan, Context], RunResult]
"""What runs a plan; `run_plan` does so in this process."""

PLANS_AGAIN = 3
"""So often a plan is made anew because something was removed under it."""


@gc_paused()
def plan_recorded(
    specs: Iterable[Artifact], keys: Keys, store: Store, recording: RunRecording
) -> Plan:
    """The plan of specs that `recording` has written down. Raises what `make_plan` raises."""
    specs = list(specs)
    targets = [_ref(spec, keys) for spec in specs]
    recording.want(targets, recording.known(targets) or graph_of(specs, keys), declared_types())
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


def run_recorded(
    plan: Plan, context: Context, recording: RunRecording, execute: Execute = run_plan
) -> tuple[Plan, RunResult]:
    """Make what a recorded plan lacks. Where an input was removed meanwhile, plan and run again.

    Returns the last plan, and all that was made. Raises SpecError as `run_plan` does.
    """
    targets = [plan.nodes[key].spec for key in plan.targets]
    outcome = execute(plan, context)
    for _ in range(PLANS_AGAIN):
        if not _vanished(plan, outcome, context.store):
            break
        made, came = outcome.made, outcome.made_elsewhere
        plan = plan_recorded(targets, context.keys, context.store, recording)
        outcome = execute(plan, context)
        outcome.made, outcome.made_elsewhere = made + outcome.made, came + outcome.made_elsewhere
    return plan, outcome


def _vanished(plan: Plan, outcome: RunResult, store: Store) -> bool:
    """Whether something failed since an input that was there is gone, or was for a moment."""
    if any(_is_of_absence(error) for error in outcome.failed.values()):
        return True
    suspects = {key: None for failed in outcome.failed for key in plan.nodes[failed].inputs}
    return any(
        node.state is State.PRESENT and store.find(node.spec.kind, node.key) is None
        for node in (plan.nodes[key] for key in suspects)
    )


def _is_of_absence(error: BaseException) -> bool:
    return isinstance(error, MissingArtifact) or (
        isinstance(error, StoreError) and isinstance(error.__cause__, FileNotFoundError)
    )


def _ref(spec: Artifact, keys: Keys) -> Ref:
    return spec.kind, keys.of(spec)
