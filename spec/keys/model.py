"""What keys and trees read of a spec. `Spec` and `Artifact` in base.py build on these models."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict

from spec.files.site import Site

Kind = Literal["shards", "checkpoints", "activations", "results"]
"""The parts of a store."""


class SpecModel(BaseModel):
    """A frozen model that counts inline, with its type name, in the key of what holds it."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=False
    )

    version: ClassVar[int] = 1
    """Raised by hand when the meaning of a type changes. It counts in keys."""
    namespace: ClassVar[str | None] = None
    """What stands before the name of a user's type in keys. By default it is the module that
    declares the type, or the name of an experiment's file without .py."""
    formerly: ClassVar[tuple[str, ...]] = ()
    """Names that the type had in keys before it was renamed or moved, the oldest first. The oldest
    one still counts in keys, so that artifacts made under it are found."""

    _file: ClassVar[str] = ""
    """The file that declares the type; "" in a notebook."""
    _is_declared: ClassVar[bool] = True
    """False for a class that was refused, which is still among the subclasses of its base."""

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some fields replaced. Raises ValidationError as the class does."""
        if not update:
            return super().model_copy(deep=deep)
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**fields | dict(update))

    def fingerprints(self, site: Site) -> dict[str, str]:
        """Return digests of the files that the spec points at; they count in keys like fields."""
        return {}


class ArtifactModel(SpecModel):
    """A model with a key of its own, by which it counts in the keys of other models."""

    kind: ClassVar[Kind]

    def derived(self) -> "Mapping[str, ArtifactModel]":
        """Return artifacts that follow from the fields; they count in the key like fields."""
        raise NotImplementedError

    def inputs(self) -> "Mapping[str, ArtifactModel]":
        """Return the artifacts that the recipe reads, by name."""
        raise NotImplementedError
