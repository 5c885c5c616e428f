"""The inline executor: makes what a plan lacks, in this process."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spec import Artifact, Keys

from ..errors import RecipeError, SaevxError, SpecError
from .batch import Batch, Progress
from .plan import Node, Plan, State, group
from .recipe import Recipe

if TYPE_CHECKING:
    from store import Store

FindRecipe = Callable[[type[Artifact]], Recipe[Any]]


@dataclass
class Outcome:
    """What a run did."""

    made: list[Node] = field(default_factory=list)
    failed: dict[str, BaseException] = field(default_factory=dict)
    """What went wrong, by key."""
    blocked: dict[str, str] = field(default_factory=dict)
    """Key of a node that could not run -> key of the failed node below it."""

    @property
    def ok(self) -> bool:
        return not self.failed and not self.blocked


class Listener:
    """Hears how a run goes on. This one says nothing; the command line draws bars."""

    def begin(self, nodes: list[Node]) -> Progress | None:
        """A batch begins; what comes back is called with its progress."""
        return None

    def end(self, nodes: list[Node], failed: dict[str, BaseException]) -> None:
        """The batch that began last has ended."""


def run_plan(
    plan: Plan,
    keys: Keys,
    store: Store,
    find_recipe: FindRecipe,
    listener: Listener | None = None,
) -> Outcome:
    """Make everything in `plan` that is to be made; independent branches go on after a failure.

    Raises SpecError, before anything runs, when specs cannot be made: all faults in one message.
    """
    listener = listener or Listener()
    recipes = {type(node.spec): find_recipe(type(node.spec)) for node in plan.to_make}
    check(plan, keys, recipes)
    batch_text = {
        node.key: keys.text(recipes[type(node.spec)].batch_by(node.spec)) for node in plan.to_make
    }
    outcome = Outcome()
    for nodes in group(plan.to_make, batch_text):
        ready = [node for node in nodes if not _block(node, outcome)]
        # Another process may have made some since the plan.
        ready = [node for node in ready if store.find(node.spec.kind, node.key) is None]
        if ready:
            failed = _run_batch(ready, keys, store, recipes[type(ready[0].spec)], listener)
            outcome.failed |= failed
            outcome.made += [node for node in ready if node.key not in failed]
    for node in outcome.made:
        node.state = State.PRESENT
    return outcome


def check(plan: Plan, keys: Keys, recipes: dict[type[Artifact], Recipe[Any]]) -> None:
    """Run every recipe's preflight over the specs to make; raise one SpecError with all faults."""
    faults: list[str] = []
    for spec_type, recipe in recipes.items():
        if recipe.preflight is None:
            continue
        specs = [node.spec for node in plan.to_make if type(node.spec) is spec_type]
        try:
            recipe.preflight(specs, keys.site)
        except SpecError as error:
            faults.append(str(error))
    if faults:
        raise SpecError("\n".join(faults))


def _run_batch(
    nodes: list[Node], keys: Keys, store: Store, recipe: Recipe[Any], listener: Listener
) -> dict[str, BaseException]:
    progress = listener.begin(nodes)
    with Batch(tuple(node.spec for node in nodes), store, keys, progress) as batch:
        try:
            recipe.make(batch)
        except Exception as error:  # a recipe's bug fails its batch, not the other branches
            for spec in batch.open_specs:
                batch.fail(spec, error)
        for spec in batch.open_specs:
            name = type(spec).__name__
            batch.fail(spec, RecipeError(f"the recipe of {name} ended without making {spec!r}"))
    listener.end(nodes, batch.failed)
    return batch.failed


def _block(node: Node, outcome: Outcome) -> bool:
    """Whether something that the node needs could not be made; noted in `outcome` if so."""
    for key in node.inputs:
        if key in outcome.failed or key in outcome.blocked:
            outcome.blocked[node.key] = outcome.blocked.get(key, key)
            return True
    return False


def explain(error: BaseException) -> str:
    """An error for people: its message where saevx raised it on purpose, else the traceback."""
    if isinstance(error, SaevxError):
        return str(error)
    return "".join(traceback.format_exception(error)).rstrip()
