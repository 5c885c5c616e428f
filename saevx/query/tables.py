"""One frame over many tables: the rows of each, with its spec's fields as columns."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from saevx.errors import SaevxWarning, SpecError
from saevx.query.conditions import Where, refuse
from saevx.query.flatten import Scalar, explode
from saevx.query.search import Row, did_you_mean, search
from saevx.recipes import find_recipe
from saevx.resolve.lookup import load_stored, open_input
from spec import Artifact, Keys, to_document
from spec.document import known_types

if TYPE_CHECKING:
    import polars as pl

    from store import Store, StoredArtifact


def joined(frames: Sequence[pl.DataFrame], columns: Sequence[Mapping[str, Scalar]]) -> pl.DataFrame:
    """The frames below each other; beside the rows of each, what `columns` says of it.

    Columns that only some have are null elsewhere. A name that the frames have themselves is
    prefixed: `spec.n`.
    """
    import polars as pl

    if not frames:
        return pl.DataFrame()
    below = pl.concat(frames, how="diagonal_relaxed")
    # Gathered once: columns of literals for each of 1,000 frames take as long as reading them.
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
    """As `saevx.load`."""
    return load_stored(open_input(spec, keys, store), find_recipe(type(spec)).load)


def table_of(
    specs: Iterable[Artifact], keys: Keys, store: Store, *, explode_spec: bool = True
) -> pl.DataFrame:
    """The rows of these results, each spec counted once. Raises SpecError for what is no table."""
    frames, columns = [], []
    for spec in {keys.of(one): one for one in specs}.values():
        if spec.kind != "results":
            raise SpecError(f"{type(spec).__name__} is no table but {spec.kind}: use saevx.load")
        stored = open_input(spec, keys, store)
        frames.append(as_frame(stored, load_stored(stored, find_recipe(type(spec)).load)))
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
    """The rows of all tables in the store that meet the conditions, oldest first.

    Warns with SaevxWarning of damaged ones, which are left out. Raises QueryError, StoreError, and
    SpecError for what is no table.
    """
    types = known_types()
    versions = {n: known.version for n, known in types.items() if issubclass(known, Artifact)}
    name = spec if spec is None or isinstance(spec, str) else spec.__name__
    found = search(store, kind=kind, type=name, where=where, versions=versions)
    if found.newer:
        raise found.newer[0]
    if isinstance(spec, type):
        types[spec.__name__] = spec
    elif name is not None and name not in found.types | types.keys():
        refuse(f"no artifact in {store.root} is of type {name!r}{did_you_mean(name, found.types)}")
    frames, columns = [], []
    for row in found.rows:
        if row.is_older and not older_versions:
            continue
        stored = _open(store, row)
        if stored is not None:
            frames.append(_frame(stored, types.get(stored.manifest.type)))
            columns.append(explode(stored.manifest.spec) if explode_spec else {})
    return joined(frames, columns)


def _open(store: Store, row: Row) -> StoredArtifact | None:
    found = store.look(row.entry.kind, row.entry.key)
    if isinstance(found, str):
        warnings.warn(
            f"{row.entry.type} {row.entry.key} is left out: {found}", SaevxWarning, stacklevel=4
        )
        return None
    return found


def _frame(stored: StoredArtifact, spec_type: type[object] | None) -> pl.DataFrame:
    """The table of an artifact: what `saevx.load` gives, or the only one that it holds."""
    manifest = stored.manifest
    if spec_type is not None and issubclass(spec_type, Artifact):
        return as_frame(stored, load_stored(stored, find_recipe(spec_type).load))
    names = stored.tables()
    if len(names) == 1:
        return stored.table(names[0])
    raise SpecError(
        f"{manifest.type} {stored.key} holds {len(names)} tables: import the module that defines "
        f"{manifest.type}, whose recipe says which to read, or choose others with spec=..."
    )


def as_frame(stored: StoredArtifact, loaded: Any) -> pl.DataFrame:
    """What an artifact was loaded as. Raises SpecError where that is no table."""
    import polars as pl

    if isinstance(loaded, pl.DataFrame):
        return loaded
    name, kind = stored.manifest.type, stored.manifest.kind
    if kind != "results":
        raise SpecError(f"{name} {stored.key} is no table but {kind}: use saevx.load")
    holds = ", ".join([*(f"table {t!r}" for t in stored.tables()), *map(repr, stored.arrays())])
    raise SpecError(
        f"{name} {stored.key} does not load as one table, since it holds {holds}: use saevx.load, "
        f"or declare which table to read: @recipe({name}, load=lambda a: a.table(...))"
    )
