"""Search a store by the specs and attributes of its artifacts."""

from __future__ import annotations

import builtins
import dataclasses
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from saevx.query.conditions import Condition, Where, parse, refuse, type_in_words
from saevx.query.flatten import FORM, facts_of, short_names
from store.artifact.manifest import read_manifest
from store.errors import CorruptArtifact, NewerLayout
from store.index.catalogue import Catalogue, Entry
from store.index.reader import Scalar
from store.layout import home

if TYPE_CHECKING:
    from spec import Artifact
    from store import Store

_ABSENT: Any = object()
"""Stands for the value of a field that an artifact does not have; null is a value."""


@dataclass(slots=True)
class Row:
    """An artifact that was found."""

    entry: Entry
    is_older: bool
    """Whether its type has a higher version by now."""
    age_s: float
    short_names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Full paths of fields that were asked for -> their names in `entry`."""

    @property
    def state(self) -> str | None:
        return "older version" if self.is_older else None

    def get(self, field: str, default: Any = None) -> Any:
        """Return a field's value, or `default` if the artifact does not have the field."""
        if field in BUILT_IN:
            return BUILT_IN[field](self)
        names = self.entry.columns
        name = field if field in names else self.short_names.get(field)
        return self.entry.values()[names.index(name)] if name in names else default


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
"""The fields of every artifact."""


class Found(NamedTuple):
    """The result of a search."""

    rows: list[Row]
    """Oldest first."""
    fields: set[str]
    """All fields that some artifact of the kind has."""
    types: set[str]
    """All types of artifacts of the kind."""
    newer: list[NewerLayout]
    """One error for each artifact whose layout is newer than this saevx reads."""


def catalogue(store: Store) -> Catalogue:
    """Return the catalogue of a store, with the facts that searches need."""
    return Catalogue(store, lambda manifest: facts_of(manifest, BUILT_IN), FORM)


def search(
    store: Store,
    *,
    kind: str | None = None,
    type: str | builtins.type[Artifact] | None = None,
    where: Where = None,
    versions: Mapping[str, int] | None = None,
    fields: Iterable[str] = (),
) -> Found:
    """Return the artifacts that meet all conditions.

    A `type` given as text may leave out the namespace of a user's type.
    An artifact counts as older when the store, or `versions`, has a higher version of its type.
    `fields` are those that rows will be asked for, besides those of the conditions.
    Raises QueryError and StoreError.
    """
    conditions = parse(where)
    entries, newer = catalogue(store).contents(kind)
    newest = dict(versions or {})
    for entry in entries:
        if entry.version > newest.get(entry.type, 0):
            newest[entry.type] = entry.version
    wanted = [condition.field for condition in conditions]
    short = _short_names(store, entries, [*wanted, *fields])
    columns = {id(entry.columns): entry.columns for entry in entries}
    known = {*BUILT_IN}.union(*columns.values(), *short.values())
    if entries:
        check_fields(wanted, known)
    now = time.time()
    rows = [
        Row(
            entry,
            is_older=entry.version < newest[entry.type],
            age_s=now - _seconds(entry.created),
            short_names=short.get(_form(entry), {}) if short else {},
        )
        for entry in entries
        if type is None or is_called(entry.type, type)
    ]
    rows.sort(key=lambda row: row.entry.created)
    for condition in conditions:
        rows = _select(rows, condition)
    return Found(rows, known, {entry.type for entry in entries}, newer)


def is_called(name: str, type: str | builtins.type[Artifact]) -> bool:
    """Return whether a stored type name is that of a spec type, or what a user calls it."""
    if isinstance(type, str):
        return type in (name, bare_name(name))
    from spec.keys.type_names import type_name

    return name == type_name(type)


def bare_name(type_name: str) -> str:
    """Return the name of a type without its namespace."""
    return type_name.rpartition(".")[2]


Form = tuple[str, str, int, int]
"""Entries of one form share the paths of their fields."""


def _form(entry: Entry) -> Form:
    return entry.kind, entry.type, entry.version, id(entry.columns)


def _short_names(
    store: Store, entries: Iterable[Entry], asked: Iterable[str]
) -> dict[Form, Mapping[str, str]]:
    """Return the names in entries of fields that were asked for by full path, for each form.

    The catalogue does not have full paths: one manifest of each form is read, and none unless a
    field with a dot was asked for.
    """
    paths = {name for name in asked if "." in name}
    found: dict[Form, Mapping[str, str]] = {}
    for entry in entries if paths else ():
        form = _form(entry)
        if form not in found:
            found[form] = {}
            path = home(store.root_of(entry.kind), entry.kind, entry.key)
            try:
                manifest = None if paths <= {*entry.columns} else read_manifest(str(path))
            except CorruptArtifact:
                continue
            names = short_names(manifest, BUILT_IN) if manifest else {}
            found[form] = {name: names[name] for name in paths & names.keys()}
    return found


def check_fields(fields: Iterable[str], known: set[str]) -> None:
    """Raise QueryError for fields that no artifact has, suggesting similar ones."""
    rest = f"; the fields are {', '.join(sorted(known))}"
    faults = [
        f"no artifact has a field {name!r}{did_you_mean(name, known) or rest}"
        for name in dict.fromkeys(fields)
        if name not in known
    ]
    if faults:
        refuse("\n".join(faults))


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return a suggestion for an unknown name; "" if no known one is similar."""
    from difflib import get_close_matches

    end = bare_name(name)
    parts = [field for field in sorted(known) if name in field.split(".")]
    parts += [field for field in sorted(known, key=len) if bare_name(field) == end]
    near = dict.fromkeys(parts[:5] + get_close_matches(name, sorted(known), 3))
    return f"; did you mean {' or '.join(near)}?" if near else ""


def in_order(rows: list[Row], fields: Sequence[str]) -> list[Row]:
    """Return the rows sorted by fields, descending after a `-`; missing values come last."""
    for field in reversed(fields):
        name = field.removeprefix("-")
        descending = name != field
        ranks = [_rank(row.get(name), descending) for row in rows]
        order = sorted(range(len(rows)), key=ranks.__getitem__, reverse=descending)
        rows = [rows[i] for i in order]
    return rows


def _rank(value: Scalar, descending: bool) -> tuple[bool, bool, Scalar]:
    """Order missing values after all others, and numbers before text."""
    if value is None:
        return not descending, False, 0
    return descending, isinstance(value, str), value


def _select(rows: list[Row], condition: Condition) -> list[Row]:
    """Raise QueryError if no value that was found can be compared with the wanted one."""
    name = condition.field
    kept: list[Row] = []
    odd: Scalar = None
    any_compared = False
    for row in rows:
        found = row.get(name, _ABSENT)
        if found is _ABSENT:
            continue
        holds = condition.holds(found)
        # A type is called by its full name or its bare one: one may match, and neither may differ.
        if name == "type" and holds is (condition.operator == "!="):
            holds = condition.holds(bare_name(str(found)))
        if holds:
            kept.append(row)
        if holds is None:
            odd = found
        elif found is not None:
            any_compared = True
    if odd is not None and not any_compared:
        shown = repr(odd) if isinstance(odd, str) else str(odd).lower()
        refuse(
            f"{condition} cannot be decided: {name} is {type_in_words(odd)}, as in {name}={shown}"
        )
    return kept


def _seconds(created: str) -> float:
    try:
        return datetime.fromisoformat(created).timestamp()
    except ValueError:
        return 0.0
