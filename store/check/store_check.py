"""The doctor of a store: everything in it that is not as it should be, and what to do.

What cannot be looked at is a finding like any other, and the rest is looked at all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from store.artifact.manifest import Manifest, byte_fault, files_in, read_manifest
from store.artifact.verify import file_faults, manifest_fault
from store.check import roots as premises
from store.check import staging as unfinished
from store.check.report import AGAIN, Finding, damage, names_of, newer, stranger, unreadable
from store.errors import CorruptArtifact, NewerLayout, StoreError
from store.io import explained
from store.layout import KINDS, NODE_FILE, RESERVED, Ref, is_key, is_shelf
from store.locks import lease as leases
from store.store import Store
from store.trash.move import identity_of, move_to_trash_if_same

Progress = Callable[[int, int], None]
"""Called with (bytes read, all bytes)."""


class Doctor:
    """Looks over a whole store. It changes nothing, but for what `mend` is told to."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.manifests: dict[Ref, Manifest] = {}
        """Of every artifact that has one as it was written; filled by `findings`."""
        self._whole: dict[Ref, tuple[Path, Manifest]] = {}
        """Artifacts and parts of which every file has its size, and can be read."""
        self._unknown: set[Ref] = set()
        """What stands, and cannot be read or understood."""
        self._closed: set[str] = set()
        """Kinds that cannot be looked into, at least in part."""

    def findings(
        self, *, deep: bool = False, progress: Progress | None = None
    ) -> Iterator[Finding]:
        """All findings. `deep` reads every byte and compares it with its digest."""
        roots = yield from premises.roots(self.store)
        for kind in KINDS:
            if self.store.root_of(kind) in roots:
                yield from self._kind(kind)
            else:
                self._closed.add(kind)
        for root in roots:
            yield from unfinished.announcements(root)
        if deep:
            yield from self._digests(progress)
        yield from self._parents()
        yield from unfinished.records(self.store, roots, self.manifests.keys() | self._unknown)

    def _kind(self, kind: str) -> Iterator[Finding]:
        folder = self.store.root_of(kind) / kind
        names = yield from names_of(folder)
        if names is None:
            self._closed.add(kind)
            return
        yield from premises.one_file_system(folder, names)
        for name in names:
            if name == ".trash":
                yield from names_of(folder / name)
            elif name not in RESERVED:
                yield from self._shelf(kind, folder / name)
        beside = unfinished.Unfinished(self.store, kind, self._whole)
        yield from beside.findings()
        self._whole |= {ref: (path, manifest) for ref, path, manifest in beside.parts}

    def _shelf(self, kind: str, shelf: Path) -> Iterator[Finding]:
        try:
            if not is_shelf(shelf.name) or not shelf.is_dir():
                yield stranger(shelf)
                return
        except OSError as error:
            self._closed.add(kind)
            yield unreadable(shelf, error)
            return
        keys = yield from names_of(shelf)
        if keys is None:
            self._closed.add(kind)
            return
        for key in keys:
            if not is_key(key):
                yield stranger(shelf / key)
                continue
            try:
                yield from self._artifact((kind, key), shelf / key)
            except (OSError, StoreError) as error:
                self._unknown.add((kind, key))
                yield unreadable(shelf / key, error, (kind, key))

    def _artifact(self, ref: Ref, path: Path) -> Iterator[Finding]:
        """All that a look at an artifact tells without reading its arrays."""
        identity = identity_of(path)
        if identity is None:
            return  # a collection was faster
        if path.parent.name != ref[1][:2]:
            what = f"lies in the wrong folder: {ref[1][:2]}/ is its place"
            yield damage(path, what, ref, identity)
            return
        try:
            manifest = read_manifest(str(path))
        except CorruptArtifact as error:
            yield damage(path, _after(str(error), path), ref, identity)
            return
        except NewerLayout as error:
            self._unknown.add(ref)
            yield newer(path, _after(str(error).partition(". ")[0], path), ref)
            return
        if manifest is None and identity_of(path) != identity:
            return  # collected or replaced meanwhile
        fault = manifest_fault(manifest, ref) if manifest else "has no manifest"
        if manifest is None or fault:
            yield damage(path, fault or "", ref, identity)
            return
        self.manifests[ref] = manifest
        faults, closed = file_faults(path, manifest)
        if faults:
            yield damage(path, _some(faults, "; ", "; and {} more files"), ref, identity)
        if closed:
            advice = "let its owner run `chmod -R a+rX` on it"
            what = f"cannot be read by you: {', '.join(closed[:3])}"
            yield Finding("error", "permissions", str(path), what, advice, ref)
        if extra := sorted(files_in(path) - {NODE_FILE, *manifest.files}):
            advice = "saevx does not read it; other Zarr readers may. Move it away"
            what = f"holds what its manifest does not name: {_some(extra)}"
            yield Finding("warning", "unexpected files", str(path), what, advice, ref)
        if not faults and not closed:
            self._whole[ref] = path, manifest

    def _digests(self, progress: Progress | None) -> Iterator[Finding]:
        done, total = 0, sum(_n_bytes(manifest) for _, manifest in self._whole.values())
        for ref, (path, manifest) in self._whole.items():
            altered: list[str] = []
            failed: list[str] = []
            try:
                identity = identity_of(path)
                for name, written in manifest.files.items():
                    try:
                        if byte_fault(str(path), name, written):
                            altered.append(name)
                    except OSError as error:
                        failed.append(f"{name} ({error.strerror})")
                    done += written.size
                    if progress:
                        progress(done, total)
                if identity is None or identity_of(path) != identity:
                    continue  # collected or replaced meanwhile
            except StoreError as error:
                yield unreadable(path, error, ref)
                continue
            if altered:
                yield damage(path, f"has altered bytes in {_some(altered)}", ref, identity)
            if failed:
                advice = (
                    "this tells nothing of its bytes: check the device or file server, look again"
                )
                what = f"could not be read: {_some(failed)}"
                yield Finding("error", "unreadable", str(path), what, advice, ref)

    def _parents(self) -> Iterator[Finding]:
        missing: dict[Ref, int] = {}
        for manifest in self.manifests.values():
            for parent in manifest.parents.values():
                at = parent.kind, parent.key
                if at not in self.manifests and at not in self._unknown:
                    missing[at] = missing.get(at, 0) + 1
        for kind in KINDS:
            gone = [n for (k, _), n in missing.items() if k == kind]
            if gone and kind not in self._closed:
                yield Finding(
                    "info",
                    "missing inputs",
                    kind,
                    f"{len(gone)} are not here that other artifacts were made from",
                    f"nothing is lost that is finished; {AGAIN.replace('it', 'one', 1)}",
                )

    def mend(self, finding: Finding) -> bool:
        """Does what the finding says can be done; False when it is as it was found no more.

        Raises StoreError.
        """
        if finding.fix == "trash" and finding.ref and finding.path and finding.identity:
            kind, key = finding.ref
            root = self.store.root_of(kind)
            return (
                move_to_trash_if_same(root, kind, key, finding.path, finding.identity) is not None
            )
        if finding.fix == "lease" and finding.holder:
            leases.remove_dead(self.store.root_of(finding.holder.kind), finding.holder)
            return True
        if finding.fix == "delete" and finding.path:
            with explained("remove", finding.path):
                finding.path.unlink(missing_ok=True)
            return True
        return False


def _n_bytes(manifest: Manifest) -> int:
    return sum(record.size for record in manifest.files.values())


def _some(names: list[str], between: str = ", ", more: str = " and {} more") -> str:
    """The first three, and how many others there are."""
    rest = more.format(len(names) - 3) if len(names) > 3 else ""
    return between.join(names[:3]) + rest


def _after(message: str, path: Path) -> str:
    """A message without the path that it begins with, which is told beside it."""
    return message.removeprefix(f"{path}/").removeprefix(f"{NODE_FILE} ")
