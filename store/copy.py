"""Copies of artifacts from one store to another: the same bytes, checked, under the same key."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from store.artifact.manifest import Manifest, decode_manifest
from store.artifact.publish import publish
from store.artifact.staging import remove_dead_builds
from store.errors import CorruptArtifact, StoreError
from store.io import NewFile, digest, explained, make_folders, remove_tree, sync_folder
from store.layout import NODE_FILE, build_name, builds, home, is_inside
from store.locks.process import ProcessId
from store.store import Store

BLOCK = 4 << 20

Progress = Callable[[int], None]
"""Called with the number of bytes just copied."""


def copy(
    source: Store, target: Store, kind: str, key: str, progress: Progress | None = None
) -> bool:
    """Copies an artifact; False when the target has it already.

    Every byte is compared with its digest on the way, and what comes in is published as if it had
    been made there: by one rename, once it is whole and durable. Raises MissingArtifact and
    CorruptArtifact where the source does not have it whole, and StoreError when the target holds
    another spec under that key.
    """
    artifact = source.open(kind, key)
    with explained("read", artifact.path / NODE_FILE):
        data = (artifact.path / NODE_FILE).read_bytes()
    manifest = decode_manifest(data, str(artifact.path / NODE_FILE))
    _check(manifest, artifact.path)
    there = target.find(kind, key)
    if there is not None:
        _compare(there.manifest, manifest, there.path)
        return False
    root = target.root_of(kind)
    remove_dead_builds(root, kind, key)
    build = builds(root, kind) / build_name(key, str(ProcessId.here()))
    make_folders(build.parent)
    with explained("create the folder", build):
        os.mkdir(build)
    try:
        _copy_files(artifact.path, build, manifest, progress)
        new = NewFile(build / NODE_FILE)
        try:
            new.write(data)
            new.close()
        finally:
            new.abandon()
        sync_folder(build)
        standing = publish(build, home(root, kind, key), root, manifest)
        _compare(standing, manifest, home(root, kind, key))
        return True
    finally:
        remove_tree(build)


def _check(manifest: Manifest, path: Path) -> None:
    """What comes from elsewhere is believed only as far as it can be checked."""
    if digest(manifest.canonical.encode()) != manifest.key:
        raise CorruptArtifact(f"{path} is not copied: its key is not the digest of its spec")
    for name in manifest.files:
        if not is_inside(name):
            raise CorruptArtifact(f"{path} is not copied: it names a file {name!r} outside of it")


def _compare(there: Manifest, ours: Manifest, path: Path) -> None:
    if there.canonical != ours.canonical:
        raise StoreError(
            f"{path} holds another spec under the same key: {there.canonical} where this one is "
            f"{ours.canonical}. This one is not copied"
        )


def _copy_files(source: Path, build: Path, manifest: Manifest, progress: Progress | None) -> None:
    folders = {build}
    for name, record in manifest.files.items():
        target = build / name
        for folder in reversed(target.relative_to(build).parents):
            if (build / folder) not in folders:
                with explained("create the folder", build / folder):
                    os.mkdir(build / folder)
                folders.add(build / folder)
        new = NewFile(target)
        try:
            with explained("read", source / name), open(source / name, "rb", buffering=0) as file:
                while block := file.read(BLOCK):
                    new.write(block)
                    if progress:
                        progress(len(block))
            written = new.close()
        finally:
            new.abandon()
        if written != record:
            raise CorruptArtifact(
                f"{source / name} is not as it was written: its digest differs, so this "
                "artifact is not copied; `saevx doctor --deep` on that store finds all that is "
                "damaged"
            )
    for folder in folders:
        sync_folder(folder)
