"""saevx why: print what keeps an artifact, or why it is stale."""

from __future__ import annotations

import json

import click

from saevx.cli.common.options import clear_errors, json_option, store_option
from saevx.cli.common.units import duration
from saevx.query.key_lookup import AGAIN, only_match
from store import NewerLayout, Store
from store.gc.evicted import evicted_manifest
from store.gc.reachability import Reachability
from store.layout import Ref, check_prefix


@click.command()
@click.argument("key")
@click.option(
    "--grace", type=duration, default="1h", show_default=True, metavar="TIME", help="As for gc."
)
@store_option
@json_option
@clear_errors
def why(key: str, grace: float, store: str | None, as_json: bool) -> None:
    """Print what keeps the artifact KEY, or why `saevx gc` would move it to the trash."""
    from saevx.config import open_store
    from saevx.user_types import DeclaredTypes

    opened = open_store(store)
    survey = Reachability(opened, grace)
    survey.refresh()
    ref = _find(survey, key)
    chain = survey.why(ref)
    versions = DeclaredTypes(survey.roots.runs).versions
    stale = next((item for item in survey.stale(versions) if item.ref == ref), None)
    fault = survey.artifacts[ref].fault if ref in survey.artifacts else None
    name = _name(opened, ref)
    if as_json:
        document = {
            "kind": ref[0],
            "key": ref[1],
            "present": survey.is_whole(ref),
            "fault": fault,
            "alive": bool(chain),
            "root": chain[0][1].root if chain else None,
            "chain": [{"kind": kind, "key": key} for (kind, key), _ in chain],
            "reason": stale.reason if stale else None,
            "detail": stale.detail if stale else None,
        }
        click.echo(json.dumps(document))
    elif stale is not None:
        click.echo(f"{name} is stale: {stale.reason}: {stale.detail}")
    else:
        absent = "" if ref in survey.artifacts else " (not in the store now)"
        click.echo(f"{name} is alive{absent}, kept by\n{chain[0][1].root}")
        for depth, (link, _) in enumerate(chain):
            click.echo(f"{'   ' * depth}└─ {_name(opened, link)}")
        if fault:
            click.echo(f"it is {fault}; {AGAIN}")


def _find(survey: Reachability, key: str) -> Ref:
    """Return the artifact that a prefix of its key names, in the store or only recorded."""
    check_prefix(key)
    known = survey.artifacts.keys() | survey.reachable.keys()
    return only_match(survey.store, key, [ref for ref in known if ref[1].startswith(key)])


def _name(store: Store, ref: Ref) -> str:
    try:
        found = store.find(*ref)
        manifest = found.manifest if found else evicted_manifest(store, *ref)
    except NewerLayout:
        manifest = None
    return f"{manifest.type if manifest else ref[0]} {ref[1][:8]}"
