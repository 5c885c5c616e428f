"""The inline executor: makes what a plan lacks, in this process."""

from __future__ import annotations

import traceback
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from saevx.errors import RecipeError, SaevxError, SpecError
from saevx.resolve.batch import Batch, Progress
from saevx.resolve.context import Context
from saevx.resolve.fork_guard import children_end_here
from saevx.resolve.leases import Backoff, Claim, Held, claim, look, who_holds
from saevx.resolve.lookup import find
from saevx.resolve.parts import make, make_parts
from saevx.resolve.plan import Node, Plan, State, group
from saevx.resolve.recipe import Recipe
from spec import Artifact, Keys

if TYPE_CHECKING:
    from store import Store


@dataclass
class RunResult:
    """What a run did."""

    made: list[Node] = field(default_factory=list)
    made_elsewhere: list[Node] = field(default_factory=list)
    """What another run made meanwhile."""
    failed: dict[str, BaseException] = field(default_factory=dict)
    """What went wrong, by key."""
    blocked: dict[str, str] = field(default_factory=dict)
    """Key of a node that could not run -> key of the failed node below it."""
    partly: list[Node] = field(default_factory=list)
    """Of which only some parts were to be made; others are still lacking."""

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

    def wait(self, held: Held) -> None:
        """All that is left to make is being made by other runs: by whom, and what.

        Called again while that goes on, and with nothing once it is over.
        """


def run_plan(plan: Plan, context: Context, listener: Listener | None = None) -> RunResult:
    """Make everything in `plan` that is to be made; independent branches go on after a failure.

    Raises SpecError, before anything runs, when specs cannot be made: all faults in one message.
    """
    keys = context.keys
    recipes = {type(node.spec): context.find_recipe(type(node.spec)) for node in plan.to_make}
    check(plan, keys, recipes)
    batch_text = {
        node.key: keys.text(recipes[type(node.spec)].batch_by(node.spec)) for node in plan.to_make
    }
    worker = _Worker(plan, context, listener or Listener())
    worker.make(group(plan.to_make, batch_text))
    return worker.outcome


def run_parts(
    nodes: list[Node],
    indices: Collection[int],
    context: Context,
    listener: Listener,
) -> RunResult:
    """Make some parts of artifacts that one batch makes, while other processes make the others.

    Whoever has made the last part of an artifact seals it.
    """
    recipe = context.find_recipe(type(nodes[0].spec))
    assert recipe.parts is not None
    progress = listener.begin(nodes)
    specs = tuple(node.spec for node in nodes)
    with (
        Batch(specs, context, progress) as batch,
        _failing(batch),
        children_end_here(),
    ):
        make_parts(recipe.parts, batch, indices)
    listener.end(nodes, batch.failed)
    outcome = RunResult(failed=batch.failed)
    n_parts = recipe.parts.count(specs[0], context.keys.site)
    left = [node for node in nodes if node.key not in batch.failed]
    whole = {node.key: node for node in left if _may_be_sealed(node, n_parts, context.store)}
    if whole:
        outcome = run_plan(Plan(whole, tuple(whole)), context, listener)
        outcome.failed |= batch.failed
    outcome.partly = [node for node in left if node.key not in whole]
    return outcome


def _may_be_sealed(node: Node, n_parts: int, store: Store) -> bool:
    """By the names of its parts alone: their bytes are read by who seals, and by nobody else."""
    kind, key = node.spec.kind, node.key
    # In this order: parts are dropped when their artifact is there, not before.
    return len(store.parts(kind, key)) >= n_parts or store.find(kind, key) is not None


@contextmanager
def _failing(batch: Batch[Any]) -> Iterator[None]:
    """A recipe's bug fails its batch, not the other branches."""
    error: Exception
    try:
        yield
        return
    except SystemExit as stop:
        name = type(batch.specs[0]).__name__
        frame = traceback.extract_tb(stop.__traceback__)[-1]
        error = RecipeError(
            f"the recipe of {name} called sys.exit({stop.code!r}), in {frame.filename}, line "
            f"{frame.lineno}: a recipe that cannot go on must raise an error"
        )
        error.__cause__ = stop
    except Exception as raised:
        error = raised
    for spec in batch.open_specs:
        batch.fail(spec, error)


