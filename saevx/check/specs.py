"""Check the manifests of a store against this code: spec types, keys, commits and sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from pydantic import ValidationError

from saevx.check.datasets import Sources, check_sources, count, sourced_in
from saevx.errors import RecipeError
from saevx.recipes import find_recipe
from saevx.resolve.provenance import CodeVersion
from saevx.user_types import DeclaredTypes, artifact_versions, documents_in
from saevx.workspace import Workspace
from spec import Artifact, Keys, SpecError, from_document
from spec.keys.type_names import named_types
from store.artifact.manifest import Manifest
from store.check.report import Finding, Severity

KEYS_CHECKED = 2_000
"""The keys of larger stores are computed only by a deep check."""


def check_specs(
    workspace: Workspace,
    manifests: Iterable[Manifest],
    declared: DeclaredTypes,
    *,
    deep: bool = False,
) -> Iterator[Finding]:
    """Yield what is noteworthy about the specs of artifacts with valid manifests."""
    manifests = list(manifests)
    sources = Sources(workspace)
    yield from _check_types(manifests, declared.versions)
    yield from check_sources(sources, manifests)
    if deep or len(manifests) <= KEYS_CHECKED:
        yield from _check_keys(sources, manifests)
    yield from _check_code(manifests)


def _check_types(manifests: Iterable[Manifest], versions: Mapping[str, int]) -> Iterator[Finding]:
    counts = Counter((manifest.type, manifest.version) for manifest in manifests)
    for (name, version), n in sorted(counts.items()):
        current = versions.get(name)
        severity: Severity = "info"
        if current is None:
            what = f"{count(n)} of this type, which is not known here"
            advice = "run its experiment file from its present location, or leave them as they are"
        elif version < current:
            what = f"{count(n)} of version {version}, and the type is at {current} now"
            advice = "runs make new ones when needed; `saevx gc` collects unreachable ones"
        elif version > current:
            severity = "warning"
            what = f"{count(n)} of version {version}, and this code knows {current}"
            advice = "update the code that you run"
        else:
            continue
        yield Finding(severity, "types", name, what, advice)


def _check_keys(sources: Sources, manifests: Iterable[Manifest]) -> Iterator[Finding]:
    """Find specs to which this code gives another key, and specs that it cannot read."""
    keys = Keys(sources.site)
    known = named_types()
    versions = artifact_versions()
    advice = "check what changed in the spec type since; mark a field added later with Since"
    for manifest in manifests:
        if (
            versions.get(manifest.type) != manifest.version
            or not all(document["type"] in known for document in documents_in(manifest.spec))
            or any(map(sources.fault, sourced_in(manifest.spec)))
        ):
            continue
        try:
            spec = from_document(sources.with_places(manifest.spec))
            found = keys.of(spec) if isinstance(spec, Artifact) else None
        except (SpecError, ValidationError) as error:
            what = f"cannot be read as {manifest.type} by this code: {error}"
        except (KeyError, TypeError):
            continue  # not a document that saevx wrote
        else:
            if isinstance(spec, Artifact) and found == manifest.key:
                yield from _inspect(spec, manifest)
                continue
            what = f"has another key in this code, {found}: no run finds this {manifest.type}"
        yield Finding("warning", "specs", f"{manifest.kind}/{manifest.key}", what, advice)


def _inspect(spec: Artifact, manifest: Manifest) -> Iterator[Finding]:
    """Yield what the recipe of an artifact warns of."""
    try:
        inspect = find_recipe(type(spec)).inspect
        warnings = list(inspect(spec, manifest.attributes)) if inspect else []
    except (RecipeError, SpecError):
        return  # of a type that this code cannot make
    for what in warnings:
        yield Finding("warning", "recipes", f"{manifest.kind}/{manifest.key}", what, "")


def _check_code(manifests: Iterable[Manifest]) -> Iterator[Finding]:
    here = (CodeVersion.of().code or {}).get("commit")
    made = [manifest.provenance.get("code") or {} for manifest in manifests]
    others = Counter(code["commit"][:10] for code in made if code.get("commit") not in (None, here))
    if others:
        commits = ", ".join(f"{commit} ({n})" for commit, n in others.most_common(5))
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        what = f"{count(others.total())} made by other commits: {commits}{more}"
        advice = "raise the version of a spec if the meaning of its recipe has changed since"
        yield Finding("info", "code", f"now at {here[:10] if here else 'no commit'}", what, advice)
    if dirty := sum(bool(code.get("dirty")) for code in made):
        what = f"{count(dirty)} made by code with changes that were not committed"
        yield Finding("info", "code", "", what, "they cannot be reproduced exactly")
