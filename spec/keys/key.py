"""Keys: xxh3_128 over the canonical JSON of {type, version, fields}.

Within the fields an artifact counts by its own key (a Merkle graph), and any other spec inline with
its type name and version. The value of a field decides, not its annotation: a subclass counts with
its own name and all its fields where the annotation names its base.
"""

import json
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import xxhash

from spec.errors import SpecError
from spec.files.site import Site
from spec.keys.canonical import canonical_json, plain
from spec.keys.markers import Since, check_markers, is_exec
from spec.keys.model import ArtifactModel, SpecModel
from spec.keys.type_names import check_is_only, present_types, type_name

_ATOMS = frozenset({int, bool, float, type(None)})


@dataclass(frozen=True, slots=True, eq=False)
class CanonicalForm:
    """The canonical JSON of a spec. Compared by identity, so it can represent the spec's value."""

    inline: str
    """Its text within another spec."""
    canonical: str = ""
    """The text that an artifact's key is the hash of."""
    key: str = ""


@dataclass(frozen=True, slots=True)
class KeyField:
    """How a field of a spec type counts in keys."""

    name: str
    in_key: bool
    legacy: tuple[str, ...]
    """Canonical JSON of the values for which the field is left out."""


class Keys:
    """Computes keys, each once, and takes the fingerprint of each dataset once.

    Make a new one whenever files on disk may have changed. `site` is a frozen view of the one
    given.
    """

    def __init__(self, site: Site) -> None:
        self.site = site.frozen()
        # Holding the spec keeps its id from being reused.
        self._by_id: dict[int, tuple[SpecModel, CanonicalForm]] = {}
        # Equal specs that were built separately, such as the ViT of each target, are encoded once.
        self._by_value: dict[Hashable, CanonicalForm] = {}
        self._fields_of: dict[type[SpecModel], tuple[KeyField, ...]] = {}
        self._names: dict[type[SpecModel], str] = {}

    def of(self, artifact: ArtifactModel) -> str:
        """Return the key of an artifact: 32 hex digits."""
        return self._form(artifact, type(artifact).__name__).key

    def canonical(self, artifact: ArtifactModel) -> str:
        """Return the canonical JSON that the key is the hash of."""
        return self._form(artifact, type(artifact).__name__).canonical

    def text(self, value: Any) -> str:
        """Return the canonical JSON of any field value, as it counts in a key."""
        return self._text(value, "value")

    def _form(self, spec: SpecModel, where: str) -> CanonicalForm:
        known = self._by_id.get(id(spec))
        if known is not None:
            return known[1]
        value = self._value_of(spec, where)
        form = self._by_value.get(value) if value is not None else None
        if form is None:
            form = self._encode(spec, where)
            if value is not None:
                self._by_value[value] = form
        self._by_id[id(spec)] = (spec, form)
        return form

    def _value_of(self, spec: SpecModel, where: str) -> Hashable | None:
        """Return a value that is equal for two specs only if all their fields are; None if unknown.

        `Exec` fields are compared too, since they say where to look for the content.
        """
        if spec.__pydantic_private__:
            return None
        values: list[Hashable] = [type(spec)]
        fields = spec.__dict__
        for field in self._fields_of_type(type(spec)):
            value = fields[field.name]
            kind = type(value)
            if kind is str:
                values.append(value)
            elif kind in _ATOMS:
                values.append((kind, value))  # Python calls 1, 1.0 and True equal; JSON does not
            elif isinstance(value, SpecModel):
                values.append(self._form(value, f"{where}.{field.name}"))
            elif kind is tuple and all(type(item) is str for item in value):
                values.append(value)
            else:
                return None
        return tuple(values)

    def _encode(self, spec: SpecModel, where: str) -> CanonicalForm:
        name, version = self._name_of(type(spec)), type(spec).version
        text = f'{{"fields":{self._fields(spec, where)},"type":{name},"version":{version}}}'
        if not isinstance(spec, ArtifactModel):
            return CanonicalForm(text)
        key = xxhash.xxh3_128_hexdigest(text.encode())
        return CanonicalForm(f'{{"key":"{key}","type":{name}}}', text, key)

    def _name_of(self, spec_type: type[SpecModel]) -> str:
        """Return the name of a type as JSON. Raises SpecError if another type has it too."""
        if spec_type not in self._names:
            check_is_only(spec_type, chain(present_types(), self._names))
            self._names[spec_type] = canonical_json(type_name(spec_type))
        return self._names[spec_type]

    def _fields(self, spec: SpecModel, where: str) -> str:
        """Return the canonical JSON of all that counts in a spec, by name."""
        texts: dict[str, str] = {}
        for field in self._fields_of_type(type(spec)):
            if field.in_key:
                text = self._text(getattr(spec, field.name), f"{where}.{field.name}")
                if text not in field.legacy:
                    texts[field.name] = text
        extra = {
            name: canonical_json(digest) for name, digest in spec.fingerprints(self.site).items()
        }
        if isinstance(spec, ArtifactModel):
            for name, artifact in spec.derived().items():
                extra[name] = self._form(artifact, f"{where}.{name}").inline
        if clash := texts.keys() & extra.keys():
            raise SpecError(f"{where}: {sorted(clash)} name both a field and a derived value")
        texts |= extra
        return (
            "{" + ",".join(f"{canonical_json(name)}:{texts[name]}" for name in sorted(texts)) + "}"
        )

    def _text(self, value: Any, where: str) -> str:
        if isinstance(value, SpecModel):
            return self._form(value, where).inline
        return canonical_json(plain(value, where, self._nested))

    def _nested(self, value: Any, where: str) -> Any:
        """Return a spec within a list or dict as JSON data."""
        if isinstance(value, SpecModel):
            return json.loads(self._form(value, where).inline)
        raise SpecError(
            f"{where} is a {type(value).__name__}, which cannot be part of a key: use numbers, "
            "text, lists, dicts, sets and specs, or mark the field Exec() if results do not use it"
        )

    def _fields_of_type(self, spec_type: type[SpecModel]) -> tuple[KeyField, ...]:
        known = self._fields_of.get(spec_type)
        if known is not None:
            return known
        # Checked again: annotations that name later classes were unresolved at the declaration.
        check_markers(spec_type.__name__, spec_type.model_fields)
        fields = []
        for name, info in spec_type.model_fields.items():
            where = f"{spec_type.__name__}.{name}"
            legacy = [
                self._text(marker.legacy, where)
                for marker in info.metadata
                if isinstance(marker, Since)
            ]
            fields.append(KeyField(name, not is_exec(info), tuple(legacy)))
        self._fields_of[spec_type] = tuple(fields)
        return self._fields_of[spec_type]
