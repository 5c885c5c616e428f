"""saevx show: one artifact, what it was made from and how it was made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from saevx.cli.common.console import console
from saevx.cli.common.options import clear_errors, json_option, store_option
from saevx.cli.common.units import size
from saevx.config import open_store
from saevx.query.key_lookup import AGAIN, Match, find_by_prefix, readable_manifest
from spec.tree import TreeNode, draw_text, short, title
from store import KINDS, Manifest, NewerLayout, Store
from store.gc.evicted import evicted_manifest
from store.layout import Ref, home, is_key


@click.command()
@click.argument("key")
@store_option
@json_option
@clear_errors
def show(key: str, store: str | None, as_json: bool) -> None:
    """Show the artifact KEY; a unique prefix of the key will do.

    Prints its spec, the tree of its inputs with their states, its attributes and its provenance.
    """
    opened = open_store(store)
    match = find_by_prefix(opened, key, evicted=True)
    if as_json:
        click.echo(json.dumps(_document(match)))
        return
    out = console()
    manifest = match.artifact.manifest
    for line in draw_text(_tree(opened, (manifest.kind, manifest.key), {})):
        out.print(line, markup=False)
    out.print("")
    facts = _facts(match)
    width = max(map(len, facts))
    for name, value in facts.items():
        out.print(f"{name:{width}}  {value}".rstrip(), markup=False)


def _facts(match: Match) -> dict[str, Any]:
    artifact, fault = match
    manifest = artifact.manifest
    present = artifact.path.is_dir()
    return {
        "path": artifact.path if present else "given up by `saevx gc`; a run makes it again",
        **({"state": f"{fault}; {AGAIN}"} if fault else {}),
        "made": manifest.created,
        "size": f"{size(artifact.n_bytes)} in {len(manifest.files)} files",
        **({"arrays": ", ".join(artifact.arrays())} if present and not fault else {}),
        **dict(_flatten(manifest.attributes)),
        **dict(_flatten(manifest.provenance)),
    }


def _flatten(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested facts with dotted names, as `code.commit`, or `code[1].commit` in a list.

    Packages and their versions stay together on one line.
    """
    if isinstance(value, dict) and not (name and _are_versions(value)):
        for inner, item in value.items():
            yield from _flatten(item, f"{name}.{inner}" if name else inner)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for i, item in enumerate(value):
            yield from _flatten(item, f"{name}[{i}]" if len(value) > 1 else name)
    else:
        yield name, short(value)


def _are_versions(value: dict[str, Any]) -> bool:
    """Return whether all values look like versions, as in `{"numpy": "2.1.0"}`."""
    return all(isinstance(v, str) and v[:1].isdigit() and "." in v for v in value.values())


def _tree(store: Store, ref: Ref, document: dict[str, Any]) -> TreeNode:
    """Return the tree of inputs of an artifact; `document` is its spec, used if it is gone."""
    kind, key = ref
    manifest, state = _look(store, ref)
    spec = manifest.spec if manifest else document
    inputs = {(d["kind"], d["key"]): d for d in _artifacts_in(list(spec.values()))}
    if manifest:
        parents = [(parent.kind, parent.key) for parent in manifest.parents.values()]
        inputs = {parent: inputs.get(parent, {}) for parent in parents}
    name = title(spec) if "type" in spec and "fields" in spec else str(spec.get("type", kind))
    return TreeNode(name, key, state, tuple(_tree(store, *item) for item in inputs.items()))


def _look(store: Store, ref: Ref) -> tuple[Manifest | None, str]:
    """Return the manifest of an artifact, if it can be read, and the state of the artifact."""
    try:
        found = store.lookup(*ref)
    except NewerLayout:
        return None, "in a newer layout; upgrade saevx to read it"
    if not isinstance(found, str):
        return found.manifest, "present"
    manifest = evicted_manifest(store, *ref)
    if home(store.root_of(ref[0]), *ref).exists():
        return readable_manifest(store, *ref) or manifest, found
    return manifest, "given up; a run makes it again" if manifest else "not in the store any more"


def _artifacts_in(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the documents of artifacts within a value, without those nested in these."""
    if isinstance(value, dict):
        if value.get("kind") in KINDS and is_key(str(value.get("key"))):
            yield value
            return
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from _artifacts_in(item)


def _document(match: Match) -> dict[str, Any]:
    artifact, fault = match
    manifest = artifact.manifest
    return {
        "key": manifest.key,
        "kind": manifest.kind,
        "type": manifest.type,
        "version": manifest.version,
        "path": str(artifact.path),
        "fault": fault,
        "created": manifest.created,
        "n_bytes": artifact.n_bytes,
        "spec": manifest.spec,
        "parents": {n: {"kind": p.kind, "key": p.key} for n, p in manifest.parents.items()},
        "attributes": manifest.attributes,
        "provenance": manifest.provenance,
    }
