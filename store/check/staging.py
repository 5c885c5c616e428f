"""Checks of what lies beside artifacts: builds, parts, leases, runs, pins, evicted manifests."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

from store.artifact.manifest import Manifest
from store.artifact.verify import examine
from store.check.report import (
    Finding,
    damage,
    foreign,
    names_of,
    record,
    to_trash,
    unreadable,
)
from store.errors import StoreError
from store.gc.evicted import evicted_manifest
from store.gc.records import Pin, Run, holds_runs, is_record
from store.gc.scan import builds_of, parts_of
from store.io import explained
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
from store.locks import lease
from store.locks.lease import LeaseOwner
from store.locks.liveness import may_be_alive
from store.locks.process import ProcessId
from store.store import Store
from store.trash.move import identity_of

Whole = dict[Ref, tuple[Path, Manifest]]
"""Artifacts and parts that have all their files, in full length and readable."""


def work_in_progress(store: Store, kind: str, whole: Whole) -> Iterator[Finding]:
    """Check builds, parts and leases of a kind. Adds to `whole` the parts that are whole."""
    root = store.root_of(kind)
    checks = (
        (builds(root, kind), _builds(store, kind)),
        (works(root, kind), _parts(store, kind, whole)),
        (leases(root, kind), _leases(store, kind)),
    )
    for folder, findings in checks:
        if (yield from names_of(folder)):
            try:
                yield from findings
            except StoreError as error:
                yield unreadable(folder, error)


def _builds(store: Store, kind: str) -> Iterator[Finding]:
    for build in builds_of(store, kind):
        identity = identity_of(build.path)
        if identity and not build.may_be_alive:
            what = f"was left by a process that has ended ({build.owner})"
            advice = "`saevx doctor --fix` or `saevx gc` moves it to the trash"
            fix = to_trash(store, build.ref, build.path, identity)
            yield Finding("warning", "orphans", str(build.path), what, advice, build.ref, fix)
        elif build.may_be_alive and build.owner.runs() is None:
            what = f"belongs to a process that cannot be checked from here ({build.owner})"
            yield Finding("info", "work elsewhere", str(build.path), what)


def _parts(store: Store, kind: str, whole: Whole) -> Iterator[Finding]:
    for parts in parts_of(store, kind):
        if parts.ref in whole:
            what = "holds finished parts of an artifact that is there"
            advice = "they share its bytes, or take as many again; `saevx gc` collects them"
        else:
            what = "holds finished parts of an artifact that is not there yet"
            advice = "the next run that wants it continues from them; otherwise gc collects them"
        yield Finding("info", "unfinished", str(parts.path), what, advice, parts.ref)
        for name in (yield from names_of(parts.path)) or []:
            path = parts.path / name
            if not name.isdecimal():
                yield foreign(path)
                continue
            ref = kind, part_key(parts.ref[1], int(name))
            try:
                identity = identity_of(path)
                found = examine(str(path), *ref)
                if isinstance(found, Manifest):
                    whole[ref] = path, found
                elif identity and identity_of(path) == identity:  # else joined meanwhile
                    yield damage(store, ref, path, identity, f"is a part that is {found}")
            except StoreError as error:
                yield unreadable(path, error, ref)


def _leases(store: Store, kind: str) -> Iterator[Finding]:
    root = store.root_of(kind)
    for owner in store.leases(kind):
        if not owner.may_be_alive:
            what = f"is held by a process that has ended: {owner}"
            advice = "the next run removes it; so does `saevx doctor --fix`"
            path = leases(root, kind) / owner.key
            fix = partial(_remove_lease, root, owner)
            yield Finding("warning", "orphans", str(path), what, advice, fix=fix)


def _remove_lease(root: Path, owner: LeaseOwner) -> bool:
    lease.remove_dead(root, owner)
    return True


def announcements(root: Path) -> Iterator[Finding]:
    folder = collectors(root)
    for name in (yield from names_of(folder)) or []:
        if not may_be_alive(ProcessId.parse(name.rpartition(".")[0])):
            what = "was left by a collection that has ended"
            fix = partial(_remove_file, folder / name)
            yield Finding("warning", "orphans", str(folder / name), what, fix=fix)


def _remove_file(file: Path) -> bool:
    with explained("remove", file):
        file.unlink(missing_ok=True)
    return True


def records(store: Store, roots: Sequence[Path], present: Collection[Ref]) -> Iterator[Finding]:
    """Check runs, pins and evicted manifests in the roots that can be entered.

    `present` are the artifacts in the store.
    """
    for root in roots:
        for folder in filter(holds_runs, (yield from names_of(runs(root))) or []):
            for name in filter(is_record, (yield from names_of(runs(root) / folder)) or []):
                yield from record(runs(root) / folder / name, Run)
        for name in filter(is_record, (yield from names_of(pins(root))) or []):
            pin = yield from record(pins(root) / name, Pin)
            if pin and root == store.root and pin.ref not in present:
                what = f"pins {pin.kind} {pin.key[:8]}, which is not in the store"
                advice = "`saevx unpin` removes it"
                yield Finding("warning", "records", str(pins(root) / name), what, advice)
    if store.root not in roots:
        return
    kinds = yield from names_of(dropped(store.root, KINDS[0]).parent)
    for kind in filter(set(kinds or []).__contains__, KINDS):
        for name in filter(is_record, (yield from names_of(dropped(store.root, kind))) or []):
            try:
                evicted_manifest(store, kind, name.removesuffix(".json"))
            except StoreError as error:
                yield unreadable(dropped(store.root, kind) / name, error)
