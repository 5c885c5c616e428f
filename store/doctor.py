"""The doctor of a store: everything in it that is not as it should be, and what to do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from store import leases
from store.aside import identity_of, set_aside_this
from store.checkup import file_faults, manifest_fault
from store.errors import CorruptArtifact, NewerLayout, StoreError
from store.files import digest_file, explained
from store.finding import AGAIN, FIX, NEWER, Finding, access, record, stranger, try_read
from store.inventory import Inventory
from store.layout import KINDS, NODE_FILE, RESERVED, collectors, is_key, pins, runs
from store.layout import leases as lease_folder
from store.manifest import Manifest, files_in, read_manifest
from store.owner import Life
from store.records import Pin, Ref, Run, life_of, names_in, roots_of
from store.store import Store

Progress = Callable[[int, int], None]
"""Called with (bytes read, all bytes)."""


class Doctor:
    """Looks over a whole store. It changes nothing, but for what `mend` is told to."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.manifests: dict[Ref, Manifest] = {}
        """Of every artifact that has one as it was written; filled by `findings`."""
        self._whole: dict[Ref, Path] = {}
        self._newer: set[Ref] = set()

    def findings(
        self, *, deep: bool = False, progress: Progress | None = None
    ) -> Iterator[Finding]:
        """All findings. `deep` reads every byte and compares it with its digest."""
        for root in roots_of(self.store):
            yield from self._root(root)
        for kind in KINDS:
            yield from self._kind(kind)
        if deep:
            yield from self._digests(progress)
        yield from self._parents()
        yield from self._orphans()
        yield from self._records()

    def _root(self, root: Path) -> Iterator[Finding]:
        try:
            if not root.exists():
                if root != self.store.root:
                    advice = "mount it, or expect that what lay there is made again when needed"
                    yield Finding("warning", "roots", str(root), "is not there", advice)
                return
            names = names_in(root)
        except (OSError, StoreError) as error:
            advice = "check its owner and mode"
            yield Finding("error", "roots", str(root), f"cannot be read: {error}", advice)
            return
        for name in names:
            path = root / name
            if name in KINDS:
                yield from access(path, "this kind of artifact")
            elif name != "reports":
                advice = "saevx neither reads nor touches it; move it elsewhere if it is yours"
                yield Finding("info", "not ours", str(path), "is no part of a store", advice)
        yield from access(root, "anything")

    def _kind(self, kind: str) -> Iterator[Finding]:
        parent = self.store.root_of(kind) / kind
        try:
            shelves = sorted(os.listdir(parent))
        except FileNotFoundError:
            return
        except OSError as error:
            yield Finding("error", "roots", str(parent), f"cannot be read: {error.strerror}")
            return
        for name in shelves:
            shelf = parent / name
            if name in RESERVED:
                continue
            if not _is_shelf(name) or not shelf.is_dir():
                yield stranger(shelf)
                continue
            try:
                keys = sorted(os.listdir(shelf))
            except OSError as error:
                yield Finding(
                    "error", "permissions", str(shelf), f"cannot be read: {error.strerror}"
                )
                continue
            for key in keys:
                if is_key(key):
                    yield from self._artifact((kind, key), shelf / key)
                else:
                    yield stranger(shelf / key)

    def _artifact(self, ref: Ref, path: Path) -> Iterator[Finding]:
        """All that a look at an artifact tells without reading its arrays."""
        identity = identity_of(path)
        if identity is None:
            return  # a collection was faster

        def damage(what: str) -> Finding:
            return Finding(
                "error", "damaged", str(path), what, FIX, ref, path, identity, fix="trash"
            )

        if path.parent.name != ref[1][:2]:
            yield damage(f"lies in the wrong folder: {ref[1][:2]}/ is its place")
            return
        try:
            manifest = read_manifest(str(path))
        except CorruptArtifact as error:
            yield damage(_after(str(error), path))
            return
        except NewerLayout as error:
            self._newer.add(ref)
            what = _after(str(error).partition(". ")[0], path)
            yield Finding("warning", "newer layout", str(path), what, NEWER, ref)
            return
        except StoreError as error:
            advice = "check the owner and mode of its files"
            yield Finding("error", "permissions", str(path), str(error), advice, ref)
            return
        if manifest is None:
            yield damage("has no manifest")
            return
        if fault := manifest_fault(manifest, ref):
            yield damage(fault)
            return
        self.manifests[ref] = manifest
        faults, unreadable = file_faults(path, manifest)
        if faults:
            more = f"; and {len(faults) - 3} more files" if len(faults) > 3 else ""
            yield damage("; ".join(faults[:3]) + more)
        if unreadable:
            advice = "let its owner run `chmod -R a+rX` on it"
            what = f"cannot be read by you: {', '.join(unreadable[:3])}"
            yield Finding("error", "permissions", str(path), what, advice, ref)
        if extra := sorted(files_in(path) - {NODE_FILE, *manifest.files}):
            more = f" and {len(extra) - 3} more" if len(extra) > 3 else ""
            advice = "saevx does not read it; other Zarr readers may. Move it away"
            what = f"holds what its manifest does not name: {', '.join(extra[:3])}{more}"
            yield Finding("warning", "unexpected files", str(path), what, advice, ref)
        if not faults and not unreadable:
            self._whole[ref] = path

    def _digests(self, progress: Progress | None) -> Iterator[Finding]:
        done, total = 0, sum(_n_bytes(self.manifests[ref]) for ref in self._whole)
        for ref, path in self._whole.items():
            identity = identity_of(path)
            altered: list[str] = []
            for name, written in self.manifests[ref].files.items():
                try:
                    if digest_file(path / name) != written:
                        altered.append(name)
                except OSError as error:
                    altered.append(f"{name} ({error.strerror})")
                done += written.size
                if progress:
                    progress(done, total)
            if altered and identity is not None and identity_of(path) == identity:
                more = f" and {len(altered) - 3} more" if len(altered) > 3 else ""
                what = f"has altered bytes in {', '.join(altered[:3])}{more}"
                yield Finding(
                    "error", "damaged", str(path), what, FIX, ref, path, identity, fix="trash"
                )

    def _parents(self) -> Iterator[Finding]:
        missing: dict[Ref, int] = {}
        for manifest in self.manifests.values():
            for parent in manifest.parents.values():
                at = parent.kind, parent.key
                if at not in self.manifests and at not in self._newer:
                    missing[at] = missing.get(at, 0) + 1
        for kind in KINDS:
            gone = [n for (k, _), n in missing.items() if k == kind]
            if gone:
                yield Finding(
                    "info",
                    "missing inputs",
                    kind,
                    f"{len(gone)} are not here that other artifacts were made from",
                    f"nothing is lost that is finished; {AGAIN.replace('it', 'one', 1)}",
                )

    def _orphans(self) -> Iterator[Finding]:
        inventory = Inventory(self.store)
        inventory.look_at_work()
        for build in inventory.builds:
            if build.life is Life.DEAD:
                what = f"was left behind by a process that is gone ({build.owner})"
                advice = "`saevx doctor --fix` or `saevx gc` moves it to the trash"
                identity = identity_of(build.path)
                yield Finding(
                    "warning", "orphans", str(build.path), what, advice, build.ref, build.path,
                    identity, fix="trash",
                )  # fmt: skip
            elif build.life is Life.UNKNOWN:
                what = f"belongs to a process that cannot be asked from here ({build.owner})"
                yield Finding("info", "work elsewhere", str(build.path), what)
        for parts in inventory.parts:
            what = "holds finished parts of what is not there yet"
            advice = "the next run that wants it goes on from there; `saevx gc` collects the rest"
            yield Finding("info", "unfinished", str(parts.path), what, advice, parts.ref)
        for holder in inventory.leases:
            if holder.life is Life.DEAD:
                path = lease_folder(self.store.root_of(holder.kind), holder.kind) / holder.key
                what = f"is held by a process that is gone: {holder}"
                advice = "the next run breaks it; so does `saevx doctor --fix`"
                yield Finding(
                    "warning", "orphans", str(path), what, advice, holder=holder, fix="lease"
                )
        for root in roots_of(self.store):
            for name in names_in(collectors(root)):
                if life_of(name.rpartition(".")[0]) is Life.DEAD:
                    path = collectors(root) / name
                    what = "was left behind by a collection that is gone"
                    yield Finding("warning", "orphans", str(path), what, path=path, fix="delete")

    def _records(self) -> Iterator[Finding]:
        here = self.manifests.keys() | self._newer
        for root in roots_of(self.store):
            try:
                files = [
                    runs(root) / f / n
                    for f in names_in(runs(root))
                    for n in names_in(runs(root) / f)
                ]
                pinned = [pins(root) / name for name in names_in(pins(root))]
            except StoreError as error:
                yield Finding("error", "records", str(root), str(error))
                continue
            for file in files:
                yield from record(file, Run)
            for file in pinned:
                yield from record(file, Pin)
                pin = try_read(file, Pin)
                if pin and root == self.store.root and pin.ref not in here:
                    what = f"pins {pin.kind} {pin.key[:8]}, which is not in the store"
                    yield Finding("warning", "records", str(file), what, "`saevx unpin` removes it")

    def mend(self, finding: Finding) -> bool:
        """Does what the finding says can be done; False when it is as it was found no more.

        Raises StoreError.
        """
        if finding.fix == "trash" and finding.ref and finding.path and finding.identity:
            kind, key = finding.ref
            root = self.store.root_of(kind)
            return set_aside_this(root, kind, key, finding.path, finding.identity) is not None
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


def _after(message: str, path: Path) -> str:
    """A message without the path that it begins with, which is told beside it."""
    return message.removeprefix(f"{path}/").removeprefix(f"{NODE_FILE} ")


def _is_shelf(name: str) -> bool:
    return len(name) == 2 and set(name) <= set("0123456789abcdef")
