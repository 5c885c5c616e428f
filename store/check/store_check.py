"""A check of a whole store: everything in it that is not as it should be, and what to do.

What cannot be read is a finding like any other, and the check goes on with the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from store.artifact.manifest import Manifest, read_manifest
from store.artifact.verify import byte_fault, file_faults, files_in, manifest_fault
from store.check import folders, staging
from store.check.report import RECOMPUTED, Finding, damage, foreign, names_of, unreadable
from store.errors import CorruptArtifact, StoreError
from store.layout import KINDS, NODE_FILE, RESERVED, Ref, is_key, is_prefix_folder
from store.store import Store
from store.trash.move import identity_of

Progress = Callable[[int, int], None]
"""Called with (bytes read, all bytes)."""


class StoreCheck:
    """Checks a whole store. It changes nothing; the findings hold the fixes."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.manifests: dict[Ref, Manifest] = {}
        """Manifests that are intact; filled by `findings`."""
        self._whole: staging.Whole = {}
        self._unknown: set[Ref] = set()
        """Artifacts that are there and cannot be read."""
        self._closed: set[str] = set()
        """Kinds of which not all folders can be read."""

    def findings(
        self, *, deep: bool = False, progress: Progress | None = None
    ) -> Iterator[Finding]:
        """Yield all findings. `deep` reads every byte and compares it with its digest."""
        roots = yield from folders.root_folders(self.store)
        for kind in KINDS:
            if self.store.root_of(kind) in roots:
                yield from self._kind(kind)
            else:
                self._closed.add(kind)
        for root in roots:
            yield from staging.announcements(root)
        if deep:
            yield from self._digests(progress)
        yield from self._parents()
        yield from staging.records(self.store, roots, self.manifests.keys() | self._unknown)

    def _kind(self, kind: str) -> Iterator[Finding]:
        folder = self.store.root_of(kind) / kind
        names = yield from names_of(folder)
        if names is None:
            self._closed.add(kind)
            return
        yield from folders.one_file_system(folder, names)
        for name in names:
            if name == ".trash":
                yield from names_of(folder / name)
            elif name not in RESERVED:
                yield from self._prefix_folder(kind, folder / name)
        yield from staging.work_in_progress(self.store, kind, self._whole)

    def _prefix_folder(self, kind: str, folder: Path) -> Iterator[Finding]:
        try:
            if not is_prefix_folder(folder.name) or not folder.is_dir():
                yield foreign(folder)
                return
        except OSError as error:
            self._closed.add(kind)
            yield unreadable(folder, error)
            return
        keys = yield from names_of(folder)
        if keys is None:
            self._closed.add(kind)
        for key in keys or []:
            if not is_key(key):
                yield foreign(folder / key)
                continue
            try:
                yield from self._artifact((kind, key), folder / key)
            except (OSError, StoreError) as error:
                self._unknown.add((kind, key))
                yield unreadable(folder / key, error, (kind, key))

    def _artifact(self, ref: Ref, path: Path) -> Iterator[Finding]:
        """Check an artifact without reading its arrays."""
        identity = identity_of(path)
        if identity is None:
            return  # collected meanwhile
        fault: str | None = None
        manifest = None
        if path.parent.name != ref[1][:2]:
            fault = f"lies in the wrong folder: {ref[1][:2]}/ is its place"
        else:
            try:
                manifest = read_manifest(str(path))
                fault = manifest_fault(manifest, ref) if manifest else "has no manifest"
            except CorruptArtifact as error:
                # Without its path, which the finding gives.
                fault = str(error).removeprefix(f"{path}/{NODE_FILE} ")
            if manifest is None and identity_of(path) != identity:
                return  # collected or replaced meanwhile
        if manifest is None or fault:
            yield damage(self.store, ref, path, identity, fault or "")
            return
        self.manifests[ref] = manifest
        faults, closed = file_faults(path, manifest)
        if faults:
            yield damage(self.store, ref, path, identity, _some(faults, "; ", "files"))
        if closed:
            advice = "ask its owner to run `chmod -R a+rX` on it"
            what = f"cannot be read by you: {_some(closed)}"
            yield Finding("error", "permissions", str(path), what, advice, ref)
        if extra := sorted(files_in(path) - {NODE_FILE, *manifest.files}):
            advice = "saevx does not read them; other Zarr readers may. Move them away"
            what = f"holds files that its manifest does not name: {_some(extra)}"
            yield Finding("warning", "unexpected files", str(path), what, advice, ref)
        if not faults and not closed:
            self._whole[ref] = path, manifest

    def _digests(self, progress: Progress | None) -> Iterator[Finding]:
        files = [
            record for _, manifest in self._whole.values() for record in manifest.files.values()
        ]
        done, total = 0, sum(record.size for record in files)
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
                what = f"has altered bytes in {_some(altered)}"
                yield damage(self.store, ref, path, identity, what)
            if failed:
                advice = "its bytes may be intact: check the device or file server, and try again"
                what = f"could not be read: {_some(failed)}"
                yield Finding("error", "unreadable", str(path), what, advice, ref)

    def _parents(self) -> Iterator[Finding]:
        parents = {
            (parent.kind, parent.key)
            for manifest in self.manifests.values()
            for parent in manifest.parents.values()
        }
        missing = Counter(kind for kind, _ in parents - self.manifests.keys() - self._unknown)
        for kind in sorted(missing.keys() - self._closed):
            what = f"{missing[kind]} that other artifacts were made from are not here"
            advice = f"finished artifacts do not need them; {RECOMPUTED}"
            yield Finding("info", "missing inputs", kind, what, advice)


def _some(names: list[str], between: str = ", ", of: str = "") -> str:
    """The first three names, and how many more there are."""
    more = f"{between}and {len(names) - 3} more {of}".rstrip() if len(names) > 3 else ""
    return between.join(names[:3]) + more
