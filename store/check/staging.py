"""A doctor's look at what is being made, was left behind, or is wanted: all but the artifacts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from store.artifact.manifest import Manifest, examine
from store.check.report import Finding, damage, names_of, newer, record, stranger, unreadable
from store.errors import NewerLayout, StoreError
from store.gc.evicted import evicted_manifest
from store.gc.records import Pin, Run, holds_runs, is_record
from store.gc.scan import builds_of, parts_of
from store.layout import (
    KINDS,
    Ref,
    builds,
    collectors,
    dropped,
    leases,
    part_key,
    pins,
    runs,
    works,
)
from store.locks.liveness import may_be_alive
from store.locks.process import ProcessId
from store.store import Store
from store.trash.move import identity_of


class Unfinished:
    """What lies beside the artifacts of one kind."""

    def __init__(self, store: Store, kind: str, whole: Collection[Ref]) -> None:
        self.store, self.kind = store, kind
        self._whole = whole
        """Artifacts that are there."""
        self.parts: list[tuple[Ref, Path, Manifest]] = []
        """Parts that are whole by their sizes; filled by `findings`."""

    def findings(self) -> Iterator[Finding]:
        root = self.store.root_of(self.kind)
        looks = (
            (builds(root, self.kind), self._builds),
            (works(root, self.kind), self._works),
            (leases(root, self.kind), self._leases),
        )
        for folder, look in looks:
            if (yield from names_of(folder)):
                try:
                    yield from look()
                except StoreError as error:
                    yield unreadable(folder, error)

    def _builds(self) -> Iterator[Finding]:
        for build in builds_of(self.store, self.kind):
            if not build.may_be_alive:
                what = f"was left behind by a process that is gone ({build.owner})"
                advice = "`saevx doctor --fix` or `saevx gc` moves it to the trash"
                identity = identity_of(build.path)
                yield Finding(
                    "warning", "orphans", str(build.path), what, advice, build.ref, build.path,
                    identity, fix="trash",
                )  # fmt: skip
            elif build.owner.runs() is None:
                what = f"belongs to a process that cannot be asked from here ({build.owner})"
                yield Finding("info", "work elsewhere", str(build.path), what)

    def _works(self) -> Iterator[Finding]:
        for parts in parts_of(self.store, self.kind):
            if parts.ref in self._whole:
                what = "holds finished parts of an artifact that is there"
                advice = "they share its bytes, or take as many again; `saevx gc` collects them"
            else:
                what = "holds finished parts of what is not there yet"
                advice = (
                    "the next run that wants it goes on from there; `saevx gc` collects the rest"
                )
            yield Finding("info", "unfinished", str(parts.path), what, advice, parts.ref)
            for name in (yield from names_of(parts.path)) or []:
                path = parts.path / name
                if not name.isdecimal():
                    yield stranger(path)
                    continue
                try:
                    yield from self._part((self.kind, part_key(parts.ref[1], int(name))), path)
                except StoreError as error:
                    yield unreadable(path, error)

    def _part(self, ref: Ref, path: Path) -> Iterator[Finding]:
        identity = identity_of(path)
        if identity is None:
            return  # joined meanwhile
        try:
            found = examine(str(path), *ref)
        except NewerLayout as error:
            yield newer(path, str(error), ref)
            return
        if isinstance(found, Manifest):
            self.parts.append((ref, path, found))
        elif identity_of(path) == identity:
            yield damage(path, f"is a part that is {found}", ref, identity)

    def _leases(self) -> Iterator[Finding]:
        for holder in self.store.leases(self.kind):
            if not holder.may_be_alive:
                path = leases(self.store.root_of(self.kind), self.kind) / holder.key
                what = f"is held by a process that is gone: {holder}"
                advice = "the next run breaks it; so does `saevx doctor --fix`"
                yield Finding(
                    "warning", "orphans", str(path), what, advice, holder=holder, fix="lease"
                )


def announcements(root: Path) -> Iterator[Finding]:
    folder = collectors(root)
    for name in (yield from names_of(folder)) or []:
        if not may_be_alive(ProcessId.parse(name.rpartition(".")[0])):
            what = "was left behind by a collection that is gone"
            yield Finding(
                "warning", "orphans", str(folder / name), what, path=folder / name, fix="delete"
            )


def records(store: Store, roots: Sequence[Path], here: Collection[Ref]) -> Iterator[Finding]:
    """Runs, pins, and manifests of what was given up, in roots that can be entered; `here` are the
    artifacts that stand.
    """
    for root in roots:
        for folder in filter(holds_runs, (yield from names_of(runs(root))) or []):
            for name in filter(is_record, (yield from names_of(runs(root) / folder)) or []):
                yield from record(runs(root) / folder / name, Run)
        for name in filter(is_record, (yield from names_of(pins(root))) or []):
            file = pins(root) / name
            pin = yield from record(file, Pin)
            if pin and root == store.root and pin.ref not in here:
                what = f"pins {pin.kind} {pin.key[:8]}, which is not in the store"
                yield Finding("warning", "records", str(file), what, "`saevx unpin` removes it")
    if store.root not in roots:
        return
    kinds = yield from names_of(dropped(store.root, KINDS[0]).parent)
    for kind in KINDS:
        if kind not in (kinds or []):
            continue
        place = dropped(store.root, kind)
        for name in filter(is_record, (yield from names_of(place)) or []):
            try:
                with suppress(NewerLayout):
                    evicted_manifest(store, kind, name.removesuffix(".json"))
            except StoreError as error:
                yield unreadable(place / name, error)
