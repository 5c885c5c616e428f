"""The catalogue: a cache of what a store holds, so that listing need not read every manifest.

One file for each kind, below `.catalogue`. It may be deleted at any time. A file that is damaged,
of another format or of another folder is ignored and rewritten.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from store.errors import NewerLayout, StoreError
from store.index.reader import Contents, Describe, Reader, Scalar
from store.io import digest, replace_file
from store.layout import KINDS, catalogue_file, check_kind
from store.store import Store

REWRITE_SHARE = 1 / 16
"""A catalogue is rewritten when more than this share of its artifacts had to be read."""

_MAGIC = b"saevx catalogue 1\n"
_HEAD = len(_MAGIC) + 32


class Entry(NamedTuple):
    """What the catalogue says about an artifact."""

    kind: str
    key: str
    type: str
    version: int
    n_bytes: int
    """Size of its files, without the manifest's own."""
    created: str
    columns: tuple[str, ...]
    """Names of its facts."""
    raw: msgspec.Raw

    def values(self) -> list[Scalar]:
        """Return its facts, in the order of `columns`."""
        return _decode_facts(self.raw)

    def facts(self) -> dict[str, Scalar]:
        return dict(zip(self.columns, self.values(), strict=True))


_decode_facts = msgspec.msgpack.Decoder(list[Scalar]).decode
_decode = msgspec.msgpack.Decoder(Contents).decode


class Catalogue:
    """Lists a store by the facts that `describe` returns for each manifest.

    `form` is a file name for the output of `describe`: change it together with that function.
    """

    def __init__(self, store: Store, describe: Describe, form: str) -> None:
        self.store, self.describe, self.form = store, describe, form

    def entries(self, kind: str | None = None) -> list[Entry]:
        """Return every artifact with a manifest, by kind and key, except those of a newer layout.

        Sizes of files are not checked. Raises StoreError where the store cannot be read.
        """
        return self.contents(kind)[0]

    def contents(self, kind: str | None = None) -> tuple[list[Entry], list[NewerLayout]]:
        """Return the `entries`, and one error for each artifact of a newer layout."""
        entries: list[Entry] = []
        newer: list[NewerLayout] = []
        for one in KINDS if kind is None else (check_kind(kind),):
            found, errors = self._read(one)
            names = found.columns
            newer += errors
            entries += [
                Entry(
                    one, r.key, r.type, r.version, r.n_bytes, r.created, names[r.columns], r.facts
                )
                for folder in found.folders.values()
                for r in folder.records
            ]
        return entries, newer

    def _read(self, kind: str) -> tuple[Contents, list[NewerLayout]]:
        root = self.store.root_of(kind)
        file = catalogue_file(root, kind, self.form)
        old = _load(file)
        reader = Reader(root / kind, kind, self.describe, old)
        found = reader.read(clock=file.parent)
        n_records = sum(len(folder.records) for folder in found.folders.values())
        if found.folders != old.folders and reader.n_read >= n_records * REWRITE_SHARE:
            _save(file, found)
        return found, reader.newer


def _load(file: Path) -> Contents:
    """Return what a file remembers; nothing where it cannot be read."""
    with suppress(OSError, msgspec.DecodeError):
        data = memoryview(file.read_bytes())
        magic, xxh3, body = data[: len(_MAGIC)], data[len(_MAGIC) : _HEAD], data[_HEAD:]
        if magic == _MAGIC and xxh3 == digest(body).encode():
            return _decode(body)
    return Contents([], {})


def _save(file: Path, contents: Contents) -> None:
    """Replace the file. It is not flushed to disk: a torn file is ignored."""
    body = msgspec.msgpack.encode(contents)
    with suppress(StoreError):  # without write permission, listing is only slower
        replace_file(file, _MAGIC, digest(body).encode(), body, durable=False)
