"""Copy artifacts from one store to another: the same bytes, verified, under the same key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from store.artifact.manifest import Manifest, decode_manifest
from store.artifact.publish import publish
from store.artifact.staging import remove_dead_builds
from store.errors import CorruptArtifact, StoreError
from store.io import (
    digest,
    explained,
    make_folders,
    read_blocks,
    remove_tree,
    sync_folder,
    write_file,
)
from store.layout import NODE_FILE, build_name, builds, home, is_inside
from store.locks.process import ProcessId
from store.store import Store

Progress = Callable[[int], None]
"""Called with the number of bytes just copied."""


def copy(
    source: Store, target: Store, kind: str, key: str, progress: Progress | None = None
) -> bool:
    """Copy an artifact; return False where the target has it already.

    Every byte is compared with its digest while it is copied. The copy is published by one rename,
    once it is complete and durable. Raises MissingArtifact and CorruptArtifact where the source
    does not hold the artifact whole, and StoreError where the target holds another spec under that
    key.
    """
    artifact = source.open(kind, key)
    file = artifact.path / NODE_FILE
    with explained("read", file):
        data = file.read_bytes()
    manifest = decode_manifest(data, str(file))
    _check(manifest, artifact.path)
    present = target.find(kind, key)
    if present is not None:
        _compare(present.manifest, manifest, present.path)
        return False
    root, place = target.root_of(kind), home(target.root_of(kind), kind, key)
    remove_dead_builds(root, kind, key)
    build = builds(root, kind) / build_name(key, str(ProcessId.here()))
    make_folders(build)
    try:
        _copy_files(artifact.path, build, manifest, progress)
        write_file(build / NODE_FILE, [data])
        sync_folder(build)
        _compare(publish(build, place, root, manifest), manifest, place)
        return True
    finally:
        remove_tree(build)


def _check(manifest: Manifest, path: Path) -> None:
    """Raise CorruptArtifact where a manifest, which anyone may have written, is not consistent."""
    if digest(manifest.canonical.encode()) != manifest.key:
        raise CorruptArtifact(f"{path} is not copied: its key is not the digest of its spec")
    for name in manifest.files:
        if not is_inside(name):
            raise CorruptArtifact(f"{path} is not copied: it names a file {name!r} outside of it")


def _compare(theirs: Manifest, ours: Manifest, path: Path) -> None:
    if theirs.canonical != ours.canonical:
        raise StoreError(
            f"{path} holds another spec under the same key: {theirs.canonical}, and this one is "
            f"{ours.canonical}. Nothing was copied"
        )


def _copy_files(source: Path, build: Path, manifest: Manifest, progress: Progress | None) -> None:
    folders = {build}
    for name, record in manifest.files.items():
        folder = (build / name).parent
        while folder not in folders:
            make_folders(folder)
            folders.add(folder)
            folder = folder.parent
        with explained("read", source / name):
            written = write_file(build / name, _reported(read_blocks(source / name), progress))
        if written != record:
            raise CorruptArtifact(
                f"{source / name} is not copied: it is not as it was written, its digest differs. "
                "`saevx doctor --deep` on that store finds everything that is damaged"
            )
    for folder in folders:
        sync_folder(folder)


def _reported(blocks: Iterable[memoryview], progress: Progress | None) -> Iterator[memoryview]:
    for block in blocks:
        yield block
        if progress:
            progress(len(block))
