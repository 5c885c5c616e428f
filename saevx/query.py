"""Searching a store by what its artifacts' specs and facts say."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from store.catalogue import Catalogue, Entry
from store.errors import NewerLayout
from store.shelves import Newer, Scalar

from .condition import Condition, Where, parse, refuse
from .explode import FORM, facts_of

if TYPE_CHECKING:
    from store import Store


@dataclass(slots=True)
class Row:
    """An artifact that was found."""

    entry: Entry
    is_older: bool
    """Whether its type has a higher version by now."""
    age_s: float
    is_newer: bool = False
    """Whether a later saevx wrote it, in a layout that this one cannot read."""

    @property
    def state(self) -> str | None:
        """What sets it apart, in words."""
        if self.is_newer:
            return "newer layout"
        return "older version" if self.is_older else None

    def has(self, field: str) -> bool:
        return field in BUILT_IN or field in self.entry.columns

    def get(self, field: str) -> Scalar:
        """A field's value; None also where it has no such field."""
        if field in BUILT_IN:
            return BUILT_IN[field](self)
        names = self.entry.columns
        return self.entry.values()[names.index(field)] if field in names else None


BUILT_IN: dict[str, Callable[[Row], Scalar]] = {
    "key": lambda row: row.entry.key,
    "kind": lambda row: row.entry.kind,
    "type": lambda row: row.entry.type,
    "version": lambda row: row.entry.version,
    "size": lambda row: row.entry.n_bytes,
    "created": lambda row: row.entry.created,
    "age": lambda row: row.age_s,
    "state": lambda row: row.state,
}
"""What every artifact has."""


class Found(NamedTuple):
    """What a search has found."""

    rows: list[Row]
    """Oldest first."""
    fields: set[str]
    """All fields that some artifact of the kind has."""
    types: set[str]
    """All types of artifacts of the kind."""


def catalogue(store: Store) -> Catalogue:
    """The catalogue of a store, with the facts that searches need."""
    return Catalogue(store, lambda manifest: facts_of(manifest, BUILT_IN), FORM)


def search(
    store: Store,
    *,
    kind: str | None = None,
    type: str | None = None,
    where: Where = None,
    versions: Mapping[str, int] | None = None,
    newer: bool = False,
) -> Found:
    """The artifacts that meet all conditions.

    `versions` gives the versions that spec types have today; without it, an artifact counts as
    older when the store has a higher version of its type. What a later saevx wrote is found with
    `newer`, by what is known of it, and without it, is refused where it may meet the conditions.
    Raises QueryError and StoreError, NewerLayout.
    """
    conditions = parse(where)
    entries, unreadable = catalogue(store).contents(kind)
    unreadable = [one for one in unreadable if type in (None, one.type) or not one.type]
    if unreadable and not newer:
        raise NewerLayout(unreadable[0].fault)
    newest = dict(versions or {})
    for entry in entries:
        if entry.version > newest.get(entry.type, 0):
            newest[entry.type] = entry.version
    known = fields_of(entries)
    if entries or unreadable:
        check_fields((condition.field for condition in conditions), known)
    now = time.time()
    rows = [
        Row(entry, entry.version < newest[entry.type], now - _seconds(entry.created))
        for entry in entries
        if type is None or entry.type == type
    ]
    rows += [_row_of(one, now) for one in unreadable]
    rows.sort(key=lambda row: row.entry.created)
    for condition in conditions:
        rows = _select(rows, condition)
    return Found(rows, known, {entry.type for entry in entries})


def _row_of(newer: Newer, now: float) -> Row:
    """What is known of an artifact that a later saevx wrote."""
    created = datetime.fromtimestamp(newer.changed, UTC).isoformat(timespec="milliseconds")
    nothing = msgspec.Raw(msgspec.msgpack.encode([]))
    entry = Entry(newer.kind, newer.key, newer.type, 0, newer.n_bytes, created, (), nothing)
    return Row(entry, False, now - newer.changed, is_newer=True)


def fields_of(entries: Iterable[Entry]) -> set[str]:
    """All fields that some artifact has."""
    return set(BUILT_IN).union(*{id(e.columns): e.columns for e in entries}.values())


def check_fields(fields: Iterable[str], known: set[str]) -> None:
    """Raises QueryError for fields that no artifact has, with those that may be meant."""
    unknown = [field for field in dict.fromkeys(fields) if field not in known]
    if unknown:
        rest = f"; the fields are {', '.join(sorted(known))}"
        faults = [
            f"no artifact has a field {name!r}{meant(name, known) or rest}" for name in unknown
        ]
        refuse("\n".join(faults))


def in_order(rows: list[Row], fields: Sequence[str]) -> list[Row]:
    """Rows sorted by fields, a `-` before a field turning it round; without a value comes last."""
    for field in reversed(fields):
        name = field.removeprefix("-")
        found = [(row, row.get(name)) for row in rows]
        there = [pair for pair in found if pair[1] is not None]
        there.sort(key=lambda pair: _rank(pair[1]), reverse=name != field)
        rows = [row for row, _ in there] + [row for row, value in found if value is None]
    return rows


def _select(rows: list[Row], condition: Condition) -> list[Row]:
    """Raises QueryError when no value that was found can be compared with the wanted one."""
    field, built_in = condition.field, BUILT_IN.get(condition.field)
    kept: list[Row] = []
    odd: Scalar = None
    n_compared = 0
    for row in rows:
        names = row.entry.columns
        if built_in is None and field not in names:
            continue
        found = built_in(row) if built_in else row.entry.values()[names.index(field)]
        holds = condition.holds(found)
        if holds:
            kept.append(row)
        if holds is None:
            odd = found
        elif found is not None:
            n_compared += 1
    if odd is not None and not n_compared:
        what = (
            "text" if isinstance(odd, str) else "a truth" if isinstance(odd, bool) else "a number"
        )
        refuse(f"{condition} cannot be decided: {field} is {what}, as in {field}={_shown(odd)}")
    return kept


def _rank(value: Scalar) -> tuple[bool, Scalar]:
    """Numbers before text, so that what is of several types can be sorted."""
    return isinstance(value, str), value


def meant(name: str, known: Collection[str]) -> str:
    """What may have been meant by a name that there is not; "" where nothing is like it."""
    from difflib import get_close_matches

    parts = [field for field in sorted(known) if name in field.split(".")]
    near = dict.fromkeys(parts[:5] + get_close_matches(name, sorted(known), 3))
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _shown(value: Scalar) -> str:
    return repr(value) if isinstance(value, str) else str(value).lower()


def _seconds(created: str) -> float:
    try:
        return datetime.fromisoformat(created).timestamp()
    except ValueError:
        return 0.0
