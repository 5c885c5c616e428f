"""Make what a plan lacks, in this process."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from saevx.errors import BaseSaevxError, MissingArtifact, RecipeError, SpecError, StoreError
from saevx.resolve.batch import Progress
from saevx.resolve.context import Context
from saevx.resolve.leases import Backoff, HeldLeases, lease_all, other_owners
from saevx.resolve.lookup import look_up
from saevx.resolve.plan import Node, Plan, State, group
from saevx.resolve.recipe import FindRecipe, Recipe
from saevx.resolve.run_recipe import keep_failures, make, make_parts
from spec import Artifact, Keys
from store.layout import Ref

if TYPE_CHECKING:
    from store import Store

Owners = dict[str, list[Artifact]]
"""Other processes -> the specs that they make and this run wants."""


@dataclass
class RunResult:
    """What a run made, and what it could not make."""

    made: list[Node] = field(default_factory=list)
    made_elsewhere: list[Node] = field(default_factory=list)
    """What other runs made meanwhile."""
    failed: dict[str, BaseException] = field(default_factory=dict)
    """Key of a failed node -> its error."""
    blocked: dict[str, str] = field(default_factory=dict)
    """Key of a node that could not run -> key of the failed node that it needs."""
    parts_missing: list[Node] = field(default_factory=list)
    """Nodes of which only some parts were to be made, while others are still missing."""

    @property
    def ok(self) -> bool:
        return not self.failed and not self.blocked

    def blocks(self, node: Node) -> bool:
        """Return whether something that the node needs has failed, and note it in `blocked`."""
        for key in node.inputs:
            if key in self.failed or key in self.blocked:
                self.blocked[node.key] = self.blocked.get(key, key)
                return True
        return False


class Listener:
    """Receives the events of a run. This one ignores them; the command line draws progress bars."""

    def begin(self, nodes: list[Node]) -> Progress | None:
        """A batch begins. What this returns is called with the batch's progress."""
        return None

    def end(self, nodes: list[Node], failed: dict[str, BaseException]) -> None:
        """The batch that began last has ended."""

    def wait(self, owners: Mapping[str, Collection[Artifact]]) -> None:
        """All that is left is being made by other processes, given with the specs they make.

        Called again while that goes on, and with nothing once it is over.
        """


def run_plan(plan: Plan, context: Context, listener: Listener | None = None) -> RunResult:
    """Make everything in `plan` that is to be made; independent branches go on after a failure.

    Raise SpecError, before anything runs, when specs cannot be made: all faults in one message.
    """
    keys = context.keys
    recipes = {type(node.spec): context.find_recipe(type(node.spec)) for node in plan.to_make}
    check(plan, keys, recipes)
    batch_text = {
        node.key: keys.text(recipes[type(node.spec)].batch_by(node.spec)) for node in plan.to_make
    }
    run = _Run(plan, context, listener or Listener())
    run.make(group(plan.to_make, batch_text))
    return run.result


def run_parts(
    nodes: list[Node], indices: Collection[int], context: Context, listener: Listener
) -> RunResult:
    """Make some parts of artifacts that one batch makes, while other processes make the others.

    The process that makes the last missing part of an artifact seals it.
    """
    recipe = context.find_recipe(type(nodes[0].spec))
    assert recipe.parts is not None
    specs = tuple(node.spec for node in nodes)
    with context.batch(specs, listener.begin(nodes)) as batch, keep_failures(batch):
        make_parts(recipe.parts, batch, indices)
    listener.end(nodes, batch.failed)
    result = RunResult(failed=batch.failed)
    left = [node for node in nodes if node.key not in batch.failed]
    whole = {node.key: node for node in left if _may_be_sealed(node, batch.n_parts, context)}
    if whole:
        result = run_plan(Plan(whole, tuple(whole)), context, listener)
        result.failed |= batch.failed
    result.parts_missing = [node for node in left if node.key not in whole]
    return result


def _may_be_sealed(node: Node, n_parts: int, context: Context) -> bool:
    """Return whether all parts are there, by their names: only sealing reads their bytes."""
    kind, key = node.spec.kind, node.key
    # In this order: parts are deleted after their artifact is published.
    return (
        len(context.store.parts(kind, key)) >= n_parts or context.store.find(kind, key) is not None
    )


