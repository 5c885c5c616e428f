"""Copies between stores: the same bytes under the same key, or nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store import CorruptArtifact, MissingArtifact, Store, StoredArtifact, StoreError
from store.artifact.manifest import Manifest, encode_manifest
from store.copy import copy
from store.gc.scan import below
from store.io import digest
from store.layout import owner_of
from store.locks.process import ProcessId

pytestmark = pytest.mark.usefixtures("no_fsync")


@pytest.fixture
def target(tmp_path: Path) -> Store:
    return Store(tmp_path / "target", {"shards": tmp_path / "scratch"})


def thing(
    store: Store, make: Any, n: int = 1, kind: str = "results", **changes: Any
) -> StoredArtifact:
    canonical = f'{{"n":{n}}}'
    made: StoredArtifact = make(
        store, digest(canonical.encode()), kind, canonical=canonical, **({"parents": {}} | changes)
    )
    return made


def content(artifact: StoredArtifact) -> dict[str, bytes]:
    files = (path for path in artifact.path.rglob("*") if path.is_file())
    return {str(path.relative_to(artifact.path)): path.read_bytes() for path in files}


def left_over(store: Store) -> list[str]:
    found = [path for path in store.root.rglob(".build/*")] if store.root.exists() else []
    return [path.name for path in found]


def test_a_copy_in_progress_bears_the_name_of_its_process(
    store: Store, target: Store, make: Any
) -> None:
    """So that a later copy removes it if this process dies."""
    made = thing(store, make)
    seen: set[str] = set()
    copy(store, target, "results", made.key, lambda n_bytes: seen.update(left_over(target)))
    (name,) = seen
    assert name.startswith(f"{made.key}.")
    assert ProcessId.parse(owner_of(name)) == ProcessId.here()


@pytest.mark.parametrize("kind", ["results", "shards"])
def test_a_copy_is_the_same_bytes(store: Store, target: Store, make: Any, kind: str) -> None:
    made = thing(store, make, kind=kind)
    seen: list[int] = []
    assert copy(store, target, kind, made.key, seen.append)
    there = target.open(kind, made.key)
    assert there.path.is_relative_to(target.root_of(kind))
    assert content(there) == content(made)
    assert there.verify() == []
    assert sum(seen) == made.n_bytes
    assert not copy(store, target, kind, made.key)
    assert left_over(target) == []


def test_every_damaged_file_is_refused(store: Store, target: Store, make: Any) -> None:
    made = thing(store, make)
    for name in made.manifest.files:
        file = made.path / name
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(CorruptArtifact, match="digest differs"):
            copy(store, target, "results", made.key)
        file.write_bytes(whole[:-1])
        with pytest.raises(MissingArtifact, match="1 byte short"):
            copy(store, target, "results", made.key)
        file.write_bytes(whole)
    assert list(target.keys("results")) == []
    assert left_over(target) == []
    with pytest.raises(MissingArtifact):
        copy(store, target, "results", "0" * 32)


def test_a_damaged_copy_is_replaced(store: Store, target: Store, make: Any) -> None:
    made = thing(store, make)
    copy(store, target, "results", made.key)
    (target.open("results", made.key).path / "patches" / "c.0.0.0").unlink()
    assert copy(store, target, "results", made.key)
    assert target.open("results", made.key).verify() == []


def test_another_spec_under_the_key_is_an_error(store: Store, target: Store, make: Any) -> None:
    made = thing(store, make)
    make(target, made.key, canonical="another")
    with pytest.raises(StoreError, match="another spec under the same key"):
        copy(store, target, "results", made.key)


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "a/../../evil", "", "a//b", "./x"])
def test_nothing_is_written_outside(store: Store, target: Store, make: Any, name: str) -> None:
    made = thing(store, make)
    outside = made.path / name
    record = made.manifest.files["patches/zarr.json"]
    fields = {f: getattr(made.manifest, f) for f in Manifest.__struct_fields__}
    manifest = Manifest(**(fields | {"files": {name: record}}))
    (made.path / "zarr.json").write_bytes(encode_manifest(manifest))
    if name.startswith(".."):
        outside.write_bytes((made.path / "patches" / "zarr.json").read_bytes())
    with pytest.raises((CorruptArtifact, MissingArtifact)):
        copy(store, target, "results", made.key)
    assert not target.root.exists() or list(target.root.rglob("*evil*")) == []


def test_a_key_that_is_not_the_digest_of_the_spec_is_refused(
    store: Store, target: Store, make: Any
) -> None:
    make(store, "0" * 32)
    with pytest.raises(CorruptArtifact, match="not the digest of its spec"):
        copy(store, target, "results", "0" * 32)


@pytest.mark.slow
def test_an_interrupted_copy_leaves_nothing_visible(
    store: Store, target: Store, make: Any, in_child: Any
) -> None:
    made = thing(store, make)
    n, code = 0, 137
    while code == 137:
        n += 1

        def work() -> None:
            calls = 0
            for name in ("mkdir", "open", "write", "fsync", "rename"):
                real = getattr(os, name)

                def wrapped(*args: Any, real: Any = real, **kwargs: Any) -> Any:
                    nonlocal calls
                    calls += 1
                    if calls == n:  # noqa: B023
                        os.kill(os.getpid(), 9)
                    return real(*args, **kwargs)

                setattr(os, name, wrapped)
            copy(store, target, "results", made.key)

        code = in_child(work)
        found = target.find("results", made.key)
        if found is not None:
            assert found.verify() == []
            shutil.rmtree(found.path)
    assert n > 30
    assert copy(store, target, "results", made.key)
    assert left_over(target) == []


def test_below_is_what_an_artifact_was_made_from(store: Store, make: Any) -> None:
    def refs(*artifacts: StoredArtifact) -> dict[str, dict[str, str]]:
        return {f"p{i}": {"kind": a.kind, "key": a.key} for i, a in enumerate(artifacts)}

    shards = thing(store, make, 1, "shards")
    left, right = (thing(store, make, n, "checkpoints", parents=refs(shards)) for n in (2, 3))
    table = thing(store, make, 4, parents=refs(left, right))
    found = below(store, ("results", table.key))
    assert found[0] == ("results", table.key)
    assert sorted(found) == sorted((a.kind, a.key) for a in (shards, left, right, table))


def test_results_survive_the_purge_of_shards(target: Store, make: Any) -> None:
    shards = thing(target, make, 1, "shards")
    parents = {"shards": {"kind": "shards", "key": shards.key}}
    table = thing(target, make, 2, parents=parents)
    shutil.rmtree(target.root_of("shards"))
    assert target.find("shards", shards.key) is None
    found = target.open("results", table.key)
    assert found.verify() == []
    assert np.array_equal(found.array("a group/ids").read(), np.arange(5))
    assert thing(target, make, 1, "shards").verify() == []  # and can be made again
