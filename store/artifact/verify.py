"""Check an artifact: that its manifest is consistent, and that its files are as written."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from store.artifact.manifest import Manifest, decode_manifest
from store.errors import CorruptArtifact
from store.io import FileRecord, digest, digest_file, explained, read_file
from store.layout import NODE_FILE, Ref
from store.network_caches import stat_opened

_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
ABSENT = "not in the store"


def examine(folder: str, kind: str, key: str) -> Manifest | str:
    """Return the manifest of the complete artifact in a folder, else the reason why it is not one.

    Complete: the manifest is as written, has this kind and key, and every file that it lists exists
    with its size. Costs one read and a stat per file. Raises NewerLayout and StoreError.
    """
    # One context for all steps: a run may examine 20,000 artifacts.
    with explained("read", folder):
        try:
            at = os.open(folder, _FOLDER)
        except (FileNotFoundError, NotADirectoryError):
            if os.path.isdir(folder):  # moved away and put back at this moment
                return examine(folder, kind, key)
            there = os.path.lexists(folder)
            return "damaged: it has no manifest" if there else ABSENT
        try:
            return _examine(folder, at, kind, key)
        finally:
            os.close(at)


def _examine(folder: str, at: int, kind: str, key: str) -> Manifest | str:
    """As `examine`. `at` is the open folder, below which names are resolved faster."""
    try:
        data = read_file(NODE_FILE, at)
    except (FileNotFoundError, NotADirectoryError):
        return "damaged: it has no manifest"
    try:
        manifest = decode_manifest(data, f"{folder}/{NODE_FILE}")
    except CorruptArtifact as error:
        return f"damaged: {error}"
    if (manifest.kind, manifest.key) != (kind, key):
        return f"damaged: its manifest is that of {manifest.kind}/{manifest.key}"
    for name, record in manifest.files.items():
        try:
            whole = os.stat(name, dir_fd=at).st_size == record.size
        except (FileNotFoundError, NotADirectoryError):
            whole = False
        if not whole and (fault := size_fault(folder, name, record)):
            return f"damaged: {fault}"
    return manifest


def size_fault(folder: str, name: str, record: FileRecord) -> str | None:
    """Return what is wrong with the size of a file, None if nothing. Raises OSError."""
    try:
        size = stat_opened(f"{folder}/{name}").st_size
    except (FileNotFoundError, NotADirectoryError):
        return f"{name} is missing"
    if size == record.size:
        return None
    n = abs(size - record.size)
    return f"{name} is {n} byte{'s' * (n > 1)} {'short' if size < record.size else 'too long'}"


def byte_fault(folder: str, name: str, record: FileRecord) -> str | None:
    """Read a whole file and return what is wrong with it, None if nothing. Raises OSError."""
    if fault := size_fault(folder, name, record):
        return fault
    same = digest_file(f"{folder}/{name}") == record
    return None if same else f"{name} has altered bytes: its digest differs"


def files_in(folder: Path) -> set[str]:
    """Return the paths of all files below a folder, relative to it."""
    return {
        os.path.relpath(os.path.join(place, name), folder)
        for place, _, names in os.walk(folder)
        for name in names
    }


def manifest_fault(manifest: Manifest, ref: Ref) -> str | None:
    """Return what is inconsistent in a manifest, None if nothing."""
    if (manifest.kind, manifest.key) != ref:
        return f"its manifest is that of {manifest.kind}/{manifest.key}"
    if digest(manifest.canonical.encode()) != manifest.key:
        return "its key is not the digest of its spec"
    try:
        body = msgspec.json.decode(manifest.canonical, type=_Canonical)
    except msgspec.DecodeError as error:
        return f"its spec cannot be decoded: {error}"
    if (body.type, body.version) != (manifest.type, manifest.version):
        return (
            f"it calls itself {manifest.type} version {manifest.version}, but its spec is "
            f"{body.type} version {body.version}"
        )
    return None


class _Canonical(msgspec.Struct):
    type: str
    version: int


def file_faults(path: Path, manifest: Manifest) -> tuple[list[str], list[str]]:
    """Return the faults of file sizes, and the files that cannot be read."""
    faults: list[str] = []
    unreadable: list[str] = []
    for name, record in manifest.files.items():
        try:
            if fault := size_fault(str(path), name, record):
                faults.append(fault)
            elif not os.access(path / name, os.R_OK):
                unreadable.append(name)
        except OSError as error:
            unreadable.append(f"{name} ({error.strerror})")
    return faults, unreadable
