"""Check that a manifest is consistent, and that the files of an artifact have their sizes."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from store.artifact.manifest import Manifest, size_fault
from store.io import digest
from store.layout import Ref


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
