"""saevx pin, unpin, restore: keep artifacts, stop keeping them, bring them back from the trash."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from saevx.cli.common.console import console, table
from saevx.cli.common.options import clear_errors, json_option, store_option
from saevx.query.key_lookup import AGAIN, find_by_prefix, only_match
from store.errors import StoreError
from store.gc import roots
from store.gc.records import when
from store.gc.scan import below
from store.layout import check_prefix
from store.names import user_name
from store.trash import contents as trash

if TYPE_CHECKING:
    from store import Store
    from store.gc.records import Pin


@click.command()
@click.argument("key", required=False)
@click.option("--note", default="", help="Why it is kept.")
@store_option
@json_option
@clear_errors
def pin(key: str | None, note: str, store: str | None, as_json: bool) -> None:
    """Keep the artifact KEY and everything it is made from, even if no experiment needs it.

    Without KEY, list the pins.
    """
    from saevx.config import open_store

    opened = open_store(store)
    if key is None:
        _list_pins(opened, as_json)
        return
    artifact, fault = find_by_prefix(opened, key)
    name = artifact.manifest.type
    if fault:
        again = AGAIN.capitalize()
        raise StoreError(f"{name} {artifact.key} is {fault}; nothing was pinned. {again}")
    ref = artifact.kind, artifact.key
    made = roots.pin(opened, ref, below(opened, ref), note, user_name())
    if as_json:
        click.echo(json.dumps({"kind": ref[0], "key": ref[1], "nodes": len(made.nodes)}))
    else:
        more = f" and {len(made.nodes) - 1} that it is made from" if made.nodes[1:] else ""
        click.echo(f"pinned {name} {artifact.key[:8]}{more}")


@click.command()
@click.argument("key")
@store_option
@json_option
@clear_errors
def unpin(key: str, store: str | None, as_json: bool) -> None:
    """Remove the pin of the artifact KEY, so that `saevx gc` may collect it."""
    from saevx.config import open_store

    opened = open_store(store)
    pins = {pin.ref: pin for pin in _pins(opened)}
    check_prefix(key)
    found = [ref for ref in pins if ref[1].startswith(key)]
    if not found:
        pinned = ", ".join(key[:8] for _, key in pins) or "nothing"
        raise StoreError(f"no pin begins with {key!r} in {opened.root}; pinned are {pinned}")
    ref = only_match(opened, key, found)
    roots.unpin(opened, ref)
    if as_json:
        click.echo(json.dumps({"kind": ref[0], "key": ref[1], "note": pins[ref].note}))
    else:
        click.echo(f"unpinned {ref[0]} {ref[1][:8]}")


@click.command()
@click.argument("key")
@store_option
@json_option
@clear_errors
def restore(key: str, store: str | None, as_json: bool) -> None:
    """Bring the artifact KEY back from the trash."""
    from saevx.config import open_store

    opened = open_store(store)
    check_prefix(key)
    found = {(e.kind, e.key) for e in trash.entries(opened) if e.key.startswith(key)}
    if not found:
        raise StoreError(
            f"nothing in the trash of {opened.root} has a key that begins with {key!r}"
        )
    ref = only_match(opened, key, found)
    place = trash.restore(opened, *ref)
    if as_json:
        click.echo(json.dumps({"kind": ref[0], "key": ref[1], "path": str(place)}))
    else:
        click.echo(f"restored {place}")


def _pins(store: Store) -> list[Pin]:
    found = roots.Roots(store)
    found.refresh()
    return found.pins


def _list_pins(store: Store, as_json: bool) -> None:
    pins = _pins(store)
    if as_json:
        fields = ("kind", "key", "note", "user", "created")
        click.echo(json.dumps([{name: getattr(pin, name) for name in fields} for pin in pins]))
    elif pins:
        rows = [[pin.key[:8], pin.kind, when(pin.created), pin.user, pin.note] for pin in pins]
        console().print(table(["key", "kind", "pinned", "by", "note"], rows))
    else:
        click.echo("nothing is pinned")
