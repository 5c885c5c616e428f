"""What only specs can tell about a store: datasets that moved, weights that are gone, old types."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import Any

from pydantic import ValidationError

from saevx.user_types import type_names_in, versions_of
from saevx.workspace import Workspace
from spec import Artifact, DatasetError, Exec, Keys, Site, Spec, SpecError, from_document
from spec.document import known_types
from spec.files.site import Fingerprint
from store.artifact.manifest import Manifest
from store.check.report import Finding

KEYS_CHECKED = 2_000
"""In a store of more artifacts, keys are computed anew only when every byte is read, too."""


def known_versions() -> dict[str, int]:
    """Present versions of the types of artifacts that are known."""
    return versions_of(known_types().values())


def cannot_make(
    workspace: Workspace, versions: Mapping[str, int]
) -> Callable[[Manifest], str | None]:
    """A function that says why an artifact could not be made again here; None where it could."""
    sources = Sources(workspace)

    def why(manifest: Manifest) -> str | None:
        now = versions.get(manifest.type)
        if now is None:
            return f"the spec type {manifest.type} is not known here"
        if manifest.version != now:
            return f"made by version {manifest.version} of {manifest.type}, which is at {now} now"
        faults = (sources.fault(document) for document in contents_in(manifest.spec))
        return next((fault for fault in faults if fault), None)

    return why


def look_over(
    workspace: Workspace,
    manifests: Iterable[Manifest],
    *,
    deep: bool = False,
    versions: Mapping[str, int] | None = None,
) -> Iterator[Finding]:
    """All findings about artifacts whose manifests are whole.

    `versions` gives the present versions of types of artifacts, else those known to this process.
    """
    manifests = list(manifests)
    sources = Sources(workspace)
    yield from _types(manifests, versions or known_versions())
    yield from _sources(sources, manifests)
    if deep or len(manifests) <= KEYS_CHECKED:
        yield from _keys(sources, manifests)
    yield from _code(manifests)


class Sources:
    """Datasets and weights that specs point at, looked for where they lay and where they may lie.

    A manifest does not tell roots and paths. They are taken from saevx.toml, and from the
    fingerprints that were remembered when artifacts were made.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.site = _Fresh(workspace.data_roots, workspace.cache)
        self._places = _remembered_places(workspace)
        self._faults: dict[str, str | None] = {}
        self._found: dict[str, dict[str, str]] = {}

    def fault(self, document: dict[str, Any]) -> str | None:
        """Why something with a content is not to be had as it was; None where it is."""
        text = json.dumps(document, sort_keys=True)
        if text not in self._faults:
            self._faults[text] = self._look(document, text)
        return self._faults[text]

    def filled_in(self, value: Any) -> Any:
        """A document with the roots and paths of all that `fault` has found."""
        if isinstance(value, list):
            return [self.filled_in(item) for item in value]
        if not isinstance(value, dict):
            return value
        filled = {name: self.filled_in(item) for name, item in value.items()}
        places = self._found.get(json.dumps(value, sort_keys=True))
        if places:
            filled["fields"] = filled["fields"] | places
        return filled

    def _look(self, document: dict[str, Any], text: str) -> str | None:
        found = known_types().get(document["type"])
        if found is None:
            return None
        name = _title(document)
        gone, changed = "", ""
        for places in self._candidates(found):
            try:
                spec = from_document(document | {"fields": document["fields"] | places})
                content = spec.fingerprints(self.site)
            except (DatasetError, ValidationError) as error:
                # What misses a root that it must have tells less than what lacks its files.
                gone = gone if isinstance(error, ValidationError) else str(error)
                continue
            if content == document["content"]:
                self._found[text] = places
                return None
            where = f" at {next(iter(places.values()))}" if places else ""
            differs = [
                part for part, now in content.items() if document["content"].get(part) != now
            ]
            changed = f"{name}{where} has changed: {', '.join(differs)}"
        return changed or f"{name} cannot be found: {gone or 'nobody knows where it lies'}"

    def _candidates(self, spec_type: type[Spec]) -> Iterator[dict[str, str]]:
        """Values for the fields that a manifest leaves out: none, then what was seen earlier."""
        fields = [
            name
            for name, info in spec_type.model_fields.items()
            if name in ("root", "path")
            and any(isinstance(mark, Exec) or mark is Exec for mark in info.metadata)
        ]
        yield {}
        if fields:
            for values in product(self._places, repeat=len(fields)):
                yield dict(zip(fields, values, strict=True))


class _Fresh(Site):
    """A site that remembers nothing new, and for which what is gone is gone."""

    def fingerprint(
        self,
        what: str,
        holds: Callable[[str], bool],
        take: Callable[[], tuple[Fingerprint, str]],
        identity: Callable[[], str | None] | None = None,
    ) -> Fingerprint:
        if what not in self._seen:
            remembered = self._read_cache(what)
            still = remembered is not None and holds(remembered[1])
            self._seen[what] = remembered[0] if still and remembered else take()[0]
        return self._seen[what]


