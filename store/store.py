"""The store: where artifacts are, found by kind and key."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from store.artifact.draft import Draft
from store.artifact.manifest import examine, read_manifest
from store.artifact.reader import StoredArtifact
from store.artifact.staging import remove_parts
from store.errors import CorruptArtifact, MissingArtifact
from store.io import list_folder, look_afresh
from store.layout import (
    KINDS,
    check_key,
    check_kind,
    check_prefix,
    home,
    is_key,
    is_prefix_folder,
    part_home,
    part_key,
    work,
    works,
)
from store.locks import lease as leases
from store.locks.lease import Lease, LeaseOwner
from store.trash.move import Identity, identity_of, move_to_trash_if_same


class Store:
    """Artifacts in plain folders, safe to share between processes and hosts.

    `roots` gives kinds of artifacts a root of their own, such as shards on scratch. Nothing is
    made on disk before something is written.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        roots: Mapping[str, str | os.PathLike[str]] | None = None,
    ) -> None:
        self.root = _absolute(root)
        self._roots = {check_kind(kind): _absolute(path) for kind, path in (roots or {}).items()}

    def root_of(self, kind: str) -> Path:
        return self._roots.get(check_kind(kind), self.root)

    def __repr__(self) -> str:
        roots = "".join(f", {kind}={str(path)!r}" for kind, path in self._roots.items())
        return f"Store({str(self.root)!r}{roots})"

    def find(self, kind: str, key: str) -> StoredArtifact | None:
        """The artifact, or None where it is absent: not there, or not whole.

        Looks at the manifest and at the size of every file. Raises StoreError where that cannot
        be done, NewerLayout.
        """
        found = self.look(kind, key)
        return None if isinstance(found, str) else found

    def open(self, kind: str, key: str) -> StoredArtifact:
        """The artifact. Raises MissingArtifact where `find` returns None."""
        found = self.look(kind, key)
        if isinstance(found, str):
            raise MissingArtifact(kind, key, str(self.root_of(kind)), found)
        return found

    def absence(self, kind: str, key: str) -> str | None:
        """Why `find` returns None, in words; None where it does not."""
        found = self.look(kind, key)
        return found if isinstance(found, str) else None

    def look(self, kind: str, key: str) -> StoredArtifact | str:
        """The artifact, else why it is absent, in words: `find` and `absence` in one look."""
        path = self._home(check_kind(kind), check_key(key))
        found = examine(str(path), kind, key)
        return found if isinstance(found, str) else StoredArtifact(path, found)

    def draft(self, kind: str, key: str, part: int | None = None) -> Draft:
        """A new artifact in the making, or a part of one, to be used in a with statement."""
        return Draft(self.root_of(kind), kind, key, part)

    def find_part(self, kind: str, key: str, part: int) -> StoredArtifact | None:
        """A finished part of an artifact that is not there yet; None where it is not whole."""
        root = self.root_of(check_kind(kind))
        look_afresh(work(root, kind, check_key(key)))
        path = part_home(root, kind, key, part)
        found = examine(str(path), kind, part_key(key, part))
        return None if isinstance(found, str) else StoredArtifact(path, found)

    def part_identity(self, kind: str, key: str, part: int) -> Identity | None:
        """Tells a part from another that took its place; None where there is none."""
        return identity_of(part_home(self.root_of(kind), kind, check_key(key), part))

    def move_part_to_trash(self, kind: str, key: str, part: int, identity: Identity) -> bool:
        """Moves a damaged part to the trash; False when it is gone, or another by now."""
        root = self.root_of(kind)
        place = part_home(root, kind, check_key(key), part)
        return move_to_trash_if_same(root, kind, part_key(key, part), place, identity) is not None

    def parts(self, kind: str, key: str) -> list[int]:
        """Numbers of the parts that are finished, in order; not looked at any closer."""
        names = list_folder(work(self.root_of(check_kind(kind)), kind, check_key(key)))
        return sorted(int(name) for name in names if name.isdecimal())

    def begun(self, kind: str) -> dict[str, int]:
        """Keys of artifacts of which parts are finished -> how many."""
        folder = works(self.root_of(check_kind(kind)), kind)
        return {key: len(self.parts(kind, key)) for key in list_folder(folder) if is_key(key)}

    def drop_parts(self, kind: str, key: str) -> None:
        """Deletes the parts of an artifact, which it needs no more once it is published."""
        remove_parts(self.root_of(check_kind(kind)), kind, check_key(key))

    def lease(self, kind: str, key: str) -> Lease | None:
        """The right to make an artifact; None while another process that may be alive has it.

        Only advice: who publishes without one wastes work at worst. A `find` after this sees what
        the last holder has published. Raises StoreError.
        """
        lease = leases.acquire(self.root_of(kind), kind, check_key(key))
        if lease is not None:
            look_afresh(self.root_of(kind) / kind)
            look_afresh(self._home(kind, key).parent)
        return lease

    def lease_all(self, wanted: Iterable[tuple[str, str]]) -> list[Lease] | None:
        """The leases of several (kind, key), or None and no lease at all. Raises StoreError."""
        taken: list[Lease] = []
        try:
            # In one order everywhere: of several that want the same, the first gets on.
            for kind, key in sorted(set(wanted)):
                lease = self.lease(kind, key)
                if lease is None:
                    break
                taken.append(lease)
            else:
                return taken
        except BaseException:
            _release(taken)
            raise
        _release(taken)
        return None

    def leases(
        self, kind: str | None = None, keys: Iterable[str] | None = None
    ) -> Iterator[LeaseOwner]:
        """Who holds leases, and whether they live; of some keys if given. Raises StoreError."""
        keys = None if keys is None else list(keys)
        for one in KINDS if kind is None else (kind,):
            yield from leases.find(self.root_of(one), one, keys)

    def is_leased_here(self, kind: str, key: str) -> bool:
        """Whether this process itself holds the lease."""
        return leases.is_ours(self.root_of(kind), kind, key)

    def keys(self, kind: str, prefix: str = "") -> Iterator[str]:
        """Keys of all that stands in the place of an artifact, whole or not, in order."""
        for part in list_folder(self.root_of(kind) / kind):
            if is_prefix_folder(part) and part.startswith(prefix[:2]):
                names = list_folder(self.root_of(kind) / kind / part)
                ours = (key for key in names if is_key(key) and key.startswith(part))
                yield from (key for key in ours if key.startswith(prefix))

    def scan(self, kind: str | None = None) -> Iterator[StoredArtifact]:
        """Every artifact that has a manifest. Sizes of files are not looked at; `find` does."""
        for one in KINDS if kind is None else (check_kind(kind),):
            for key in self.keys(one):
                yield from self._with_manifest(one, key)

    def match(self, prefix: str) -> list[StoredArtifact]:
        """The artifacts of any kind whose keys start so, as `scan` sees them."""
        check_prefix(prefix)
        return [
            a
            for kind in KINDS
            for key in self.keys(kind, prefix)
            for a in self._with_manifest(kind, key)
        ]

    def _home(self, kind: str, key: str) -> Path:
        return home(self.root_of(kind), kind, key)

    def _with_manifest(self, kind: str, key: str) -> Iterator[StoredArtifact]:
        place = self._home(kind, key)
        try:
            manifest = read_manifest(str(place))
        except CorruptArtifact:
            return
        if manifest is not None:
            yield StoredArtifact(place, manifest)


def _release(taken: list[Lease]) -> None:
    for lease in taken:
        lease.release()


def _absolute(path: str | os.PathLike[str]) -> Path:
    return Path(path).expanduser().absolute()
