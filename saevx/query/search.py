"""Searching a store by what its artifacts' specs and facts say."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from saevx.query.conditions import Condition, Where, parse, refuse
from saevx.query.flatten import FORM, facts_of, short_names
from store.artifact.manifest import Manifest, read_manifest
from store.errors import CorruptArtifact, NewerLayout
from store.index.catalogue import Catalogue, Entry
from store.index.reader import Scalar
from store.layout import home

if TYPE_CHECKING:
    from store import Store


NOTHING: Mapping[str, str] = {}


@dataclass(slots=True)
class Row:
    """An artifact that was found."""

    entry: Entry
    is_older: bool
    """Whether its type has a higher version by now."""
    age_s: float
    short: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Fields that were asked for by their full paths -> the names that they have."""

    @property
    def state(self) -> str | None:
        """What sets it apart, in words."""
        return "older version" if self.is_older else None

    def has(self, field: str) -> bool:
        return field in BUILT_IN or self.place(field) is not None

    def get(self, field: str) -> Scalar:
        """A field's value; None also where it has no such field."""
        if field in BUILT_IN:
            return BUILT_IN[field](self)
        place = self.place(field)
        return None if place is None else self.entry.values()[place]

    def place(self, field: str) -> int | None:
        """Where among its facts a field is."""
        names = self.entry.columns
        name = field if field in names else self.short.get(field)
        return names.index(name) if name in names else None


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
    newer: list[NewerLayout]
    """One error for each artifact whose layout is newer than this saevx reads."""


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
    fields: Iterable[str] = (),
) -> Found:
    """The artifacts that meet all conditions.

    `versions` gives the versions that spec types have today; without it, an artifact counts as
    older when the store has a higher version of its type.
    `fields` are those that rows will be asked for, beside those of the conditions.
    Raises QueryError and StoreError.
    """
    conditions = parse(where)
    entries, newer = catalogue(store).contents(kind)
    newest = dict(versions or {})
    for entry in entries:
        if entry.version > newest.get(entry.type, 0):
            newest[entry.type] = entry.version
    full = FullPaths(store, [*(condition.field for condition in conditions), *fields])
    known = fields_of(entries) | full.among(entries)
    if entries:
        check_fields((condition.field for condition in conditions), known)
    now = time.time()
    rows = [
        Row(
            entry,
            entry.version < newest[entry.type],
            now - _seconds(entry.created),
            short=full.of(entry),
        )
        for entry in entries
        if type is None or entry.type == type
    ]
    rows.sort(key=lambda row: row.entry.created)
    for condition in conditions:
        rows = _select(rows, condition)
    return Found(rows, known, {entry.type for entry in entries}, newer)


class FullPaths:
    """The names that fields have which were asked for by their full paths.

    The catalogue does not tell them. Artifacts of one type with the same fields share them, so
    that one manifest of these is read, and none where nothing that was asked for has a dot.
    """

    def __init__(self, store: Store, asked: Iterable[str]) -> None:
        self.store = store
        self.asked = {name for name in asked if "." in name}
        self._found: dict[tuple[str, str, int, int], Mapping[str, str]] = {}

    def among(self, entries: Iterable[Entry]) -> set[str]:
        """Those that some artifact has a short name for."""
        return {name for entry in entries for name in self.of(entry)} if self.asked else set()

    def of(self, entry: Entry) -> Mapping[str, str]:
        if not self.asked:
            return NOTHING
        like = entry.kind, entry.type, entry.version, id(entry.columns)
        if like not in self._found:
            manifest = None if self.asked <= {*entry.columns} else self._manifest(entry)
            names = short_names(manifest, BUILT_IN) if manifest else NOTHING
            self._found[like] = {name: names[name] for name in self.asked & names.keys()}
        return self._found[like]

    def _manifest(self, entry: Entry) -> Manifest | None:
        try:
            return read_manifest(str(home(self.store.root_of(entry.kind), entry.kind, entry.key)))
        except CorruptArtifact:
            return None


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
    name, built_in = condition.field, BUILT_IN.get(condition.field)
    kept: list[Row] = []
    odd: Scalar = None
    n_compared = 0
    for row in rows:
        if built_in:
            found = built_in(row)
        else:
            place = row.place(name)
            if place is None:
                continue
            found = row.entry.values()[place]
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
        refuse(f"{condition} cannot be decided: {name} is {what}, as in {name}={_shown(odd)}")
    return kept


def _rank(value: Scalar) -> tuple[bool, Scalar]:
    """Numbers before text, so that what is of several types can be sorted."""
    return isinstance(value, str), value


def meant(name: str, known: Collection[str]) -> str:
    """What may have been meant by a name that there is not; "" where nothing is like it."""
    from difflib import get_close_matches

    end = name.rpartition(".")[2]
    parts = [field for field in sorted(known) if name in field.split(".")]
    parts += [field for field in sorted(known, key=len) if field.rpartition(".")[2] == end]
    near = dict.fromkeys(parts[:5] + get_close_matches(name, sorted(known), 3))
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _shown(value: Scalar) -> str:
    return repr(value) if isinstance(value, str) else str(value).lower()


def _seconds(created: str) -> float:
    try:
        return datetime.fromisoformat(created).timestamp()
    except ValueError:
        return 0.0
