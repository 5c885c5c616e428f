"""One frame of many tables: the rows of each, with its spec's fields as columns."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from saevx.errors import SaevxWarning, SpecError
from saevx.query.conditions import Where, refuse
from saevx.query.flatten import explode
from saevx.query.search import bare_name, did_you_mean, is_called, search
from saevx.recipes import find_recipe
from saevx.resolve.lookup import load_stored, open_input
from saevx.user_types import artifact_versions
from spec import Artifact, Keys, to_document
from spec.keys.model import SpecModel
from spec.keys.type_names import named_types, type_name
from store.index.reader import Scalar

if TYPE_CHECKING:
    import polars as pl

    from store import Store, StoredArtifact


def joined(frames: Sequence[pl.DataFrame], columns: Sequence[Mapping[str, Scalar]]) -> pl.DataFrame:
    """Concatenate frames vertically, and repeat the `columns` of each beside its rows.

    Columns that only some have are null elsewhere. A name that the frames already have is
    prefixed: `spec.n`.
    """
    import polars as pl

    if not frames:
        return pl.DataFrame()
    below = pl.concat(frames, how="diagonal_relaxed")
    # One gather per column: literals for each of 1,000 frames take as long as reading them.
    owner = pl.concat(
        [pl.repeat(i, frame.height, dtype=pl.UInt32, eager=True) for i, frame in enumerate(frames)]
    )
    beside = [
        pl.Series(
            f"spec.{name}" if name in below.columns else name,
            [each.get(name) for each in columns],
            strict=False,
        ).gather(owner)
        for name in dict.fromkeys(name for each in columns for name in each)
    ]
    return below.with_columns(beside)


def load(spec: Artifact, keys: Keys, store: Store) -> Any:
    """Return what `saevx.load` returns."""
    return load_stored(open_input(spec, keys, store), find_recipe(type(spec)).load)


def table_of(
    specs: Iterable[Artifact], keys: Keys, store: Store, *, explode_spec: bool = True
) -> pl.DataFrame:
    """Return the rows of these results, each spec once.

    Raises MissingArtifact, and SpecError for what is not one table.
    """
    frames, columns = [], []
    for spec in {keys.of(one): one for one in specs}.values():
        if spec.kind != "results":
            raise SpecError(f"{type(spec).__name__} is no table but {spec.kind}: use saevx.load")
        frames.append(_frame(open_input(spec, keys, store), type(spec)))
        columns.append(explode(to_document(spec, keys)) if explode_spec else {})
    return joined(frames, columns)


def found_table(
    store: Store,
    *,
    kind: str,
    spec: type[Artifact] | str | None,
    where: Where,
    older_versions: bool,
    explode_spec: bool,
) -> pl.DataFrame:
    """Return the rows of all tables in the store that meet the conditions, oldest first.

    Damaged tables are left out, with a SaevxWarning. Raises QueryError, StoreError, and SpecError
    for what is not one table.
    """
    types = named_types()
    found = search(store, kind=kind, type=spec, where=where, versions=artifact_versions())
    if found.newer:
        raise found.newer[0]
    if isinstance(spec, type):
        types[type_name(spec)] = spec
    elif spec is not None and not any(is_called(t, spec) for t in found.types | types.keys()):
        names = found.types | set(map(bare_name, found.types))
        refuse(f"no artifact in {store.root} is of type {spec!r}{did_you_mean(spec, names)}")
    frames, columns = [], []
    for row in found.rows:
        if row.is_older and not older_versions:
            continue
        stored = store.lookup(row.entry.kind, row.entry.key)
        if isinstance(stored, str):
            text = f"{row.entry.type} {row.entry.key} is left out: {stored}"
            warnings.warn(text, SaevxWarning, stacklevel=3)
            continue
        frames.append(_frame(stored, types.get(stored.manifest.type)))
        columns.append(explode(stored.manifest.spec) if explode_spec else {})
    return joined(frames, columns)


def _frame(stored: StoredArtifact, spec_type: type[SpecModel] | None) -> pl.DataFrame:
    """Return what `saevx.load` returns, or for an unknown type, the only table.

    Raises SpecError when that is not one frame.
    """
    import polars as pl

    name, kind, tables = stored.manifest.type, stored.manifest.kind, stored.tables()
    if spec_type is None or not issubclass(spec_type, Artifact):
        if len(tables) == 1:
            return stored.table(tables[0])
        raise SpecError(
            f"{name} {stored.key} holds {len(tables)} tables: import the module that defines "
            f"{name}, whose recipe says which to read, or choose others with spec=..."
        )
    loaded = load_stored(stored, find_recipe(spec_type).load)
    if isinstance(loaded, pl.DataFrame):
        return loaded
    if kind != "results":
        raise SpecError(f"{name} {stored.key} is no table but {kind}: use saevx.load")
    holds = ", ".join([*(f"table {t!r}" for t in tables), *map(repr, stored.arrays())])
    raise SpecError(
        f"{name} {stored.key} does not load as one table, since it holds {holds}: use saevx.load, "
        f"or declare which table to read: @recipe({bare_name(name)}, load=lambda a: a.table(...))"
    )
