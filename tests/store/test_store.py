"""Find artifacts: complete ones are found, incomplete ones are absent for a stated reason."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from store import LAYOUT, MissingArtifact, NewerLayout, Store, StoreError
from store.artifact.manifest import encode_manifest

pytestmark = pytest.mark.usefixtures("no_fsync")

FILES = [
    "zarr.json",
    "a group/zarr.json",
    "a group/ids/zarr.json",
    "a group/ids/c.0",
    "patches/zarr.json",
    "patches/c.0.0.0",
    "patches/c.1.0.0",
]


def test_store_touches_nothing_until_it_is_written_to(tmp_path: Path, key: str) -> None:
    store = Store(tmp_path / "a" / "b", roots={"shards": tmp_path / "scratch"})
    assert store.find("shards", key) is None
    assert store.absence("shards", key) == "not in the store"
    assert list(store.scan()) == store.match("0") == []
    store.draft("shards", key)
    assert list(tmp_path.iterdir()) == []


def test_roots(tmp_path: Path, key: str, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    store = Store("here", roots={"shards": "~/scratch"})
    assert store.root == tmp_path / "here"
    assert store.root_of("results") == tmp_path / "here"
    assert store.root_of("shards") == tmp_path / "home" / "scratch"
    make(store, key, "shards")
    make(store, key, "results")
    assert (tmp_path / "home" / "scratch" / "shards" / key[:2] / key / "zarr.json").exists()
    assert [a.kind for a in store.match(key)] == ["shards", "results"]
    with pytest.raises(StoreError, match="not a kind"):
        Store("here", roots={"shard": "x"})


def test_missing_artifact_names_kind_key_and_root(store: Store, key: str) -> None:
    with pytest.raises(MissingArtifact) as error:
        store.open("results", key)
    for said in ("results", key, str(store.root), "not in the store"):
        assert said in str(error.value)
    assert (error.value.kind, error.value.key) == ("results", key)


@pytest.mark.parametrize(
    "key", ["", "a" * 31, "a" * 33, "A" * 32, "g" * 32, "../" + "a" * 29, "٣" * 32]
)
def test_invalid_keys_are_refused(store: Store, key: str) -> None:
    for use in (store.find, store.open, store.absence, store.draft):
        with pytest.raises(StoreError, match="not a key"):
            use("results", key)


@pytest.mark.parametrize("kind", ["", "..", "Results", ".build", "results/aa"])
def test_invalid_kinds_are_refused(store: Store, key: str, kind: str) -> None:
    for use in (store.find, store.open, store.absence, store.draft):
        with pytest.raises(StoreError, match="not a kind"):
            use(kind, key)
    with pytest.raises(StoreError, match="not a kind"):
        list(store.scan(kind))


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "harm", ["deleted", "emptied", "one byte short", "one byte more", "a folder"]
)
def test_any_damaged_file_makes_an_artifact_absent(
    store: Store, key: str, make: Any, file: str, harm: str
) -> None:
    artifact = make(store, key)
    path = artifact.path / file
    size = path.stat().st_size
    match harm:
        case "deleted":
            path.unlink()
        case "emptied":
            os.truncate(path, 0)
        case "one byte short":
            os.truncate(path, size - 1)
        case "one byte more":
            with path.open("ab") as stream:
                stream.write(b" ")
        case "a folder":
            path.unlink()
            path.mkdir()
            (path / "more").mkdir()
    if harm == "a folder" and file == "zarr.json":
        # Not for us to judge: reading it is an error of its own.
        with pytest.raises(StoreError, match="cannot read"):
            store.find("results", key)
        return
    assert store.find("results", key) is None
    reason = store.absence("results", key)
    assert reason is not None
    assert reason.startswith("damaged: ")
    assert file in reason or (file == "zarr.json" and "no manifest" in reason)
    if harm == "one byte short" and file != "zarr.json":
        assert reason == f"damaged: {file} is 1 byte short"
    with pytest.raises(MissingArtifact, match="damaged"):
        store.open("results", key)
    assert artifact.verify()
    assert make(store, key).verify() == []


def test_every_flipped_byte_is_found(store: Store, key: str, make: Any) -> None:
    artifact = make(store, key)
    assert sorted(FILES) == sorted(["zarr.json", *artifact.manifest.files])
    n = 0
    for file in FILES:
        path = artifact.path / file
        data = path.read_bytes()
        for at in range(0, len(data), 5):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
            if file == "zarr.json":
                assert store.find("results", key) is None
            else:
                found = store.find("results", key)
                assert found is not None
                assert [finding.split(" has ")[0] for finding in found.verify()] == [file]
            n += 1
        path.write_bytes(data)
    assert n > 500
    assert artifact.verify() == []


def test_verify_reports_unexpected_files(store: Store, key: str, make: Any) -> None:
    artifact = make(store, key)
    (artifact.path / "patches" / "c.2.0.0").write_bytes(b"")
    assert artifact.verify() == ["patches/c.2.0.0 is not in the manifest"]


def test_artifact_in_the_place_of_another_is_absent(store: Store, key: str, make: Any) -> None:
    artifact = make(store, key)
    other = artifact.path.parent / (key[:31] + "0")
    artifact.path.rename(other)
    assert store.absence("results", other.name) == f"damaged: its manifest is that of results/{key}"


def rewrite(artifact: Any, **changes: Any) -> None:
    manifest = msgspec.structs.replace(artifact.manifest, **changes)
    (artifact.path / "zarr.json").write_bytes(encode_manifest(manifest))


@pytest.mark.parametrize("changes", [{}, {"files": [1, 2], "key": None}])
def test_newer_layout_is_refused(store: Store, key: str, make: Any, changes: Any) -> None:
    rewrite(make(store, key), layout=LAYOUT + 1, **changes)
    for use in (store.find, store.open, store.absence):
        with pytest.raises(NewerLayout, match="Upgrade saevx"):
            use("results", key)
    with pytest.raises(NewerLayout):
        list(store.scan())
    with pytest.raises(NewerLayout):
        make(store, key)


def test_damaged_layout_number_is_damage(store: Store, key: str, make: Any) -> None:
    path = make(store, key).path / "zarr.json"
    path.write_bytes(path.read_bytes().replace(b'"layout": 1', b'"layout": 9'))
    assert store.find("results", key) is None


def test_manifest_with_other_fields(store: Store, key: str, make: Any) -> None:
    artifact = make(store, key)
    rewrite(artifact, files=None)
    assert "is not a manifest" in str(store.absence("results", key))


def test_an_unreadable_artifact_is_an_error(
    store: Store, key: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(store, key)

    def denied(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    for call in ("open", "stat"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, denied)
            with pytest.raises(StoreError, match="permission denied"):
                store.find("results", key)
    monkeypatch.setattr(os, "listdir", denied)
    with pytest.raises(StoreError, match="permission denied"):
        list(store.scan())


def test_scan_and_match(store: Store, key: str, make: Any) -> None:
    keys = sorted([key, "0" * 32, "01" + "f" * 30, "a" * 32])
    for one in keys:
        make(store, one)
    make(store, key, "shards")
    for name in ("README", "zz", "0f", "01/notes", f"01/{key}.old", "aa/.hidden"):
        (store.root / "results" / name).mkdir()
    make(store, "b" * 32)
    (store.root / "results" / "bb" / ("b" * 32) / "zarr.json").unlink()
    damaged = store.root / "results" / "aa" / ("a" * 32) / "patches" / "c.0.0.0"
    damaged.unlink()

    assert [a.key for a in store.scan("results")] == keys
    assert [(a.kind, a.key) for a in store.scan()] == [("shards", key)] + [
        ("results", k) for k in keys
    ]
    assert list(store.keys("results")) == [*keys, "b" * 32]
    assert [(a.kind, a.key) for a in store.match("01")] == [
        ("shards", key),
        ("results", key),
        ("results", "01" + "f" * 30),
    ]
    assert [a.key for a in store.match("0")] == [key, "0" * 32, key, "01" + "f" * 30]
    assert [a.kind for a in store.match(key)] == ["shards", "results"]
    assert store.match("0123f") == store.match("c") == []


@pytest.mark.parametrize("prefix", ["", "g", "A", "../", "0" * 33])
def test_invalid_prefixes_are_refused(store: Store, prefix: str) -> None:
    with pytest.raises(StoreError, match="begin a key"):
        store.match(prefix)


def test_finding_costs_no_heavy_import(store: Store, key: str, make: Any) -> None:
    make(store, key)
    code = f"""
