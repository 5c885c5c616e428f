"""saevx ls: the artifacts in the store."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from saevx.cli.common.options import clear_errors, json_option, store_option
from store import KINDS

if TYPE_CHECKING:
    from saevx.query.search import Row
    from store.index.reader import Scalar

DESCRIBED = 10_000
"""Up to so many artifacts are listed with the fields in which they differ."""


@click.command()
@click.option("--kind", type=click.Choice(KINDS), help="Only artifacts of this kind.")
@click.option("--type", "type_name", metavar="NAME", help="Only artifacts of this spec type.")
@click.option(
    "--where",
    multiple=True,
    metavar="CONDITION",
    help="Only where it holds, as in layer=13, 'mean_ap>=0.3', vit.name~dinov2, n_train=null, "
    "'n=128|512', 'age<2d', 'size>1GB', 'created>=2026-11'. May be given several times.",
)
@click.option("--older", is_flag=True, help="Only what an older version of its recipe made.")
@click.option("--sort", metavar="A,-B", help="Fields to sort by; a - before one turns it round.")
@click.option("--columns", metavar="A,B", help="Fields to show, as in layer,vit.name,n_train.")
@click.option("--limit", type=click.IntRange(min=1), help="Show so many: the newest, or the first.")
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

    Without --columns the fields are shown in which artifacts of one type differ. An artifact is
    marked as an older version when the store has a newer one of its type; --older compares with
    the installed saevx, and with what recorded runs declared, too.
    """
    from saevx.compute.memory import gc_paused
    from saevx.config import open_store
    from saevx.query.search import check_fields, in_order, search

    click.get_current_context().with_resource(gc_paused())
    opened = open_store(store)
    versions = None
    if older:
        from saevx.user_types import DeclaredTypes

        versions = DeclaredTypes.in_store(opened).versions
    asked, order = _fields(columns), _fields(sort)
    fields = [*asked, *(field.removeprefix("-") for field in order)]
    found = search(
        opened,
        kind=kind,
        type=type_name,
        where=where,
        versions=versions,
        fields=fields,
    )
    rows = [row for row in found.rows if row.is_older or not older]
    if rows:
        check_fields(fields, found.fields)
    rows = in_order(rows, order)
    n_found, n_bytes = len(rows), sum(row.entry.n_bytes for row in rows)
    if limit is not None:
        rows = rows[:limit] if order else rows[-limit:]
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode([_document(row) for row in rows]))
        return
    from saevx.cli.common.columns import size

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    lines = _table(rows, asked, width) if rows else []
    some = f"{len(rows)} of " if len(rows) < n_found else ""
    what = "artifact" if n_found == 1 else "artifacts"
    lines.append(f"{some}{n_found} {what}, {size(n_bytes)} in {opened.root}")
    if found.newer:
        lines.append(f"{len(found.newer)} more cannot be read: {found.newer[0]}")
    if type_name and not rows and type_name not in found.types and found.types:
        lines.append(f"no {type_name} among them; the types are {', '.join(sorted(found.types))}")
    click.echo("\n".join(lines))


def _table(rows: Sequence[Row], asked: Sequence[str], width: int | None) -> list[str]:
    """Lines of text; `width` of the terminal, None where output is none."""
    from saevx.cli.common.columns import cell, cut, lay_out, width_of

    columns = _own_columns(rows)
    fields: dict[str, list[Scalar]] = {}
    notes: list[str] = []
    if asked:
        fields = {
            name: [row.get(name, "") for row in rows] for name in asked if name not in columns
        }
    elif len(rows) > DESCRIBED:
        notes.append("the fields of so many are not shown: choose some, as with --type and --where")
    elif "kind" in columns:
        columns["fields"] = in_words(rows)
    else:
        fields = differing(rows)
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


def _own_columns(rows: Sequence[Row]) -> dict[str, list[str]]:
    """What every artifact has, but for what is the same in all of them."""
    from saevx.cli.common.columns import age, size

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


def differing(rows: Sequence[Row]) -> dict[str, list[Scalar]]:
    """The fields in which artifacts of one type differ, with their values; "" where there is none.

    Of a single artifact, its own fields.
    """
    names = dict.fromkeys(name for c in {row.entry.columns: None for row in rows} for name in c)
    values = [row.entry.values() for row in rows]
    if len({row.entry.columns for row in rows}) == 1:
        columns: Iterable[Sequence[Scalar]] = zip(*values, strict=True)
    else:
        facts = [row.entry.facts() for row in rows]
        columns = ([each.get(name, "") for each in facts] for name in names)
    found = dict(zip(names, map(list, columns), strict=True))
    if len(rows) == 1:
        return {name: column for name, column in found.items() if "." not in name}
    return {name: column for name, column in found.items() if column.count(column[0]) < len(rows)}


def in_words(rows: Sequence[Row]) -> list[str]:
    """For each artifact the fields in which its type's artifacts differ, as in `layer=9 n=128`."""
    from saevx.cli.common.columns import cell

    words = [""] * len(rows)
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(row.entry.type, []).append(place)
    for where in places.values():
        fields = differing([rows[place] for place in where])
        told = [
            ["" if value == "" else f"{name}={cell(value)}" for value in column]
            for name, column in fields.items()
        ]
        for place, parts in zip(where, zip(*told, strict=True), strict=bool(told)):
            words[place] = " ".join(filter(None, parts))
    return words


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


def _fields(text: str | None) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()] if text else []
