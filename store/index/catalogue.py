"""The catalogue: what a store holds, remembered so that listing it need not read every manifest.

One file for each kind, below `.catalogue`. It is disposable: it may be deleted at any time, and one
that is damaged, of another form or of another folder is ignored and written anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from store.errors import NewerLayout, StoreError
from store.index.reader import Contents, Describe, Reader, Scalar, Shelf
from store.io import digest, replace_file
from store.layout import KINDS, catalogue_file, check_kind
from store.store import Store

REWRITE_SHARE = 1 / 16
"""A catalogue is written anew when more than this share of its entries had to be looked at."""

_MAGIC = b"saevx catalogue 1\n"
_HEAD = len(_MAGIC) + 32


class Entry(NamedTuple):
    """What the catalogue tells of an artifact."""

    kind: str
    key: str
    type: str
    version: int
    n_bytes: int
    """Size of its files, the manifest's own aside."""
    created: str
    columns: tuple[str, ...]
    """Names of its facts."""
    raw: msgspec.Raw

    def values(self) -> list[Scalar]:
        """Its facts, in the order of `columns`."""
        return _decode_facts(self.raw)

    def facts(self) -> dict[str, Scalar]:
        return dict(zip(self.columns, self.values(), strict=True))


_decode_facts = msgspec.msgpack.Decoder(list[Scalar]).decode
_decode = msgspec.msgpack.Decoder(Contents).decode


class Catalogue:
    """Lists a store by what `describe` says of each manifest.

    `form` names what `describe` does, as a file name: change it together with that.
    """

    def __init__(self, store: Store, describe: Describe, form: str) -> None:
        self.store = store
        self.describe = describe
        self.form = form

    def entries(self, kind: str | None = None) -> list[Entry]:
        """Every artifact that has a manifest, by kind and key, but for those of a newer layout.

        Sizes of files are not looked at. Raises StoreError where the store cannot be read.
        """
        return self.contents(kind)[0]

    def contents(self, kind: str | None = None) -> tuple[list[Entry], list[NewerLayout]]:
        """The `entries`, and one error for each artifact of a newer layout."""
        newer: list[NewerLayout] = []
        entries = [
            Entry(one, r.key, r.type, r.version, r.n_bytes, r.created, names[r.columns], r.facts)
            for one in (KINDS if kind is None else (check_kind(kind),))
            for names, shelf in self._shelves(one, newer)
            for r in shelf.records
        ]
        return entries, newer

    def _shelves(
        self, kind: str, newer: list[NewerLayout]
    ) -> Iterator[tuple[list[tuple[str, ...]], Shelf]]:
        file = catalogue_file(self.store.root_of(kind), kind, self.form)
        old = _load(file)
        reader = Reader(self.store.root_of(kind) / kind, kind, self.describe, old)
        shelves = reader.shelves(file.parent)
        newer += reader.newer
        contents = Contents(list(reader.columns), shelves)
        n_records = sum(len(shelf.records) for shelf in shelves.values())
        if shelves != old.shelves and reader.n_looked_at >= n_records * REWRITE_SHARE:
            _save(file, contents)
        for name in sorted(shelves):
            yield contents.columns, shelves[name]


def _load(file: Path) -> Contents:
    """What is remembered; nothing where that cannot be read."""
    try:
        data = memoryview(file.read_bytes())
        magic, sum_, body = data[: len(_MAGIC)], data[len(_MAGIC) : _HEAD], data[_HEAD:]
        if magic == _MAGIC and sum_ == digest(body).encode():
            return _decode(body)
    except (OSError, msgspec.DecodeError):
        pass
    return Contents([], {})


def _save(file: Path, contents: Contents) -> None:
    """Replaces the catalogue at once. It is not flushed: one that is torn is no catalogue."""
    body = msgspec.msgpack.encode(contents)
    with suppress(StoreError):  # a store that cannot be written to is only listed more slowly
        replace_file(file, _MAGIC, digest(body).encode(), body, durable=False)
