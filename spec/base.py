"""Spec, the base of all descriptions, and Artifact, a spec whose result is stored."""

from collections.abc import Iterator
from typing import Any, ClassVar, get_args

from pydantic import model_validator

from spec.files.site import current_site
from spec.keys.key import Keys
from spec.keys.markers import check_markers
from spec.keys.model import ArtifactModel, Kind, SpecModel
from spec.keys.type_names import check_type_names, file_of
from spec.keys.values import exact
from spec.tree import draw_html

RESERVED = {
    "kind": "a class attribute: write `kind: ClassVar[Kind] = ...`",
    "version": "the version of the type, a class attribute: write `version: ClassVar[int] = 2`, "
    "or say of what the field is the version, as in `data_version`",
    "namespace": "what stands before the type's name in keys, a class attribute",
    "formerly": "the type's former names in keys, a class attribute",
    "key": "computed from all fields",
}
"""Names that no field can have, and what they mean."""


def _check_field_names(spec_type: "type[Spec]") -> None:
    """Raise TypeError for a field that would hide an attribute that every such spec has."""
    for name in spec_type.model_fields:
        refused = f"{spec_type.__name__}.{name} cannot be a field"
        if name in RESERVED:
            raise TypeError(f"{refused}: {name!r} is {RESERVED[name]}")
        for base in (*spec_type.__mro__[1:], Artifact):  # a description may become an artifact
            if issubclass(base, SpecModel) and name in vars(base):
                raise TypeError(
                    f"{refused}: it would hide {base.__name__}.{name}; give the field another name"
                )


def _why_abstract(spec_type: "type[Spec]") -> str:
    """Say why a type cannot be built, and what to build or write instead."""
    name = spec_type.__name__
    if not spec_type._abstract:
        return f'{name} has no kind: write `kind: ClassVar[Kind] = "results"` in the class'
    concrete: set[str] = set()
    waiting = spec_type.__subclasses__()
    while waiting:
        found = waiting.pop()
        waiting += found.__subclasses__()
        if found._is_declared and not found.is_abstract():
            concrete.add(found.__name__)
    return f"{name} is abstract: build one of {', '.join(sorted(concrete)) or 'its subclasses'}"


class Spec(SpecModel):
    """A description: what an image set, a ViT, an optimiser or an artifact is.

    Specs are frozen and accept declared fields only. A spec within another one counts inline in
    the other's key: its type name, its version and all fields except those marked `Exec`.

    Raise `version` when the meaning of a type or of its recipe changes: specs of this type, and all
    that is made from them, then get new keys.

    Declare a class that only groups its subclasses as `class Weights(Spec, abstract=True)`; it
    cannot be built.
    """

    _abstract: ClassVar[bool] = True

    def __init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls._is_declared = False
        cls._abstract = abstract
        cls._file = file_of(cls.__module__)
        cls._check_declaration()
        cls._is_declared = True

    @classmethod
    def _check_declaration(cls) -> None:
        """Raise TypeError for a class that cannot be a spec."""
        _check_field_names(cls)
        check_markers(cls.__name__, cls.model_fields)
        check_type_names(cls)
        if isinstance(cls.version, bool) or not isinstance(cls.version, int) or cls.version < 1:
            raise TypeError(f"{cls.__name__}.version is {cls.version!r}; it must be 1, 2, 3, ...")

    @classmethod
    def is_abstract(cls) -> bool:
        """Return whether only subclasses can be built."""
        return cls._abstract

    @model_validator(mode="before")
    @classmethod
    def _check_data(cls, data: Any) -> Any:
        if cls.is_abstract():
            raise ValueError(_why_abstract(cls))
        return exact(cls, data) if isinstance(data, dict) else data

    def _repr_html_(self) -> str:
        return draw_html(self, current_site())


class Artifact(Spec, ArtifactModel, abstract=True):
    """A spec whose result is stored under its key.

    `kind` is the part of the store that holds it.
    """

    @classmethod
    def _check_declaration(cls) -> None:
        super()._check_declaration()
        kind = getattr(cls, "kind", None)
        if kind is not None and kind not in get_args(Kind):
            raise TypeError(f"{cls.__name__}.kind is {kind!r}; it must be one of {get_args(Kind)}")

    @classmethod
    def is_abstract(cls) -> bool:
        """Return whether only subclasses can be built; a class without a `kind` is abstract too."""
        return super().is_abstract() or not hasattr(cls, "kind")

    def derived(self) -> dict[str, "Artifact"]:
        """Return artifacts that follow from the fields; they count in the key like fields."""
        return {}

    def inputs(self) -> dict[str, "Artifact"]:
        """Return the artifacts that the recipe reads, by default those in fields and `derived`.

        Artifacts within a field are named by their place: `parts[0]`, `teachers.small`.
        """
        return dict(artifacts_in(self)) | self.derived()

    @property
    def key(self) -> str:
        """The 32 hex digits that name the artifact in every store, computed at each access.

        Raises SpecError or DatasetError when files that the key depends on cannot be found.
        """
        return Keys(current_site()).of(self)


def artifacts_in(spec: Spec) -> Iterator[tuple[str, Artifact]]:
    """Yield the artifacts in a spec's fields, with their places; not those within artifacts."""
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
