"""Publishing: one winner, nothing replaced, everything durable before it is visible."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store import Store, StoreError
from store.copy import copy
from store.io import digest, replace_file

pytestmark = pytest.mark.usefixtures("no_fsync")


def damage(artifact: Any) -> None:
    (artifact.path / "patches" / "c.1.0.0").unlink()


def test_an_artifact_reads_back_as_written(store: Store, key: str, make: Any) -> None:
    made = make(store, key, attributes={"d_model": 384, "mean": (0.5, None, "x")})
    for artifact in (made, store.open("results", key)):
        assert artifact.path == store.root / "results" / key[:2] / key
        assert artifact.manifest == made.manifest
        assert artifact.manifest.attributes == {"d_model": 384, "mean": [0.5, None, "x"]}
        assert artifact.manifest.parents["shards"].key == "f" * 32
        assert artifact.arrays() == ["a group/ids", "patches"]
        assert artifact.array("a group/ids").attributes == {"unit": "images"}
        assert artifact.verify() == []


def test_a_second_draft_returns_the_first_artifact(
    store: Store, key: str, make: Any, publish: Any, entries: Any
) -> None:
    first = make(store, key, attributes={"by": 1})
    with store.draft("results", key) as draft:
        draft.write("other", np.zeros(1))
        second = publish(draft, attributes={"by": 2})
    assert second.manifest == first.manifest
    assert store.open("results", key).arrays() == ["a group/ids", "patches"]
    assert entries(store, ".build") == entries(store, ".trash") == []


def test_another_spec_under_the_same_key_is_an_error(store: Store, key: str, make: Any) -> None:
    make(store, key)
    with pytest.raises(StoreError, match="same key"):
        make(store, key, canonical='{"n":2}')


def test_a_damaged_artifact_is_moved_to_the_trash(
    store: Store, key: str, make: Any, entries: Any
) -> None:
    old = make(store, key, attributes={"by": 1})
    damage(old)
    new = make(store, key, attributes={"by": 2})
    assert new.manifest.attributes == {"by": 2}
    assert store.open("results", key).verify() == []
    (name,) = entries(store, ".trash")
    assert name.startswith(f"{key}.20")
    assert (store.root / "results" / ".trash" / name / "patches" / "c.0.0.0").exists()


@pytest.mark.parametrize("what", ["a file", "an empty folder", "a folder", "a dangling link"])
def test_anything_in_its_place_is_moved_to_the_trash(
    store: Store, key: str, make: Any, what: str
) -> None:
    place = store.root / "results" / key[:2] / key
    place.parent.mkdir(parents=True)
    match what:
        case "a file":
            place.write_text("mine")
        case "a dangling link":
            place.symlink_to("nowhere")
        case _:
            place.mkdir()
            if what == "a folder":
                (place / "notes").write_text("mine")
    assert store.absence("results", key) == "damaged: it has no manifest"
    make(store, key)
    assert store.open("results", key).verify() == []


def race(store: Store, key: str, make: Any, n: int) -> list[Any]:
    """Publish the same key in n processes and return the attributes that each one got."""
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(n), context.SimpleQueue()

    def run(i: int) -> None:
        barrier.wait()
        answers.put(make(store, key, attributes={"by": i}).manifest.attributes)

    processes = [context.Process(target=run, args=(i,)) for i in range(n)]
    for process in processes:
        process.start()
    got = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    return got


def test_race_has_one_winner(store: Store, make: Any, entries: Any) -> None:
    for i in range(5):
        key = f"{i:032x}"
        winner = race(store, key, make, 6)
        assert winner == [winner[0]] * 6
        assert store.open("results", key).manifest.attributes == winner[0]
        assert store.open("results", key).verify() == []
    assert entries(store, ".build") == entries(store, ".trash") == []


def test_race_over_a_damaged_artifact(store: Store, make: Any, entries: Any) -> None:
    for i in range(5):
        key = f"{i:032x}"
        damage(make(store, key))
        race(store, key, make, 6)
        assert store.open("results", key).verify() == []
    assert entries(store, ".build") == []


def test_an_artifact_repaired_meanwhile_is_put_back(
    store: Store, key: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(make(store, key))
    rename, moves = os.rename, []

    def late(source: Path, target: Path) -> None:
        # We saw damage. Before we move it away, another process repairs it.
        if ".trash" in str(target) and not moves:
            moves.append(target)
            assert make(store, key, attributes={"by": "other"})
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    ours = make(store, key, attributes={"by": "us"})
    assert ours.manifest.attributes == {"by": "other"}
    assert store.open("results", key).manifest.attributes == {"by": "other"}


@pytest.mark.parametrize("way", ["made", "copied"])
def test_everything_is_on_disk_before_the_rename(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str
) -> None:
    key = digest(b'{"n":1}')
    source = Store(tmp_path / "source")
    make(source, key)
    log: list[tuple[str, str]] = []
    fsync, rename, write = os.fsync, os.rename, os.write

    def path_of(fd: int) -> str:
        return os.readlink(f"/proc/self/fd/{fd}")

    def logged_rename(source: Any, target: Any) -> None:
        log.append(("rename", str(source)))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", lambda fd: (log.append(("fsync", path_of(fd))), fsync(fd)))
    monkeypatch.setattr(
        os, "write", lambda *a: (log.append(("write", path_of(a[0]))), write(*a))[1]
    )
    monkeypatch.setattr(os, "rename", logged_rename)
    if way == "made":
        make(store, key)
    else:
        copy(source, store, "results", key)
    artifact = store.open("results", key)

    (at,) = [i for i, (what, _) in enumerate(log) if what == "rename"]
    build = log[at][1]
    last = {entry: i for i, entry in enumerate(log)}
    inside = [
        build,
        *(f"{build}/{path.relative_to(artifact.path)}" for path in artifact.path.rglob("*")),
    ]
    for path in inside:
        assert last["fsync", path] < at
        assert last.get(("write", path), -1) < last["fsync", path]
    manifest = last["write", f"{build}/zarr.json"]
    assert all(
        last["fsync", path] < manifest
        for path in inside
        if path not in (build, f"{build}/zarr.json")
    )
    root = store.root / "results"
    for folder in (root, root / key[:2], root / ".build"):
        assert last["fsync", str(folder)] > at


def test_new_folders_are_durable(
    store: Store, key: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = set()
    monkeypatch.setattr(os, "fsync", lambda fd: synced.add(os.readlink(f"/proc/self/fd/{fd}")))
    make(store, key)
    assert {str(store.root.parent), str(store.root), str(store.root / "results")} <= synced


@pytest.mark.parametrize("durable", [True, False])
def test_a_replaced_file_is_on_disk_before_and_its_name_after_the_rename(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, durable: bool
) -> None:
    file, log = tmp_path / "record.json", list[str]()
    replace = os.replace

    def logged_replace(source: Path, target: Path) -> None:
        log.append(f"{source.name} becomes {target.name}")
        replace(source, target)

    def logged_fsync(fd: int) -> None:
        log.append(f"flush {Path(os.readlink(f'/proc/self/fd/{fd}')).name}")

    monkeypatch.setattr(os, "replace", logged_replace)
    monkeypatch.setattr(os, "fsync", logged_fsync)
    for text in (b"old", b"new"):
        log.clear()
        replace_file(file, text[:1], text[1:], durable=durable)
        assert file.read_bytes() == text
        (rename,) = (entry for entry in log if "becomes" in entry)
        scratch = rename.partition(" ")[0]
        assert rename == f"{scratch} becomes record.json"
        assert log == (
            [f"flush {scratch}", rename, f"flush {tmp_path.name}"] if durable else [rename]
        )
    assert os.listdir(tmp_path) == ["record.json"]
