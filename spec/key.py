"""Keys: xxh3_128 over the canonical JSON of {type, version, fields}.

Within the fields an artifact counts by its own key (a Merkle graph), any other spec inline with its
type name. What a field holds decides, not how it is annotated: a subclass brings its extra fields
and its name even where the annotation says its base.
"""

import json
from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import xxhash

from .canonical import canonical_json, plain
from .errors import SpecError
from .markers import Since, check_marks, is_exec
from .model import ArtifactModel, SpecModel
from .site import Site

_quoted = lru_cache(canonical_json)
"""Canonical JSON of a name."""

_ATOMS = frozenset({int, bool, float, type(None)})


@dataclass(frozen=True, slots=True, eq=False)
class Spelling:
    """How one spec is spelled. Compared by identity, so that it can stand for its spec's value."""

    text: str
    """Canonical JSON of what it is within another spec."""
    canonical: str = ""
    """The text that an artifact's key is the hash of."""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """What keys need to know of a field of some type."""

    name: str
    counts: bool
    legacy: tuple[str, ...]
    """Canonical JSON of the values for which it is left out."""


class Keys:
    """Computes keys, each once, and looks at each dataset once.

    Make a new one whenever files on disk may have changed. `site` is the one given, frozen.
    """

    def __init__(self, site: Site) -> None:
        self.site = site.frozen()
        # The spec is kept beside its spelling so that its id is not used again.
        self._by_id: dict[int, tuple[SpecModel, Spelling]] = {}
        # Equal specs that were built one by one, as each target's ViT is, are spelled once.
        self._by_value: dict[Hashable, Spelling] = {}
        self._fields_of: dict[type[SpecModel], tuple[Field, ...]] = {}

    def of(self, artifact: ArtifactModel) -> str:
        """The key of an artifact: 32 hex digits."""
        return self._spelling(artifact, type(artifact).__name__).key

    def canonical(self, artifact: ArtifactModel) -> str:
        """The canonical JSON that the key is the hash of."""
        return self._spelling(artifact, type(artifact).__name__).canonical

    def text(self, value: Any) -> str:
        """Canonical JSON of any value that may stand in a field, as a key counts it."""
        return self._text(value, "value")

    def _spelling(self, spec: SpecModel, where: str) -> Spelling:
        known = self._by_id.get(id(spec))
        if known is not None:
            return known[1]
        value = self._value_of(spec, where)
        spelling = self._by_value.get(value) if value is not None else None
        if spelling is None:
            spelling = self._spell(spec, where)
            if value is not None:
                self._by_value[value] = spelling
        self._by_id[id(spec)] = (spec, spelling)
        return spelling

    def _value_of(self, spec: SpecModel, where: str) -> Hashable | None:
        """Equal for two specs only if they are the same in every field, `Exec` ones too, since
        content is looked for where those say; None if there is no telling.
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
                values.append(self._spelling(value, f"{where}.{field.name}"))
            elif kind is tuple and all(type(item) is str for item in value):
                values.append(value)
            else:
                return None
        return tuple(values)

    def _spell(self, spec: SpecModel, where: str) -> Spelling:
        name = _quoted(type(spec).__name__)
        if not isinstance(spec, ArtifactModel):
            return Spelling(f'{{"fields":{self._fields(spec, where)},"type":{name}}}')
        fields = self._fields(spec, type(spec).__name__)
        text = f'{{"fields":{fields},"type":{name},"version":{type(spec).version}}}'
        key = xxhash.xxh3_128_hexdigest(text.encode())
        return Spelling(f'{{"key":"{key}","type":{name}}}', text, key)

    def _fields(self, spec: SpecModel, where: str) -> str:
        """Canonical JSON of all that counts in a spec, by name."""
        texts: dict[str, str] = {}
        for field in self._fields_of_type(type(spec)):
            if field.counts:
                text = self._text(getattr(spec, field.name), f"{where}.{field.name}")
                if text not in field.legacy:
                    texts[field.name] = text
        extra = {
            name: canonical_json(digest) for name, digest in spec.fingerprints(self.site).items()
        }
        if isinstance(spec, ArtifactModel):
            for name, artifact in spec.derived().items():
                extra[name] = self._spelling(artifact, f"{where}.{name}").text
        if clash := texts.keys() & extra.keys():
            raise SpecError(f"{where}: {sorted(clash)} name both a field and something derived")
        texts |= extra
        return (
            "{" + ",".join(f"{canonical_json(name)}:{texts[name]}" for name in sorted(texts)) + "}"
        )

    def _text(self, value: Any, where: str) -> str:
        if isinstance(value, SpecModel):
            return self._spelling(value, where).text
        return canonical_json(plain(value, where, self._nested))

    def _nested(self, value: Any, where: str) -> Any:
        """A spec within a list or dict, as JSON data."""
        if isinstance(value, SpecModel):
            return json.loads(self._spelling(value, where).text)
        raise SpecError(
            f"{where} is a {type(value).__name__}, which has no place in a key: use numbers, text, "
            "lists, dicts, sets and specs, or mark the field with Exec() if no result rests on it"
        )

    def _fields_of_type(self, spec_type: type[SpecModel]) -> tuple[Field, ...]:
        known = self._fields_of.get(spec_type)
        if known is not None:
            return known
        # Again, since annotations that named later classes were unknown when the class was made.
        check_marks(spec_type.__name__, spec_type.model_fields)
        fields = []
        for name, info in spec_type.model_fields.items():
            where = f"{spec_type.__name__}.{name}"
            legacy = [
                self._text(mark.legacy, where) for mark in info.metadata if isinstance(mark, Since)
            ]
            fields.append(Field(name, not is_exec(info), tuple(legacy)))
        self._fields_of[spec_type] = tuple(fields)
        return self._fields_of[spec_type]