import sys, store
s = store.Store({str(store.root)!r})
assert s.find("results", {key!r}).manifest.type == "Thing"
assert s.find("results", "f" * 32) is None
assert len(list(s.scan())) == len(s.match("0")) == 1
print(sorted({{"numpy", "polars", "zarr", "google_crc32c", "torch"}} & set(sys.modules)))
"""
    room = str(Path(__file__).parents[2])
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=room, check=True
    )
    assert run.stdout == "[]\n"


def test_advice_where_no_folder_can_be_created(tmp_path: Path, key: str) -> None:
    with (
        pytest.raises(StoreError, match=r"no folder can be created there\. Check the path"),
        Store("/proc/x").draft("results", key),
    ):
        pass
    (tmp_path / "file").touch()
    with (
        pytest.raises(StoreError, match="part of the path is a file"),
        Store(tmp_path / "file" / "store").draft("results", key),
    ):
        pass


@pytest.mark.parametrize("wrong", ["00", "xy"])
def test_a_copy_in_the_wrong_prefix_folder_is_not_listed(
    store: Store, key: str, make: Any, wrong: str
) -> None:
    made = make(store, key)
    shutil.copytree(made.path, store.root / "results" / wrong / key)
    assert list(store.keys("results")) == [key]
    assert [found.path for found in store.scan()] == [made.path]
    assert len(store.match(key[:1])) == 1
