"""saevx show: one artifact, what it is made of and where it came from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from .options import clear_errors, json_option, store_option

if TYPE_CHECKING:
    from spec.tree import Branch
    from store import Artifact as Stored
    from store import Store


@click.command()
@click.argument("key")
@store_option
@json_option
@clear_errors
def show(key: str, store: str | None, as_json: bool) -> None:
    """Show the artifact KEY, or the only one whose key begins so.

    Its spec, the tree of what it was made from with what is there of it, its facts and provenance.
    """
    from ..config import open_store

    opened = open_store(store)
    artifact = find_one(opened, key, given_up=True)
    if as_json:
        click.echo(json.dumps(_document(artifact)))
        return
    from rich.filesize import decimal

    from spec.tree import lines, short

    from .console import console

    out = console()
    manifest = artifact.manifest
    for line in lines(_tree(opened, manifest.kind, manifest.key, {})):
        out.print(line, markup=False)
    there = artifact.path.is_dir()
    facts = {
        "path": artifact.path if there else "given up by `saevx gc`; a run makes it again",
        "made": manifest.created,
        "size": f"{decimal(artifact.n_bytes)} in {len(manifest.files)} files",
        **({"arrays": ", ".join(artifact.arrays())} if there else {}),
        **{name: short(value) for name, value in manifest.attributes.items()},
        **{name: short(value) for name, value in manifest.provenance.items()},
    }
    out.print("")
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        out.print(f"{name:{width}}  {value}", markup=False)


def find_one(store: Store, key: str, *, given_up: bool = False) -> Stored:
    """The artifact whose key begins with `key`; raises StoreError for none, or several.

    With `given_up`, also one of which only the manifest was kept; its path is not there then.
    """
    from ..errors import StoreError

    found = store.match(key)
    if not found and given_up:
        from store.given_up import all_given_up

        found = all_given_up(store, key)
    if len(found) == 1:
        return found[0]
    if not found:
        from store.trash import entries

        if any(entry.key.startswith(key) for entry in entries(store)):
            raise StoreError(f"{key} is in the trash; `saevx restore {key}` brings it back")
        raise StoreError(
            f"no artifact in {store.root} has a key that begins with {key!r}; `saevx ls` lists them"
        )
    names = ", ".join(f"{artifact.key} ({artifact.manifest.type})" for artifact in found[:5])
    raise StoreError(
        f"{len(found)} artifacts have keys that begin with {key!r}: {names}; give more digits"
    )


def _tree(store: Store, kind: str, key: str, spec: dict[str, Any]) -> Branch:
    """The tree below an artifact; what is gone ends its branch, under the type that `spec` says."""
    from spec.tree import Branch, title
    from store import NewerLayout
    from store.given_up import given_up

    try:
        artifact = store.find(kind, key)
        manifest = artifact.manifest if artifact else given_up(store, kind, key)
    except NewerLayout:
        return Branch(spec.get("type", kind), key, "in a newer layout; upgrade saevx to read it")
    if manifest is None:
        return Branch(spec.get("type", kind), key, "not in the store any more")
    inputs = tuple(
        _tree(store, parent.kind, parent.key, _nested(manifest.spec, parent.key))
        for parent in manifest.parents.values()
    )
    state = "present" if artifact else "given up; a run makes it again"
    return Branch(title(manifest.spec), key, state, inputs)


def _nested(spec: Any, key: str) -> dict[str, Any]:
    """The document with that key somewhere within `spec`; empty where there is none."""
    if isinstance(spec, dict):
        if spec.get("key") == key:
            return spec
        for value in spec.values():
            if found := _nested(value, key):
                return found
    return {}


def _document(artifact: Stored) -> dict[str, Any]:
    manifest = artifact.manifest
    return {
        "key": manifest.key,
        "kind": manifest.kind,
        "type": manifest.type,
        "version": manifest.version,
        "path": str(artifact.path),
        "created": manifest.created,
        "n_bytes": artifact.n_bytes,
        "spec": manifest.spec,
        "parents": {n: {"kind": p.kind, "key": p.key} for n, p in manifest.parents.items()},
        "attributes": manifest.attributes,
        "provenance": manifest.provenance,
    }
