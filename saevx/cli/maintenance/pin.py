"""saevx pin, unpin, restore: keep artifacts, let go of them, bring them back from the trash."""

from __future__ import annotations

import json

import click

from saevx.cli.common.options import clear_errors, json_option, store_option


@click.command()
@click.argument("key", required=False)
@click.option("--note", default="", help="Why it is kept, for whoever wonders later.")
@store_option
@json_option
@clear_errors
def pin(key: str | None, note: str, store: str | None, as_json: bool) -> None:
    """Keep the artifact KEY and all that it is made from, whatever no experiment wants any more.

    Without KEY, list what is pinned.
    """
    from saevx.config import open_store
    from saevx.errors import StoreError
    from saevx.query.key_lookup import AGAIN, find_by_prefix
    from store.gc.records import when
    from store.gc.roots import Roots
    from store.gc.roots import pin as write_pin
    from store.gc.scan import below
    from store.names import user_name

    opened = open_store(store)
    if key is not None:
        artifact, fault = find_by_prefix(opened, key)
        if fault:
            name = f"{artifact.manifest.type} {artifact.key}"
            raise StoreError(f"{name} is {fault}; nothing was pinned. {AGAIN.capitalize()}")
        ref = artifact.kind, artifact.key
        made = write_pin(opened, ref, below(opened, ref), note, user_name())
        if as_json:
            click.echo(json.dumps({"kind": ref[0], "key": ref[1], "nodes": len(made.nodes)}))
        else:
            more = f" and {len(made.nodes) - 1} that it is made from" if made.nodes[1:] else ""
            click.echo(f"pinned {artifact.manifest.type} {artifact.key[:8]}{more}")
        return
    roots = Roots(opened)
    roots.refresh()
    if as_json:
        fields = ("kind", "key", "note", "user", "created")
        click.echo(json.dumps([{n: getattr(p, n) for n in fields} for p in roots.pins]))
        return
    from saevx.cli.common.console import console, table

    rows = [[p.key[:8], p.kind, when(p.created), p.user, p.note] for p in roots.pins]
    if rows:
        console().print(table(["key", "kind", "pinned", "by", "note"], rows))
    else:
        click.echo("nothing is pinned")


@click.command()
@click.argument("key")
@store_option
@json_option
@clear_errors
def unpin(key: str, store: str | None, as_json: bool) -> None:
    """Let go of the pinned artifact KEY; `saevx gc` may collect it then."""
    from saevx.config import open_store
    from saevx.errors import StoreError
    from store.gc.roots import Roots
    from store.gc.roots import unpin as remove_pin
    from store.layout import check_prefix

    opened = open_store(store)
    roots = Roots(opened)
    roots.refresh()
    found = [p for p in roots.pins if p.key.startswith(check_prefix(key))]
    if len(found) != 1:
        there = ", ".join(p.key[:8] for p in found or roots.pins) or "nothing"
        what = "several pins begin" if found else "no pin begins"
        raise StoreError(f"{what} with {key!r}; pinned are {there}")
    (pinned,) = found
    remove_pin(opened, pinned.ref)
    if as_json:
        click.echo(json.dumps({"kind": pinned.kind, "key": pinned.key, "note": pinned.note}))
    else:
        click.echo(f"unpinned {pinned.kind} {pinned.key[:8]}")


@click.command()
@click.argument("key")
@store_option
@json_option
@clear_errors
def restore(key: str, store: str | None, as_json: bool) -> None:
    """Bring the artifact KEY back from the trash."""
    from saevx.config import open_store
    from saevx.errors import StoreError
    from store.layout import check_prefix
    from store.trash.contents import entries
    from store.trash.contents import restore as bring_back

    opened = open_store(store)
    found = sorted(
        {(e.kind, e.key) for e in entries(opened) if e.key.startswith(check_prefix(key))}
    )
    where = f"the trash of {opened.root}"
    if not found:
        raise StoreError(f"nothing in {where} has a key that begins with {key!r}")
    if len(found) > 1:
        names = ", ".join(key for _, key in found[:5])
        raise StoreError(
            f"{len(found)} things in {where} have keys that begin with {key!r}: {names}; give more "
            "digits"
        )
    (ref,) = found
    place = bring_back(opened, *ref)
    if as_json:
        click.echo(json.dumps({"kind": ref[0], "key": ref[1], "path": str(place)}))
    else:
        click.echo(f"restored {place}")