@dataclass
class _Run:
    """A run of a plan. Other runs may go on at the same time; each makes what it has leases of."""

    plan: Plan
    context: Context
    listener: Listener
    result: RunResult = field(default_factory=RunResult)

    def make(self, batches: list[list[Node]]) -> None:
        """Make whole batches first; then what no other run makes of the remaining ones."""
        backoff = Backoff()
        owners: Owners | None = None
        while batches:
            left = [rest for nodes in batches if (rest := self._advance(nodes, owners))]
            if sum(map(len, left)) < sum(map(len, batches)):
                owners = None
                self.listener.wait({})
                backoff.reset()
            else:
                if owners is not None:
                    self.listener.wait(owners)
                # A run that begins now gets all its leases during the pause, so that the two do
                # not share a batch that one of them could make in one go.
                backoff.pause()
                ready = [node for nodes in left for node in nodes if self._is_ready(node)]
                wanted: dict[Ref, Artifact] = {(n.spec.kind, n.key): n.spec for n in ready}
                owners = other_owners(self.context.store, wanted)
            batches = left

    def _advance(self, nodes: list[Node], owners: Owners | None) -> list[Node]:
        """Make a batch if all of it can be made now, else nothing of it.

        Given the other owners, make what they do not make. Return what is left to make.
        """
        nodes = [node for node in nodes if not self.result.blocks(node)]
        missing = self._missing(filter(self._is_ready, nodes))
        left = [node for node in nodes if node.state is State.TO_MAKE]
        if owners is None and len(missing) < len(left):
            return left
        key_of = self.context.keys.of
        elsewhere = {key_of(spec) for specs in (owners or {}).values() for spec in specs}
        tried = [node for node in missing if node.key not in elsewhere]
        leases = lease_all(self.context.store, ((node.spec.kind, node.key) for node in tried))
        if leases is None:
            return left
        with leases:
            # Again: another run may have published just before the leases were taken.
            if to_make := self._missing(tried):
                self._run_batch(to_make, leases)
        done = {node.key for node in tried}
        return [node for node in left if node.key not in done]

    def _missing(self, nodes: Iterable[Node]) -> list[Node]:
        """Return the nodes that the store lacks. Count the others as made by other runs."""
        missing = []
        for node in nodes:
            if isinstance(look_up(node.spec, self.context.keys, self.context.store), str):
                missing.append(node)
            else:
                node.state = State.PRESENT
                self.result.made_elsewhere.append(node)
        return missing

    def _is_ready(self, node: Node) -> bool:
        return all(self.plan.nodes[key].state is State.PRESENT for key in node.inputs)

    def _run_batch(self, nodes: list[Node], leases: HeldLeases) -> None:
        specs = tuple(node.spec for node in nodes)
        recipe = self.context.find_recipe(type(specs[0]))
        with self.context.batch(specs, self.listener.begin(nodes), leases.release) as batch:
            with keep_failures(batch):
                make(recipe, batch, self.listener.wait)
            for spec in batch.open_specs:
                name = type(spec).__name__
                batch.fail(spec, RecipeError(f"the recipe of {name} ended without making {spec!r}"))
        self.listener.end(nodes, batch.failed)
        self.result.failed |= batch.failed
        for node in nodes:
            if node.key not in batch.failed:
                node.state = State.PRESENT
                elsewhere = node.key in batch.made_elsewhere
                (self.result.made_elsewhere if elsewhere else self.result.made).append(node)


def input_vanished(plan: Plan, result: RunResult, store: Store) -> bool:
    """Return whether something failed because an input was removed, or was for a moment."""
    if any(map(_is_absence, result.failed.values())):
        return True
    inputs = {key for failed in result.failed for key in plan.nodes[failed].inputs}
    return any(
        node.state is State.PRESENT and store.find(node.spec.kind, node.key) is None
        for node in map(plan.nodes.__getitem__, inputs)
    )


def _is_absence(error: BaseException) -> bool:
    return isinstance(error, MissingArtifact) or (
        isinstance(error, StoreError) and isinstance(error.__cause__, FileNotFoundError)
    )


def check(plan: Plan, keys: Keys, recipes: dict[type[Artifact], Recipe[Any]]) -> None:
    """Run every recipe's preflight over the specs to make. Raise one SpecError with all faults."""
    faults: list[str] = []
    for spec_type, recipe in recipes.items():
        if recipe.preflight is None:
            continue
        specs = [node.spec for node in plan.to_make if type(node.spec) is spec_type]
        try:
            recipe.preflight(specs, keys.site)
        except SpecError as error:
            faults += str(error).splitlines()
    if faults:  # each once: several recipes may report the same fault of a ViT
        raise SpecError("\n".join(dict.fromkeys(faults)))


def notes_on(plan: Plan, find_recipe: FindRecipe) -> list[str]:
    """Return what recipes say about the specs to make, each once."""
    by_type: dict[type[Artifact], list[Artifact]] = {}
    for node in plan.to_make:
        by_type.setdefault(type(node.spec), []).append(node.spec)
    found: list[str] = []
    for spec_type, specs in by_type.items():
        with suppress(BaseSaevxError, SpecError):  # a run tells what cannot be made, and why
            notes = find_recipe(spec_type).notes
            found += notes(specs) if notes else ()
    return list(dict.fromkeys(found))
