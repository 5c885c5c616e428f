"""saevx show: one artifact, what it is made of and where it came from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from .options import clear_errors, json_option, store_option

if TYPE_CHECKING:
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

    from .console import console

    out = console()
    manifest = artifact.manifest
    for line in _tree(opened, manifest.kind, manifest.key, {}, set()):
        out.print(line, markup=False)
    there = artifact.path.is_dir()
    facts = {
        "path": artifact.path if there else "given up by `saevx gc`; a run makes it again",
        "made": manifest.created,
        "size": f"{decimal(artifact.n_bytes)} in {len(manifest.files)} files",
        **({"arrays": ", ".join(artifact.arrays())} if there else {}),
        **{name: _short(value) for name, value in manifest.attributes.items()},
        **{name: _short(value) for name, value in manifest.provenance.items()},
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
        from store.inventory import all_given_up

        found = all_given_up(store, key)
    if len(found) == 1:
        return found[0]
    if not found:
        raise StoreError(
            f"no artifact in {store.root} has a key that begins with {key!r}; `saevx ls` lists them"
        )
    names = ", ".join(f"{artifact.key} ({artifact.manifest.type})" for artifact in found[:5])
    raise StoreError(
        f"{len(found)} artifacts have keys that begin with {key!r}: {names}; give more digits"
    )


def _tree(
    store: Store,
    kind: str,
    key: str,
    spec: dict[str, Any],
    drawn: set[str],
    lead: str = "",
    below: str = "",
) -> list[str]:
    """Lines of the tree below an artifact; what is gone, or `drawn` already, ends its branch."""
    from store.inventory import given_up

    artifact = store.find(kind, key)
    manifest = artifact.manifest if artifact else given_up(store, kind, key)
    if manifest is None:
        return [f"{lead}○ {spec.get('type', kind)}  {key[:8]}  (not in the store any more)"]
    mark = "●" if artifact else "○"
    if key in drawn:
        return [f"{lead}{mark} {manifest.type}  {key[:8]}  (as above)"]
    drawn.add(key)
    state = "" if artifact else "  (given up; a run makes it again)"
    lines = [f"{lead}{mark} {_title(manifest.spec)}  {key[:8]}{state}"]
    parents = list(manifest.parents.values())
    for i, parent in enumerate(parents):
        last = i == len(parents) - 1
        nested = _nested(manifest.spec, parent.key)
        here, further = ("└─ ", "   ") if last else ("├─ ", "│  ")
        lines += _tree(store, parent.kind, parent.key, nested, drawn, below + here, below + further)
    return lines


def _title(spec: dict[str, Any]) -> str:
    """Type and fields of a document in one line; nested artifacts have lines of their own."""
    words = [spec["type"]]
    for name, value in spec["fields"].items():
        if isinstance(value, dict) and "key" in value:
            continue
        words.append(f"{name}={_short(value)}")
    return " ".join(words)


def _nested(spec: Any, key: str) -> dict[str, Any]:
    """The document with that key somewhere within `spec`; empty where there is none."""
    if isinstance(spec, dict):
        if spec.get("key") == key:
            return spec
        for value in spec.values():
            if found := _nested(value, key):
                return found
    return {}


def _short(value: Any) -> str:
    if isinstance(value, dict) and "type" in value and "fields" in value:
        inside = ", ".join(f"{n}={_short(v)}" for n, v in value["fields"].items() if v is not None)
        return f"{value['type']}({inside})"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(_short(item) for item in value)
    return str(value)


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
