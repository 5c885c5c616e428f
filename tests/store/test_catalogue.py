"""The catalogue lists what a scan of the store lists, whatever happens to either."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from store import LAYOUT, Manifest, Store, StoreError
from store.artifact.manifest import encode_manifest
from store.index import reader as reader_module
from store.index.catalogue import Catalogue, Entry
from store.index.reader import Scalar

pytestmark = pytest.mark.usefixtures("no_fsync")


TICK_S = 0.01
"""Wait for the next tick of the file system's clock: 4 ms on many Linux systems."""


def describe(manifest: Manifest) -> dict[str, Scalar]:
    return {"n": manifest.spec["n"], **manifest.attributes}


def listed(store: Store) -> list[Entry]:
    return Catalogue(store, describe, "test-1").entries()


def scanned(store: Store) -> list[tuple[Any, ...]]:
    """The entries that the catalogue must list, from the manifests."""
    return [
        (m.kind, m.key, m.type, m.version, artifact.n_bytes, m.created, describe(m))
        for artifact in store.scan()
        for m in [artifact.manifest]
    ]


def told(store: Store) -> list[tuple[Any, ...]]:
    return [(*entry[:6], entry.facts()) for entry in listed(store)]


@pytest.fixture
def put(make: Any) -> Callable[..., Any]:
    """Publishes an artifact with some facts."""

    def put(store: Store, key: str, kind: str = "results", n: int = 1, **attributes: Any) -> Any:
        time.sleep(TICK_S)
        return make(store, key, kind, spec={"n": n}, attributes=attributes)

    return put


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders count as settled at once, as if they had been written yesterday."""
    monkeypatch.setattr(reader_module, "SETTLED_NS", -3_600_000_000_000)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Folders whose manifests were read."""
    seen: list[str] = []
    read = reader_module.read_manifest

    def noted(folder: str) -> Manifest | None:
        seen.append(Path(folder).name)
        return read(folder)

    monkeypatch.setattr(reader_module, "read_manifest", noted)
    return seen


def key_of(n: int) -> str:
    return f"{n:032x}"


def on_shelf(shelf: int, n: int) -> str:
    return f"{shelf:02x}{n:030x}"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("trusting", [False, True])
