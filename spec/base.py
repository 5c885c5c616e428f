"""Spec, the frozen description that everything is made from, and Artifact, one that is stored."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, model_validator

from .markers import check_marks
from .site import Site, current_site

Kind = Literal["shards", "checkpoints", "activations", "results"]
"""The parts of a store."""

CLASS_FACTS = {
    "kind": "a class has one: write `kind: ClassVar[Kind]`, and a value",
    "version": "a class has one, of its recipe: write `version: ClassVar[int] = 2`; for that of "
    "something else say of what, as in `data_version`",
    "key": "it is computed from all fields",
}
"""Names that no field can have, and what to write instead."""


def _check_names(spec_type: "type[Spec]") -> None:
    """Raise TypeError for a field that would hide what every spec of its kind has."""
    for name in spec_type.model_fields:
        place = f"{spec_type.__name__}.{name} cannot be a field"
        if name in CLASS_FACTS:
            raise TypeError(f"{place}: {CLASS_FACTS[name]}")
        for base in (*spec_type.__mro__[1:], Artifact):  # a description may become an artifact
            if issubclass(base, Spec) and name in vars(base):
                raise TypeError(
                    f"{place}, since {base.__name__}.{name} has a meaning of its own: give the "
                    "field another name"
                )


def _what_to_build(spec_type: "type[Spec]") -> str:
    name = spec_type.__name__
    if not spec_type._abstract:
        return f'{name} has no kind: write `kind: ClassVar[Kind] = "results"` in the class'
    concrete: set[str] = set()
    waiting = spec_type.__subclasses__()
    while waiting:
        found = waiting.pop()
        waiting += found.__subclasses__()
        if not found.is_abstract():
            concrete.add(found.__name__)
    return f"{name} is abstract: build one of {', '.join(sorted(concrete)) or 'its subclasses'}"


class Spec(BaseModel):
    """A description: what an image set, a ViT, an optimiser or an artifact is.

    Frozen, and no field but the declared ones. Wherever a spec stands within another one it counts
    inline, with its type name and all of its fields but the `Exec` ones.

    A class of which only subclasses mean something is declared `class Weights(Spec, abstract=True)`
    and cannot be built.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=False
    )

    _abstract: ClassVar[bool] = True

    def __init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls._abstract = abstract
        _check_names(cls)
        check_marks(cls.__name__, cls.model_fields)

    @classmethod
    def is_abstract(cls) -> bool:
        """Whether only its subclasses can be built."""
        return cls._abstract

    @model_validator(mode="before")
    @classmethod
    def _is_concrete(cls, data: Any) -> Any:
        if cls.is_abstract():
            raise ValueError(_what_to_build(cls))
        return data

    def fingerprints(self, site: Site) -> dict[str, str]:
        """Names by content of what the spec points at on disk; they count beside its fields."""
        return {}

    def _repr_html_(self) -> str:
        from .tree import draw_html

        return draw_html(self, current_site())


class Artifact(Spec, abstract=True):
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

    @classmethod
    def is_abstract(cls) -> bool:
        """Whether only its subclasses can be built; so it is without a kind, too."""
        return super().is_abstract() or not hasattr(cls, "kind")

    def derived(self) -> dict[str, "Artifact"]:
        """Artifacts that follow from the fields. They count in the key like fields."""
        return {}

    def inputs(self) -> dict[str, "Artifact"]:
        """The artifacts that the recipe reads: unless said otherwise, fields and derived ones.

        Those within a field are named after their place: `parts[0]`, `teachers.small`.
        """
        return dict(artifacts_in(self)) | self.derived()

    @property
    def key(self) -> str:
        """32 hex digits that name the artifact in every store; looked up anew each time.

        Raises SpecError or DatasetError when something that the key rests on cannot be found.
        """
        from .key import Keys

        return Keys(current_site()).of(self)


def artifacts_in(spec: Spec) -> Iterator[tuple[str, Artifact]]:
    """The artifacts that a spec's fields hold, with their places; not those within artifacts."""
    for name in type(spec).model_fields:
        yield from _artifacts_at(name, getattr(spec, name))


def _artifacts_at(place: str, value: Any) -> Iterator[tuple[str, Artifact]]:
    if isinstance(value, Artifact):
        yield place, value
    elif isinstance(value, Spec):
        for name, artifact in artifacts_in(value):
            yield f"{place}.{name}", artifact
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _artifacts_at(f"{place}.{name}", item)
    elif isinstance(value, list | tuple | set | frozenset):
        for i, item in enumerate(value if isinstance(value, list | tuple) else _in_order(value)):
            yield from _artifacts_at(f"{place}[{i}]", item)


def _in_order(items: set[Any] | frozenset[Any]) -> list[Any]:
    return sorted(items, key=repr)  # a set's own order differs between processes
