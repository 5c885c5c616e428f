"""Look for the datasets and weights that specs name: present, changed or missing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pydantic import ValidationError

from saevx.user_types import DeclaredTypes, documents_in
from saevx.workspace import Workspace
from spec import DatasetError, Site, Spec, from_document
from spec.keys.type_names import named_types
from store.artifact.manifest import Manifest
from store.check.report import Finding

MISSING = "cannot be found"


def cannot_make(workspace: Workspace, declared: DeclaredTypes) -> Callable[[Manifest], str | None]:
    """Return a function that says why an artifact cannot be recomputed here; None if it can."""
    sources = Sources(workspace)

    def why(manifest: Manifest) -> str | None:
        types = [manifest.type, *(document["type"] for document in documents_in(manifest.spec))]
        if doubt := next(filter(None, map(declared.doubt, types)), None):
            return doubt
        current = declared.versions.get(manifest.type)
        if manifest.version != current:
            return (
                f"made by version {manifest.version} of {manifest.type}, which is at {current} now"
            )
        return next(filter(None, map(sources.fault, sourced_in(manifest.spec))), None)

    return why


class Sources:
    """The datasets and weights that specs name.

    Manifests leave roots and paths out. They are looked for where saevx.toml says, and at each
    place where a fingerprint in the store was taken.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.site: Site = workspace.on_disk_only()
        self._places = workspace.cached_places()
        self._faults: dict[str, str | None] = {}
        self._found: dict[str, dict[str, str]] = {}

    def fault(self, document: dict[str, Any]) -> str | None:
        """Return why the content of a document is not available; None where it is."""
        text = json.dumps(document, sort_keys=True)
        if text not in self._faults:
            self._faults[text] = self._look_for(document, text)
        return self._faults[text]

    def with_places(self, value: Any) -> Any:
        """Return a document with the root or path of every source that `fault` has found."""
        if isinstance(value, list):
            return [self.with_places(item) for item in value]
        if not isinstance(value, dict):
            return value
        filled = {name: self.with_places(item) for name, item in value.items()}
        if place := self._found.get(json.dumps(value, sort_keys=True)):
            filled["fields"] |= place
        return filled

    def _look_for(self, document: dict[str, Any], text: str) -> str | None:
        spec_type = named_types().get(document["type"])
        if spec_type is None or not issubclass(spec_type, Spec):
            return None
        missing, changed = "", ""
        for place in self._candidates(spec_type, document):
            try:
                spec = from_document(document | {"fields": document["fields"] | place})
                content = spec.fingerprints(self.site)
            except ValidationError:  # a root is required: later candidates have one
                continue
            except DatasetError as error:
                missing = str(error)
                continue
            if content == document["content"]:
                self._found[text] = place
                return None
            where = "".join(f" at {path}" for path in place.values())
            differs = [
                part for part, now in content.items() if document["content"].get(part) != now
            ]
            changed = f"{_title(document)}{where} has changed: {', '.join(differs)}"
        return changed or f"{_title(document)} {MISSING}: {missing or 'its location is unknown'}"

    def _candidates(
        self, spec_type: type[Spec], document: dict[str, Any]
    ) -> Iterator[dict[str, str]]:
        """Values for the root or path that a document leaves out: none, then all known places."""
        yield {}
        for name in {"root", "path"} & spec_type.model_fields.keys() - document["fields"].keys():
            yield from ({name: place} for place in self._places)


def sourced_in(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the documents within a document that are identified by files on disk."""
    return (d for d in documents_in(value) if isinstance(d.get("content"), dict))


def check_sources(sources: Sources, manifests: Iterable[Manifest]) -> Iterator[Finding]:
    """Yield a warning for each dataset and each file of weights that is missing or has changed."""
    uses: Counter[str] = Counter()
    documents: dict[str, dict[str, Any]] = {}
    for manifest in manifests:
        found = {json.dumps(d, sort_keys=True): d for d in sourced_in(manifest.spec)}
        documents |= found
        uses.update(found.keys())
    for text, document in documents.items():
        fault = sources.fault(document)
        if fault is None:
            continue
        made = f"{count(uses[text])} made from it stay usable"
        advice = (
            f"{made}, but cannot be recomputed; restore it, or give its location: under [data] in "
            "saevx.toml, or in the experiment"
            if MISSING in fault
            else f"{made}; the next run of an experiment on it makes new ones"
        )
        topic = "weights" if "weights" in document["content"] else "datasets"
        yield Finding("warning", topic, "", fault, advice)


def count(n: int) -> str:
    return f"{n:,} artifact{'s' * (n != 1)}"


def _title(document: dict[str, Any]) -> str:
    spec_type = named_types().get(document["type"])
    defaults = {n: info.default for n, info in spec_type.model_fields.items()} if spec_type else {}
    fields = ", ".join(
        f"{name}={value!r}"
        for name, value in document["fields"].items()
        if not isinstance(value, dict | list) and value != defaults.get(name)
    )
    return f"{document['type']}({fields})"
