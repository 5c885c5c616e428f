"""Specs written as documents, and read back."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import pytest

import spec
from spec import Keys, Site, SpecError
from spec.keys.type_names import named_types


class Source(spec.Artifact):
    kind: ClassVar = "shards"
    version: ClassVar[int] = 3
    size: int = 1
    device: Annotated[str, spec.Exec()] = "cpu"

    def fingerprints(self, site: Site) -> dict[str, str]:
        return {"files": "abc"}


class Loose(spec.Spec):
    value: Any = None


class Made(spec.Artifact):
    kind: ClassVar = "results"
    source: Source
    loose: Loose = Loose()


def test_nested_artifacts_are_written_out_whole() -> None:
    keys, source = Keys(Site()), Source(device="cuda")
    made = Made(source=source, loose=Loose(value=frozenset({2, 10})))
    fields: dict[str, Any] = {"size": 1}
    document: dict[str, Any] = {
        "type": f"{__name__}.Made",
        "kind": "results",
        "version": 1,
        "key": keys.of(made),
        "fields": {
            "source": {
                "type": f"{__name__}.Source",
                "kind": "shards",
                "version": 3,
                "key": keys.of(source),
                "content": {"files": "abc"},
                "fields": fields,
            },
            "loose": {
                "type": f"{__name__}.Loose",
                "version": 1,
                "fields": {"value": [10, 2]},
            },
        },
    }
    assert spec.to_document(made, keys) == document
    fields["device"] = "cuda"
    assert spec.to_document(made, keys, with_exec=True) == document


@pytest.mark.parametrize(
    "value",
    [{"type": "linear", "n": [1, {"fields": {"a": 2}}]}, {"type": 1, "fields": {}}, [Loose()]],
)
def test_values_that_look_like_specs_are_read_as_they_were(value: Any) -> None:
    made = Made(source=Source(device="cuda"), loose=Loose(value=value))
    assert spec.from_document(spec.to_document(made, Keys(Site()), with_exec=True)) == made


def test_unknown_types_and_values_without_json_are_named() -> None:
    with pytest.raises(SpecError, match=r"no spec type 'Gone' is defined: import"):
        spec.from_document({"type": "Gone", "fields": {}})
    with pytest.raises(SpecError, match=r"Loose\.value\.x is a object, which cannot be written"):
        spec.to_document(Loose(value={"x": object()}), Keys(Site()))


def test_a_type_declared_again_replaces_the_first():
    """As when a notebook cell is run twice."""

    def declare(version_now: int) -> type[spec.Artifact]:
        class Twice(spec.Artifact):
            kind: ClassVar = "results"
            version: ClassVar[int] = version_now

        return Twice

    first, second = declare(1), declare(2)
    assert named_types()[f"{__name__}.Twice"] is second
    found = spec.from_document({"type": f"{__name__}.Twice", "fields": {}})
    assert type(found) is second is not first