def test_it_lists_what_a_scan_lists(
    store: Store, put: Any, seed: int, trusting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random changes to a store. With `trusting`, prefix folders count as settled at once."""
    if trusting:
        monkeypatch.setattr(reader_module, "SETTLED_NS", -3_600_000_000_000)
    choose = random.Random(seed)
    for step in range(40):
        time.sleep(TICK_S)
        key = on_shelf(choose.randrange(3), choose.randrange(6))
        kind = choose.choice(["results", "shards"])
        place = store.root / kind / key[:2] / key
        match choose.choice(["put", "put", "put", "remove", "replace", "damage", "strip", "cut"]):
            case "put":
                put(store, key, kind, n=step, **{choose.choice("ab"): step / 3})
            case "remove":
                shutil.rmtree(place, ignore_errors=True)
            case "replace":
                shutil.rmtree(place, ignore_errors=True)
                put(store, key, kind, n=-step)
            case "damage" if place.exists():
                shutil.rmtree(place)
                place.mkdir()
                (place / "zarr.json").write_bytes(b"{}")
            case "strip" if place.exists():
                shutil.rmtree(place)
                place.mkdir()
            case "cut":
                for file in store.root.glob("*/.catalogue/*"):
                    file.write_bytes(file.read_bytes()[: choose.randrange(200)])
        if step % 2:
            assert told(store) == scanned(store)
    assert told(store) == scanned(store)


def test_nothing_is_read_twice(store: Store, put: Any, settled: None, reads: list[str]) -> None:
    for n in range(20):
        put(store, on_shelf(n % 5, n))
    assert len(listed(store)) == 20
    assert len(reads) == 20
    reads.clear()
    assert len(listed(store)) == 20
    assert reads == []
    new = on_shelf(3, 99)
    put(store, new)
    assert len(listed(store)) == 21
    assert reads == [new]


def test_changes_within_a_tick_of_the_clock_are_seen(
    store: Store, put: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system whose times have steps of two seconds."""
    step = 2_000_000_000
    monkeypatch.setattr(
        reader_module,
        "_stamp_of",
        lambda stat: (stat.st_mtime_ns // step * step, stat.st_ctime_ns // step * step),
    )
    for n in range(12):
        put(store, on_shelf(0, n))
        assert len(listed(store)) == n + 1
        shutil.rmtree(store.root / "results" / "00" / on_shelf(0, n))
        put(store, on_shelf(0, n), n=n)
        assert [entry.facts()["n"] for entry in listed(store)] == list(range(n + 1))


def test_a_clock_ahead_of_the_file_server_is_not_used(
    store: Store, put: Any, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    put(store, key_of(1))
    listed(store)
    reads.clear()
    listed(store)
    assert reads == [key_of(1)]  # it has just come, by the server's clock


@pytest.mark.parametrize("how", ["deleted", "empty", "short", "flipped", "longer", "garbage"])
def test_a_damaged_catalogue_is_rewritten(
    store: Store, put: Any, settled: None, reads: list[str], how: str
) -> None:
    for n in range(3):
        put(store, key_of(n), n=n)
    expected = told(store)
    (file,) = (store.root / "results" / ".catalogue").glob("*.msgpack")
    whole = file.read_bytes()
    harmed = {
        "deleted": [None],
        "empty": [b""],
        "short": [whole[:at] for at in range(0, len(whole), 37)],
        "flipped": [
            whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :]
            for at in range(0, len(whole), 11)
        ],
        "longer": [whole + b"\0"],
        "garbage": [os.urandom(1000), b"\xff" * 10, b"saevx catalogue 1\n" + b"0" * 40],
    }[how]
    for data in harmed:
        file.unlink() if data is None else file.write_bytes(data)
        reads.clear()
        assert told(store) == expected
        assert len(reads) == 3
        reads.clear()
        assert told(store) == expected
        assert reads == []
    assert [path.name for path in file.parent.iterdir() if path.name != ".clock"] == [file.name]


def test_a_catalogue_of_another_form_is_not_changed(
    store: Store, put: Any, settled: None, reads: list[str]
) -> None:
    put(store, key_of(1))
    listed(store)
    other = Catalogue(store, lambda manifest: {"type again": manifest.type}, "test-2")
    assert other.entries()[0].facts() == {"type again": "Thing"}
    reads.clear()
    assert listed(store)[0].facts() == {"n": 1}
    assert other.entries()[0].facts() == {"type again": "Thing"}
    assert reads == []


def test_a_catalogue_of_another_store_is_ignored(
    store: Store, tmp_path: Path, put: Any, settled: None
) -> None:
    put(store, key_of(1), n=1)
    listed(store)
    copy = Store(tmp_path / "copy")
    shutil.copytree(store.root, copy.root)  # with all times, as `cp -a` does
    shutil.rmtree(copy.root / "results" / "00" / key_of(1))
    put(copy, key_of(1), n=2)
    put(copy, key_of(2), n=3)
    os.utime(
        copy.root / "results" / "00", ns=(0, os.stat(store.root / "results" / "00").st_mtime_ns)
    )
    assert [entry.facts()["n"] for entry in listed(copy)] == [2, 3]


def test_a_store_that_cannot_be_written_to_is_listed(
    store: Store, put: Any, settled: None, reads: list[str]
) -> None:
    put(store, key_of(1))
    (store.root / "results" / ".catalogue").write_bytes(b"in the way")
    for _ in range(2):
        assert [entry.key for entry in listed(store)] == [key_of(1)]
    assert reads == [key_of(1)] * 2
    assert (store.root / "results" / ".catalogue").read_bytes() == b"in the way"


def test_listing_does_not_create_a_store(tmp_path: Path) -> None:
    assert listed(Store(tmp_path / "nowhere")) == []
    assert list(tmp_path.iterdir()) == []


def test_few_changes_do_not_rewrite_the_catalogue(
    store: Store, put: Any, settled: None, reads: list[str]
) -> None:
    for n in range(40):
        put(store, on_shelf(n, n))
    listed(store)
    (file,) = (store.root / "results" / ".catalogue").glob("*.msgpack")
    before = file.read_bytes()
    put(store, on_shelf(0, 100))
    for _ in range(2):
        reads.clear()
        assert len(listed(store)) == 41
        assert reads == [on_shelf(0, 100)]
    assert file.read_bytes() == before
    for n in range(3):
        put(store, on_shelf(n + 1, 100))
    listed(store)
    assert file.read_bytes() != before


def test_an_artifact_repaired_in_place_is_seen(store: Store, put: Any, settled: None) -> None:
    """As by a copy from a backup, which does not change the times of the prefix folder."""
    file = put(store, key_of(1)).path / "zarr.json"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert listed(store) == []
    time.sleep(TICK_S)
    file.write_bytes(whole)
    assert [entry.key for entry in listed(store)] == [key_of(1)]


def test_other_files_and_damaged_artifacts_are_not_listed(store: Store, put: Any) -> None:
    put(store, key_of(1))
    shelf = store.root / "results" / "00"
    for name in ("notes", "0" * 31, "f" * 32, "A" * 32, ".hidden"):
        (shelf / name).mkdir()
        shutil.copy(shelf / key_of(1) / "zarr.json", shelf / name)
    shutil.copytree(shelf / key_of(1), shelf / key_of(2))  # the manifest is another's
    shutil.copytree(put(store, key_of(3), "shards").path, shelf / key_of(3))
    (store.root / "results" / "README").write_text("notes")
    (store.root / "results" / "zz").mkdir()
    assert [(entry.kind, entry.key) for entry in listed(store)] == [
        ("shards", key_of(3)),
        ("results", key_of(1)),
    ]


def test_newer_layouts_are_reported_and_not_remembered(store: Store, put: Any) -> None:
    whole, artifact = put(store, key_of(1)), put(store, key_of(2))
    newer = msgspec.structs.replace(artifact.manifest, layout=LAYOUT + 1)
    file = artifact.path / "zarr.json"
    before = file.read_bytes()
    file.write_bytes(encode_manifest(newer))
    for _ in range(2):
        entries, (found,) = Catalogue(store, describe, "test-1").contents()
        assert [entry.key for entry in entries] == [whole.key]
        assert artifact.key in str(found)
        assert str(found).endswith("Upgrade saevx, or use another store")
        assert Catalogue(store, describe, "test-1").entries() == entries
    file.write_bytes(before)  # as if this saevx could read it by now
    assert [entry.key for entry in listed(store)] == [whole.key, artifact.key]


def test_an_unreadable_store_is_an_error(
    store: Store, put: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, key_of(1))

    def denied(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    for call in ("listdir", "stat"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, denied)
            with pytest.raises(StoreError, match="permission denied"):
                listed(store)


def test_processes_may_list_while_others_publish(
    store: Store, put: Any, in_child: Callable[[Callable[[], object]], int]
) -> None:
    def work(me: int) -> None:
        for n in range(12):
            put(store, on_shelf(n % 2, 100 * me + n), n=me)
            keys = {entry.key for entry in listed(store)}
            assert {on_shelf(m % 2, 100 * me + m) for m in range(n + 1)} <= keys

    children = []
    for me in range(1, 4):
        pid = os.fork()
        if pid == 0:
            os._exit(in_child(lambda me=me: work(me)))  # type: ignore[misc]
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    assert told(store) == scanned(store)
    assert len(listed(store)) == 36


def test_it_costs_no_heavy_import(store: Store, put: Any) -> None:
    put(store, key_of(1))
    code = f"""
import sys
from store import Store
from store.index.catalogue import Catalogue
found = Catalogue(Store({str(store.root)!r}), lambda manifest: {{"n": 1}}, "test-1").entries()
assert found[0].facts() == {{"n": 1}}
heavy = {{"numpy", "polars", "zarr", "google_crc32c", "torch", "pydantic"}}
print(sorted(heavy & set(sys.modules)))
"""
    room = str(Path(__file__).parents[2])
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=room, check=True
    )
    assert run.stdout == "[]\n"