@dataclass
class _Worker:
    """Makes batches side by side with other runs, each of which makes what it has leases of."""

    plan: Plan
    context: Context
    listener: Listener
    outcome: RunResult = field(default_factory=RunResult)

    def make(self, batches: list[list[Node]]) -> None:
        """Make whole batches first; then parts of batches, while other runs make the rest."""
        patience = Backoff()
        held: Held | None = None
        while batches:
            left = [rest for nodes in batches if (rest := self._advance(nodes, held))]
            if sum(map(len, left)) < sum(map(len, batches)):
                held = None
                self.listener.wait({})
                patience.reset()
            else:
                if held is not None:
                    self.listener.wait(held)
                # A run that begins at this moment gets all its leases during the pause, and the
                # two do not share a batch that one of them could make in one go.
                patience.pause()
                ready = (node for nodes in left for node in nodes if self._is_ready(node))
                held = who_holds(ready, self.context.store)
            batches = left

    def _advance(self, nodes: list[Node], held: Held | None) -> list[Node]:
        """Make a batch if all of it can be made now, and otherwise nothing of it.

        Given what others hold, make what can be made without that. Returns what is left to make.
        """
        nodes = [node for node in nodes if not _block(node, self.outcome)]
        came, absent = look(filter(self._is_ready, nodes), self.context.store)
        self._take_in(came)
        left = [node for node in nodes if node.state is State.TO_MAKE]
        if held is None and len(absent) < len(left):
            return left
        elsewhere = {node.key for others in (held or {}).values() for node in others}
        part = [node for node in absent if node.key not in elsewhere]
        claimed = claim(part, self.context.store) if part else None
        if claimed is None:
            return left
        with claimed:
            self._take_in(claimed.came)
            if claimed.nodes:
                self._run_batch(claimed)
        tried = {node.key for node in part}
        return [node for node in left if node.key not in tried]

    def _take_in(self, came: list[Node]) -> None:
        for node in came:
            # Raises where it is another spec's.
            find(node.spec, self.context.keys, self.context.store)
            node.state = State.PRESENT
        self.outcome.made_elsewhere += came

    def _is_ready(self, node: Node) -> bool:
        return all(self.plan.nodes[key].state is State.PRESENT for key in node.inputs)

    def _run_batch(self, claimed: Claim) -> None:
        nodes, specs = claimed.nodes, tuple(node.spec for node in claimed.nodes)
        recipe = self.context.find_recipe(type(nodes[0].spec))
        progress = self.listener.begin(nodes)
        with Batch(specs, self.context, progress, claimed.release) as batch:
            with _failing(batch), children_end_here():
                make(recipe, batch, partial(self._wait, nodes))
            for spec in batch.open_specs:
                name = type(spec).__name__
                batch.fail(spec, RecipeError(f"the recipe of {name} ended without making {spec!r}"))
        self.listener.end(nodes, batch.failed)
        self.outcome.failed |= batch.failed
        for node in nodes:
            if node.key not in batch.failed:
                node.state = State.PRESENT
                came = node.key in batch.made_elsewhere
                (self.outcome.made_elsewhere if came else self.outcome.made).append(node)

    def _wait(self, nodes: list[Node], others: dict[str, list[Artifact]]) -> None:
        """Tell whom parts of a batch are waited for."""
        node_of, key_of = {node.key: node for node in nodes}, self.context.keys.of
        self.listener.wait({who: [node_of[key_of(s)] for s in ss] for who, ss in others.items()})


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
            faults += str(error).splitlines()
    if faults:  # several recipes may ask the same of a ViT, or of this machine
        raise SpecError("\n".join(dict.fromkeys(faults)))


def _block(node: Node, outcome: RunResult) -> bool:
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