def contents_in(value: Any) -> Iterator[dict[str, Any]]:
    """The documents within a document that are named by what lies on disk."""
    if isinstance(value, list):
        for item in value:
            yield from contents_in(item)
    elif isinstance(value, dict):
        if isinstance(value.get("content"), dict) and "fields" in value and "type" in value:
            yield value
        for item in value.values():
            yield from contents_in(item)


def _remembered_places(workspace: Workspace) -> list[str]:
    """Folders and files whose fingerprints were taken in this store."""
    places: dict[str, None] = {}
    files = sorted(workspace.cache.glob("*.json")) if workspace.cache else []
    for file in files:
        try:
            what = str(json.loads(file.read_text())["what"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        for text in re.findall(r"root=('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")", what):
            places[ast.literal_eval(text)] = None
        if " at " in what:
            places[re.sub(r" \([0-9a-f]{32}\)$", "", what.rpartition(" at ")[2])] = None
    return list(places)


def _types(manifests: Iterable[Manifest], versions: Mapping[str, int]) -> Iterator[Finding]:
    counts = Counter((manifest.type, manifest.version) for manifest in manifests)
    for (name, version), n in sorted(counts.items()):
        now = versions.get(name)
        if now is None:
            advice = "run its experiment file from where it lies now, or leave them as they are"
            what = f"{_count(n)} of this type, which is not known here"
            yield Finding("info", "types", name, what, advice)
        elif version < now:
            what = f"{_count(n)} of version {version}, and the type is at {now} now"
            advice = "runs make new ones when needed; `saevx gc` collects what nothing reaches"
            yield Finding("info", "types", name, what, advice)
        elif version > now:
            what = f"{_count(n)} of version {version}, and this code knows {now}"
            yield Finding("warning", "types", name, what, "update the code that you run")


def _sources(sources: Sources, manifests: Iterable[Manifest]) -> Iterator[Finding]:
    used: dict[str, list[Manifest]] = {}
    documents: dict[str, dict[str, Any]] = {}
    for manifest in manifests:
        for document in contents_in(manifest.spec):
            text = json.dumps(document, sort_keys=True)
            documents[text] = document
            if manifest not in (using := used.setdefault(text, []))[-1:]:
                using.append(manifest)
    for text, document in documents.items():
        fault = sources.fault(document)
        if fault is None:
            continue
        n = len(used[text])
        gone = "cannot be found" in fault
        advice = (
            f"{_count(n)} made from it stay usable, but cannot be made again; put it back, "
            "or say where it lies: under [data] in saevx.toml, or in the experiment"
            if gone
            else f"{_count(n)} made from it stay usable; the next run of an experiment on it "
            "makes new ones"
        )
        weights = "weights" in document["content"]
        yield Finding("warning", "weights" if weights else "datasets", "", fault, advice)


def _keys(sources: Sources, manifests: Iterable[Manifest]) -> Iterator[Finding]:
    """Specs that this code would give another key, or could not read."""
    keys = Keys(sources.site)
    versions = known_versions()
    for manifest in manifests:
        if versions.get(manifest.type) != manifest.version:
            continue
        if not known_types().keys() >= set(type_names_in(manifest.spec)):
            continue  # a type of a user's is known by name alone
        if any(sources.fault(document) for document in contents_in(manifest.spec)):
            continue
        where = f"{manifest.kind}/{manifest.key}"
        advice = "check what changed in the spec type since; a field added later is marked Since"
        try:
            spec = from_document(sources.filled_in(manifest.spec))
            found = keys.of(spec) if isinstance(spec, Artifact) else None
        except (SpecError, ValidationError) as error:
            what = f"cannot be read as {manifest.type} by this code: {error}"
            yield Finding("warning", "specs", where, what, advice)
            continue
        except (KeyError, TypeError):
            continue  # a document of another shape, not written by saevx
        if found != manifest.key:
            what = f"has another key in this code, {found}: no run finds this {manifest.type}"
            yield Finding("warning", "specs", where, what, advice)


def _code(manifests: Iterable[Manifest]) -> Iterator[Finding]:
    from saevx.resolve.provenance import Origin

    here = (Origin().code or {}).get("commit")
    made = [manifest.provenance.get("code") or {} for manifest in manifests]
    others = Counter(code["commit"][:10] for code in made if code.get("commit") not in (None, here))
    dirty = sum(bool(code.get("dirty")) for code in made)
    if others:
        commits = ", ".join(f"{commit} ({n})" for commit, n in others.most_common(5))
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        what = f"{_count(sum(others.values()))} made by other commits: {commits}{more}"
        advice = "raise the version of a spec whose recipe has changed its meaning since"
        yield Finding("info", "code", f"now at {here[:10] if here else 'no commit'}", what, advice)
    if dirty:
        what = f"{_count(dirty)} made by code with changes that were not committed"
        yield Finding("info", "code", "", what, "nobody can say exactly how they were made")


def _count(n: int) -> str:
    return f"{n:,} artifact{'s' * (n != 1)}"


def _title(document: dict[str, Any]) -> str:
    fields = ", ".join(
        f"{name}={value!r}"
        for name, value in document["fields"].items()
        if value is not None and not isinstance(value, dict | list)
    )
    return f"{document['type']}({fields})"
