"""saevx ls: the artifacts in the store. It must not import specs, rich, numpy or polars."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import Any

import click
import msgspec

from saevx.cli.common.columns import cut, lay_out, width_of
from saevx.cli.common.options import clear_errors, json_option, store_option
from saevx.cli.common.units import age, cell, size, things
from saevx.compute.memory import gc_paused
from saevx.config import open_store
from saevx.query.search import Row, check_fields, in_order, is_called, search
from store import KINDS
from store.index.reader import Scalar

DESCRIBED = 10_000
"""Longer listings do not show the fields in which artifacts differ."""


@click.command()
@click.option("--kind", type=click.Choice(KINDS), help="Only artifacts of this kind.")
@click.option("--type", "type_name", metavar="NAME", help="Only artifacts of this spec type.")
@click.option(
    "--where",
    multiple=True,
    metavar="CONDITION",
    help="Only artifacts that meet a condition, as layer=13, 'mean_ap>=0.3', vit.name~dinov2, "
    "n_train=null, 'n=128|512', 'age<2d', 'size>1GB', 'created>=2026-11'. May be repeated.",
)
@click.option("--older", is_flag=True, help="Only artifacts made by an older recipe version.")
@click.option("--sort", metavar="A,-B", help="Fields to sort by; prefix with - to sort descending.")
@click.option("--columns", metavar="A,B", help="Fields to show, as in layer,vit.name,n_train.")
@click.option(
    "--limit", type=click.IntRange(min=1), help="Show only the newest; with --sort, the first."
)
@store_option
@json_option
@clear_errors
def ls(
    kind: str | None,
    type_name: str | None,
    where: tuple[str, ...],
    older: bool,
    sort: str | None,
    columns: str | None,
    limit: int | None,
    store: str | None,
    as_json: bool,
) -> None:
    """List the artifacts in the store, newest last.

    Without --columns, the fields in which artifacts of one type differ are shown. An artifact is
    marked as an older version when the store has a newer version of its type; --older also
    compares with the installed saevx, and with the types that recorded runs declared.
    """
    click.get_current_context().with_resource(gc_paused())
    opened = open_store(store)
    versions = None
    if older:
        from saevx.user_types import DeclaredTypes

        versions = DeclaredTypes.in_store(opened).versions
    asked, order = _names(columns), _names(sort)
    fields = [*asked, *(field.removeprefix("-") for field in order)]
    found = search(opened, kind=kind, type=type_name, where=where, versions=versions, fields=fields)
    rows = [row for row in found.rows if row.is_older or not older]
    if rows:
        check_fields(fields, found.fields)
    rows = in_order(rows, order)
    n_found, n_bytes = len(rows), sum(row.entry.n_bytes for row in rows)
    if limit is not None:
        rows = rows[:limit] if order else rows[-limit:]
    if as_json:
        click.echo(msgspec.json.encode([_document(row) for row in rows]))
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    lines = _table(rows, asked, width) if rows else []
    some = f"{len(rows)} of " if len(rows) < n_found else ""
    lines.append(f"{some}{things(n_found)}, {size(n_bytes)} in {opened.root}")
    if found.newer:
        lines.append(f"{len(found.newer)} more cannot be read: {found.newer[0]}")
    is_known = any(is_called(known, type_name or "") for known in found.types)
    if type_name and not rows and found.types and not is_known:
        lines.append(f"no {type_name} among them; the types are {', '.join(sorted(found.types))}")
    click.echo("\n".join(lines))


def _table(rows: Sequence[Row], asked: Sequence[str], width: int | None) -> list[str]:
    """Return lines of text; `width` is that of the terminal, None where output goes elsewhere."""
    columns = _common_columns(rows)
    fields: dict[str, list[Scalar]] = {}
    notes: list[str] = []
    if asked:
        fields = {
            name: [row.get(name, "") for row in rows] for name in asked if name not in columns
        }
    elif len(rows) > DESCRIBED:
        notes.append("the fields of so many are not shown: choose some, as with --type and --where")
    elif "kind" in columns:
        columns["fields"] = _differences(rows)
    else:
        fields = _differing_fields(rows)
    room = None if width is None or asked else width - sum(width_of(*c) for c in columns.items())
    left_out: list[str] = []
    for name, values in fields.items():
        cells = [cell(value) for value in values]
        if room is not None and (room := room - width_of(name, cells)) < 0:
            left_out.append(name)
        else:
            columns[name] = cells
    right = {"size", "age"} | {name for name, values in fields.items() if _is_numeric(values)}
    lines = lay_out(list(columns), list(zip(*columns.values(), strict=True)), right)
    if not asked:
        lines = [lines[0], *(cut(line, width) for line in lines[1:])]
    if left_out:
        notes.append(f"they differ in {', '.join(left_out)}, too: choose with --columns")
    return lines + notes


def _common_columns(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return the columns that every listing has, with kind and state where rows differ in them."""
    columns = {"key": [row.entry.key[:8] for row in rows]}
    if len({row.entry.type for row in rows}) > 1:
        columns["kind"] = [row.entry.kind for row in rows]
    columns["type"] = [row.entry.type for row in rows]
    columns["size"] = [size(row.entry.n_bytes) for row in rows]
    columns["age"] = [age(row.age_s) for row in rows]
    if any(row.state for row in rows):
        columns["state"] = [row.state or "" for row in rows]
    return columns


def _is_numeric(values: Sequence[Scalar]) -> bool:
    return all(isinstance(value, int | float | None) or value == "" for value in values)


def _differing_fields(rows: Sequence[Row]) -> dict[str, list[Scalar]]:
    """Return the fields in which artifacts of one type differ; "" where one lacks a field.

    A single artifact gets all its own fields, without those of nested descriptions.
    """
    facts = [row.entry.facts() for row in rows]
    found = {
        name: [each.get(name, "") for each in facts]
        for name in dict.fromkeys(name for each in facts for name in each)
    }
    if len(rows) == 1:
        return {name: values for name, values in found.items() if "." not in name}
    return {name: values for name, values in found.items() if values.count(values[0]) < len(rows)}


def _differences(rows: Sequence[Row]) -> list[str]:
    """Return the differing fields of each row among its type, as in `layer=9 n=128`."""
    by_type: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        by_type.setdefault(row.entry.type, []).append(i)
    texts = [""] * len(rows)
    for group in by_type.values():
        fields = _differing_fields([rows[i] for i in group])
        for n, i in enumerate(group):
            parts = ((name, values[n]) for name, values in fields.items())
            texts[i] = " ".join(f"{name}={cell(value)}" for name, value in parts if value != "")
    return texts


def _document(row: Row) -> dict[str, Any]:
    entry = row.entry
    return {
        "key": entry.key,
        "kind": entry.kind,
        "type": entry.type,
        "version": entry.version,
        "state": row.state,
        "n_bytes": entry.n_bytes,
        "created": entry.created,
        "fields": entry.facts(),
    }


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]
