"""What making artifacts needs beside a plan: keys, a store, recipes, the version of the code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from saevx.resolve.batch import A, Batch, Progress
from saevx.resolve.provenance import CodeVersion
from saevx.resolve.recipe import FindRecipe, declared_recipe
from spec import Keys

if TYPE_CHECKING:
    from store import Store


@dataclass
class Context:
    """Everything beside a plan that running it needs."""

    keys: Keys
    store: Store
    find_recipe: FindRecipe = declared_recipe
    code: CodeVersion = field(default_factory=CodeVersion.of)
    """The code as it was when the context was made, for provenance."""

    def batch(
        self,
        specs: tuple[A, ...],
        progress: Progress | None = None,
        on_done: Callable[[str], None] | None = None,
    ) -> Batch[A]:
        """Return the batch of specs that one call of their recipe makes."""
        parts = self.find_recipe(type(specs[0])).parts
        return Batch(
            specs,
            keys=self.keys,
            store=self.store,
            code=self.code,
            find_loader=lambda spec_type: self.find_recipe(spec_type).load,
            n_parts=parts.count(specs[0], self.keys.site) if parts else 0,
            progress=progress,
            on_done=on_done,
        )
