"""Spec, the frozen description that everything is made from, and Artifact, one that is stored."""

from typing import Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict

from .errors import SpecError
from .site import Site, current_site

Kind = Literal["shards", "checkpoints", "activations", "results"]
"""The parts of a store."""


class Spec(BaseModel):
    """A description: what an image set, a ViT, an optimiser or an artifact is.

    Frozen, and no field but the declared ones. Wherever a spec stands within another one it counts
    inline, with its type name and all of its fields but the `Exec` ones.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=False
    )

    def fingerprints(self, site: Site) -> dict[str, str]:
        """Names by content of what the spec points at on disk; they count beside its fields."""
        return {}

    def _repr_html_(self) -> str:
        from .tree import draw_html

        return draw_html(self, current_site())


class Artifact(Spec):
    """A spec whose making is stored, under its key.

    `kind` is the part of the store. `version` is raised by hand when the meaning of the recipe
    changes, which gives new keys to this type and all that is made from it.
    """

    kind: ClassVar[Kind]
    version: ClassVar[int] = 1

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        kind = getattr(cls, "kind", None)
        if kind is not None and kind not in get_args(Kind):
            raise TypeError(f"{cls.__name__}.kind is {kind!r}; it must be one of {get_args(Kind)}")
        if isinstance(cls.version, bool) or not isinstance(cls.version, int) or cls.version < 1:
            raise TypeError(f"{cls.__name__}.version is {cls.version!r}; it must be 1, 2, 3, ...")

    def derived(self) -> dict[str, "Artifact"]:
        """Artifacts that follow from the fields. They count in the key like fields."""
        return {}

    def inputs(self) -> dict[str, "Artifact"]:
        """The artifacts that the recipe reads: unless said otherwise, fields and derived ones."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        own = {name: value for name, value in fields.items() if isinstance(value, Artifact)}
        return own | self.derived()

    @property
    def key(self) -> str:
        """32 hex digits that name the artifact in every store; looked up anew each time.

        Raises SpecError or DatasetError when something that the key rests on cannot be found.
        """
        from .key import Keys

        if not hasattr(type(self), "kind"):
            raise SpecError(f"{type(self).__name__} is abstract: it has no kind and no key")
        return Keys(current_site()).of(self)
