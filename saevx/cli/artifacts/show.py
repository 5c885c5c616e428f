"""saevx show: one artifact, what it is made of and where it came from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from saevx.cli.common.options import clear_errors, json_option, store_option

if TYPE_CHECKING:
    from saevx.query.key_lookup import Match
    from spec.tree import TreeNode
    from store import Manifest, Store
    from store.layout import Ref


@click.command()
@click.argument("key")
@store_option
@json_option
@clear_errors
def show(key: str, store: str | None, as_json: bool) -> None:
    """Show the artifact KEY, or the only one whose key begins so.

    Its spec, the tree of what it was made from with what is there of it, its facts and provenance.
    """
    from saevx.config import open_store
    from saevx.query.key_lookup import AGAIN, find_by_prefix

    opened = open_store(store)
    chosen = find_by_prefix(opened, key, evicted=True)
    if as_json:
        click.echo(json.dumps(_document(chosen)))
        return
    from rich.filesize import decimal

    from saevx.cli.common.console import console
    from spec.tree import draw_text

    out = console()
    artifact, fault = chosen
    manifest = artifact.manifest
    for line in draw_text(_tree(opened, (manifest.kind, manifest.key), {})):
        out.print(line, markup=False)
    there = artifact.path.is_dir()
    facts = {
        "path": artifact.path if there else "given up by `saevx gc`; a run makes it again",
        **({"state": f"{fault}; {AGAIN}"} if fault else {}),
        "made": manifest.created,
        "size": f"{decimal(artifact.n_bytes)} in {len(manifest.files)} files",
        **({"arrays": ", ".join(artifact.arrays())} if there and not fault else {}),
        **dict(_in_lines(manifest.attributes)),
        **dict(_in_lines(manifest.provenance)),
    }
    out.print("")
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        out.print(f"{name:{width}}  {value}".rstrip(), markup=False)


def _in_lines(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested facts as names and texts, as in `code.commit`; of equals in a list, `code[1].commit`.

    Names of packages and their versions are one text, since each alone says little.
    """
    from spec.tree import short

    if isinstance(value, dict) and not (name and _are_versions(value)):
        for inner, item in value.items():
            yield from _in_lines(item, f"{name}.{inner}" if name else inner)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for i, item in enumerate(value):
            yield from _in_lines(item, f"{name}[{i}]" if len(value) > 1 else name)
    else:
        yield name, short(value)


def _are_versions(value: dict[str, Any]) -> bool:
    """As in `{"numpy": "2.1.0"}`."""
    return all(isinstance(v, str) and v[:1].isdigit() and "." in v for v in value.values())


def _tree(store: Store, ref: Ref, document: dict[str, Any]) -> TreeNode:
    """The tree below an artifact. Of what is gone, `document` tells what it was made from."""
    from spec.tree import TreeNode, title

    kind, key = ref
    manifest, state = _look(store, ref)
    if manifest is not None:
        spec = manifest.spec
        parents = [(parent.kind, parent.key) for parent in manifest.parents.values()]
        inputs = {parent: _nested(spec, parent[1]) for parent in parents}
    else:
        spec = document
        inputs = {(d["kind"], d["key"]): d for d in _artifacts_in(spec.get("fields"))}
    name = title(spec) if "type" in spec and "fields" in spec else str(spec.get("type", kind))
    return TreeNode(name, key, state, tuple(_tree(store, *item) for item in inputs.items()))


def _look(store: Store, ref: Ref) -> tuple[Manifest | None, str]:
    """What is known of an artifact, and its state in words."""
    from saevx.query.key_lookup import readable_manifest
    from store import NewerLayout
    from store.gc.evicted import evicted_manifest
    from store.layout import home

    try:
        found = store.look(*ref)
        if not isinstance(found, str):
            return found.manifest, "present"
        manifest = evicted_manifest(store, *ref)
    except NewerLayout:
        return None, "in a newer layout; upgrade saevx to read it"
    if home(store.root_of(ref[0]), *ref).exists():
        return readable_manifest(store, *ref) or manifest, found
    return manifest, "given up; a run makes it again" if manifest else "not in the store any more"


def _nested(spec: Any, key: str) -> dict[str, Any]:
    """The document with that key somewhere within `spec`; empty where there is none."""
    if isinstance(spec, dict):
        if spec.get("key") == key:
            return spec
        spec = list(spec.values())
    if isinstance(spec, list):
        for value in spec:
            if found := _nested(value, key):
                return found
    return {}


def _artifacts_in(value: Any) -> Iterator[dict[str, Any]]:
    """The documents of artifacts within a value, but for those within these."""
    from store import KINDS
    from store.layout import is_key

    if isinstance(value, dict):
        if value.get("kind") in KINDS and is_key(str(value.get("key"))):
            yield value
            return
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _artifacts_in(item)


def _document(chosen: Match) -> dict[str, Any]:
    artifact, fault = chosen
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
