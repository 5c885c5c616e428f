"""Keys: xxh3_128 over the canonical JSON of {type, version, fields}.

Within the fields an artifact counts by its own key (a Merkle graph), any other spec inline with its
type name. What a field holds decides, not how it is annotated: a subclass brings its extra fields
and its name even where the annotation says its base.
"""

from typing import Any

import xxhash

from .base import Artifact, Spec
from .canonical import canonical_json, plain
from .errors import SpecError
from .markers import Exec, Since
from .site import Site


class Keys:
    """Computes keys, each once. Make a new one whenever files on disk may have changed."""

    def __init__(self, site: Site) -> None:
        self.site = site
        # By identity, since equal specs may differ in what pydantic calls equal (1, 1.0, True);
        # the spec is kept beside its text so that its id is not used again.
        self._texts: dict[int, tuple[Artifact, str, str]] = {}

    def of(self, artifact: Artifact) -> str:
        """The key of an artifact: 32 hex digits."""
        return self._entry(artifact)[2]

    def canonical(self, artifact: Artifact) -> str:
        """The canonical JSON that the key is the hash of."""
        return self._entry(artifact)[1]

    def text(self, value: Any) -> str:
        """Canonical JSON of any value that may stand in a field, as a key counts it."""
        return canonical_json(plain(value, "value", self._nested))

    def _entry(self, artifact: Artifact) -> tuple[Artifact, str, str]:
        entry = self._texts.get(id(artifact))
        if entry is None:
            body = {
                "type": type(artifact).__name__,
                "version": type(artifact).version,
                "fields": self._fields(artifact, type(artifact).__name__),
            }
            text = canonical_json(body)
            entry = (artifact, text, xxhash.xxh3_128_hexdigest(text.encode()))
            self._texts[id(artifact)] = entry
        return entry

    def _fields(self, spec: Spec, where: str) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for name, info in type(spec).model_fields.items():
            value = getattr(spec, name)
            if any(isinstance(mark, Exec) or mark is Exec for mark in info.metadata):
                continue
            data = plain(value, f"{where}.{name}", self._nested)
            if not self._is_legacy(data, info.metadata, f"{where}.{name}"):
                fields[name] = data
        extra: dict[str, Any] = dict(spec.fingerprints(self.site))
        if isinstance(spec, Artifact):
            for name, artifact in spec.derived().items():
                extra[name] = self._nested(artifact, f"{where}.{name}")
        clash = fields.keys() & extra.keys()
        if clash:
            raise SpecError(f"{where}: {sorted(clash)} name both a field and something derived")
        return fields | extra

    def _is_legacy(self, data: Any, metadata: list[Any], where: str) -> bool:
        return any(
            isinstance(mark, Since)
            and data == plain(mark.legacy, where, self._nested)
            # 1 == True == 1.0 in Python, but not in JSON
            and canonical_json(data) == canonical_json(plain(mark.legacy, where, self._nested))
            for mark in metadata
        )

    def _nested(self, value: Any, where: str) -> Any:
        if isinstance(value, Artifact):
            return {"type": type(value).__name__, "key": self.of(value)}
        if isinstance(value, Spec):
            return {"type": type(value).__name__, "fields": self._fields(value, where)}
        raise SpecError(
            f"{where} is a {type(value).__name__}, which has no place in a key: use numbers, text, "
            "lists, dicts, sets and specs, or mark the field with Exec() if no result rests on it"
        )
