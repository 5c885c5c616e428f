"""The store: find artifacts by kind and key, draft new ones, lease and scan."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from store.artifact.draft import Draft
from store.artifact.manifest import read_manifest
from store.artifact.reader import StoredArtifact
from store.artifact.staging import remove_parts
from store.artifact.verify import examine
from store.errors import CorruptArtifact, MissingArtifact
from store.io import list_folder
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
from store.network_caches import refresh_listing
from store.trash.move import Identity, identity_of, move_to_trash_if_same


class Store:
    """Artifacts in plain folders, safe to share between processes and hosts.

    `roots` gives kinds of artifacts a root of their own, such as shards on scratch. Nothing is
    created on disk before something is written.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        roots: Mapping[str, str | os.PathLike[str]] | None = None,
    ) -> None:
        self.root = _absolute(root)
        self._roots = {check_kind(kind): _absolute(path) for kind, path in (roots or {}).items()}

    def root_of(self, kind: str) -> Path:
        """Return the root of a kind. Raises StoreError where there is no such kind."""
        return self._roots.get(check_kind(kind), self.root)

    def __repr__(self) -> str:
        roots = "".join(f", {kind}={str(path)!r}" for kind, path in self._roots.items())
        return f"Store({str(self.root)!r}{roots})"

    def find(self, kind: str, key: str) -> StoredArtifact | None:
        """Return the artifact, or None where it is absent: missing or incomplete.

        Reads the manifest and checks the size of every file. Raises StoreError where that is not
        possible, and NewerLayout.
        """
        found = self.lookup(kind, key)
        return None if isinstance(found, str) else found

    def open(self, kind: str, key: str) -> StoredArtifact:
        """Return the artifact. Raises MissingArtifact where `find` returns None."""
        found = self.lookup(kind, key)
        if isinstance(found, str):
            raise MissingArtifact(kind, key, str(self.root_of(kind)), found)
        return found

    def absence(self, kind: str, key: str) -> str | None:
        """Return why `find` returns None; None where it returns an artifact."""
        found = self.lookup(kind, key)
        return found if isinstance(found, str) else None

    def lookup(self, kind: str, key: str) -> StoredArtifact | str:
        """Return the artifact, or the reason why it is absent: `find` and `absence` at once."""
        path = self._home(kind, check_key(key))
        found = examine(str(path), kind, key)
        return found if isinstance(found, str) else StoredArtifact(path, found)

    def draft(self, kind: str, key: str, part: int | None = None) -> Draft:
        """Return a draft of an artifact, or of a part of one, for use in a with statement."""
        return Draft(self.root_of(kind), kind, key, part)

    def find_part(self, kind: str, key: str, part: int) -> StoredArtifact | None:
        """Return a finished part of an artifact in progress; None where it is not complete."""
        root = self.root_of(kind)
        refresh_listing(work(root, kind, check_key(key)))
        path = part_home(root, kind, key, part)
        found = examine(str(path), kind, part_key(key, part))
        return None if isinstance(found, str) else StoredArtifact(path, found)

    def part_identity(self, kind: str, key: str, part: int) -> Identity | None:
        """Return what distinguishes a part from a later one in its place; None without a part."""
        return identity_of(part_home(self.root_of(kind), kind, check_key(key), part))

    def move_part_to_trash(self, kind: str, key: str, part: int, identity: Identity) -> bool:
        """Move a damaged part to the trash; return False where it is gone or was replaced."""
        root = self.root_of(kind)
        place = part_home(root, kind, check_key(key), part)
        return move_to_trash_if_same(root, kind, part_key(key, part), place, identity) is not None

    def parts(self, kind: str, key: str) -> list[int]:
        """Return the numbers of the finished parts, in order, without checking their content."""
        names = list_folder(work(self.root_of(kind), kind, check_key(key)))
        return sorted(int(name) for name in names if name.isdecimal())

    def count_parts(self, kind: str) -> dict[str, int]:
        """Return the number of finished parts of each artifact in progress, by key."""
        folder = works(self.root_of(kind), kind)
        return {key: len(self.parts(kind, key)) for key in list_folder(folder) if is_key(key)}

    def drop_parts(self, kind: str, key: str) -> None:
        """Delete the parts of an artifact that is published."""
        remove_parts(self.root_of(kind), kind, check_key(key))

    def lease(self, kind: str, key: str) -> Lease | None:
        """Acquire the right to make an artifact; None while another live process may have it.

        It is advice: publishing without a lease may waste work, but does no harm. A `find` after
        this sees what the previous owner has published. Raises StoreError.
        """
        lease = leases.acquire(self.root_of(kind), kind, check_key(key))
        if lease is not None:
            refresh_listing(self.root_of(kind) / kind)
            refresh_listing(self._home(kind, key).parent)
        return lease

    def lease_all(self, wanted: Iterable[tuple[str, str]]) -> list[Lease] | None:
        """Acquire the leases of several (kind, key), or none and return None. Raises StoreError."""
        acquired: list[Lease] = []
        with ExitStack() as stack:
            # Sorted: of several processes that want the same leases, the first gets all of them.
            for kind, key in sorted(set(wanted)):
                lease = self.lease(kind, key)
                if lease is None:
                    return None
                acquired.append(stack.enter_context(lease))
            stack.pop_all()
        return acquired

    def leases(
        self, kind: str | None = None, keys: Iterable[str] | None = None
    ) -> Iterator[LeaseOwner]:
        """Yield the owners of leases, of certain keys if given. Raises StoreError."""
        keys = None if keys is None else list(keys)
        for one in KINDS if kind is None else (kind,):
            yield from leases.find(self.root_of(one), one, keys)

    def is_leased_here(self, kind: str, key: str) -> bool:
        """Return whether this process itself holds the lease."""
        return leases.is_ours(self.root_of(kind), kind, key)

    def keys(self, kind: str, prefix: str = "") -> Iterator[str]:
        """Yield the keys of everything in the place of an artifact, complete or not, in order."""
        folder = self.root_of(kind) / kind
        for first in list_folder(folder):
            if is_prefix_folder(first) and first.startswith(prefix[:2]):
                for key in list_folder(folder / first):
                    if is_key(key) and key[:2] == first and key.startswith(prefix):
                        yield key

    def scan(self, kind: str | None = None, prefix: str = "") -> Iterator[StoredArtifact]:
        """Yield every artifact with a manifest. Sizes of files are not checked; `find` does."""
        for one in KINDS if kind is None else (kind,):
            for key in self.keys(one, prefix):
                path = self._home(one, key)
                manifest = None
                with suppress(CorruptArtifact):
                    manifest = read_manifest(str(path))
                if manifest is not None:
                    yield StoredArtifact(path, manifest)

    def match(self, prefix: str) -> list[StoredArtifact]:
        """Return the artifacts of any kind whose keys begin with `prefix`, as `scan` does."""
        return list(self.scan(prefix=check_prefix(prefix)))

    def _home(self, kind: str, key: str) -> Path:
        return home(self.root_of(kind), kind, key)


def _absolute(path: str | os.PathLike[str]) -> Path:
    return Path(path).expanduser().absolute()
