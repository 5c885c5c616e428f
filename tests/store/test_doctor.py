"""The doctor: every altered byte, every missing file, and everything else that is not right."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from store import Store, StoredArtifact, network_caches
from store.artifact import verify
from store.artifact.manifest import Manifest, Reference, encode_manifest
from store.check.report import Finding
from store.check.store_check import StoreCheck
from store.gc.collector import _announced, collect
from store.gc.reachability import Reachability
from store.gc.roots import RunRecording, pin
from store.io import digest, names_in
from store.layout import builds, collectors, dropped, part_home, runs, trash, work
from store.trash.contents import entries

pytestmark = pytest.mark.usefixtures("no_fsync")


def thing(store: Store, n: int = 0, kind: str = "results", **changes: Any) -> StoredArtifact:
    """An artifact whose key is right, with arrays, a group and a table."""
    canonical = json.dumps({"type": "Thing", "version": 1, "fields": {"n": n}})
    with store.draft(kind, digest(canonical.encode())) as draft:
        with draft.array("acts", (40, 3), "f2", rows_per_chunk=5, rows_per_shard=20) as writer:
            writer.append(np.random.default_rng(n).standard_normal((40, 3)).astype("f2"))
        draft.write("group/ids", np.arange(10, dtype="i4"))
        draft.table("table", pl.DataFrame({"trait": ["a", "b", "a"], "ap": [0.5, None, 1.0]}))
        facts: dict[str, Any] = {"type": "Thing", "version": 1, "spec": {"n": n}, "parents": {}}
        return draft.publish(**(facts | {"canonical": canonical, "provenance": {}} | changes))


def files_of(artifact: StoredArtifact) -> list[Path]:
    return sorted(path for path in artifact.path.rglob("*") if path.is_file())


def look(store: Store, **options: Any) -> list[Finding]:
    return list(StoreCheck(store).findings(**options))


def errors(store: Store, **options: Any) -> list[str]:
    return [f"{f.topic}: {f.what}" for f in look(store, **options) if f.severity == "error"]


def rewrite(artifact: StoredArtifact, **changes: Any) -> None:
    """Another manifest, well made."""
    fields = {name: getattr(artifact.manifest, name) for name in Manifest.__struct_fields__}
    data = encode_manifest(Manifest(**(fields | changes)))
    (artifact.path / "zarr.json").write_bytes(data)


def test_nothing_is_wrong_with_a_store_as_it_is_written(store: Store) -> None:
    store.root.mkdir()
    assert look(store, deep=True) == []
    for n in range(3):
        thing(store, n, "shards")
    seen: list[tuple[int, int]] = []
    assert look(store, deep=True, progress=lambda done, total: seen.append((done, total))) == []
    total = sum(artifact.n_bytes for artifact in store.scan())
    assert seen[-1] == (total, total)


def test_every_flipped_byte_is_found(store: Store) -> None:
    """At least 500 positions over all files, each file's first and last bytes among them."""
    artifact = thing(store)
    rng = random.Random(0)
    places: list[tuple[Path, int]] = []
    for file in files_of(artifact):
        size = file.stat().st_size
        ends = {0, 1, size // 2, size - 2, size - 1}
        places += [(file, at) for at in sorted(ends | {rng.randrange(size) for _ in range(60)})]
    assert len(places) >= 500
    assert {file for file, _ in places} == set(files_of(artifact))
    for file, at in places:
        whole = file.read_bytes()
        altered = bytearray(whole)
        altered[at] ^= rng.randrange(1, 256)
        file.write_bytes(altered)
        found = [f for f in look(store, deep=True) if f.severity == "error"]
        assert len(found) == 1, (file, at)
        assert found[0].where == str(artifact.path)
        file.write_bytes(whole)
    assert look(store, deep=True) == []


def test_every_file_cut_short_grown_or_gone_is_found_without_reading_them(store: Store) -> None:
    artifact = thing(store)
    for file in files_of(artifact):
        whole = file.read_bytes()
        for data in (whole[:-1], whole[: len(whole) // 2], b"", whole + b"\0", None):
            file.unlink() if data is None else file.write_bytes(data)
            (what,) = errors(store)
            assert what.startswith("damaged: ")
            assert store.find("results", artifact.key) is None  # absent for the next run, too
            file.write_bytes(whole)
    assert errors(store) == []


def other_kind(artifact: StoredArtifact) -> None:
    rewrite(artifact, kind="shards")


def other_spec(artifact: StoredArtifact) -> None:
    rewrite(artifact, canonical=artifact.manifest.canonical.replace("0", "1"))


def other_version(artifact: StoredArtifact) -> None:
    rewrite(artifact, version=2)


def other_type(artifact: StoredArtifact) -> None:
    rewrite(artifact, type="Other")


def wrong_place(artifact: StoredArtifact) -> None:
    place = artifact.path.parent.parent / "00" / artifact.key
    place.parent.mkdir()
    artifact.path.rename(place)


def a_file_in_its_place(artifact: StoredArtifact) -> None:
    shutil.rmtree(artifact.path)
    artifact.path.write_text("mine")


def newer(artifact: StoredArtifact) -> None:
    rewrite(artifact, layout=2)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (other_kind, "its manifest is that of shards/"),
        (other_spec, "its key is not the digest of its spec"),
        (other_version, "calls itself Thing version 2, but its spec is Thing version 1"),
        (other_type, "calls itself Other version 1"),
        (wrong_place, "lies in the wrong folder"),
        (a_file_in_its_place, "has no manifest"),
    ],
)
def test_manifests(store: Store, harm: Callable[[StoredArtifact], None], says: str) -> None:
    artifact = thing(store)
    harm(artifact)
    (what,) = errors(store)
    assert says in what


def test_a_newer_layout_is_not_damage(store: Store) -> None:
    below, table = thing(store), thing(store, 1)
    rewrite(table, parents={"below": Reference("results", below.key)})
    pin(store, ("results", below.key), [("results", below.key)])
    newer(below)
    (found,) = look(store)
    assert (found.severity, found.topic, found.fix) == ("warning", "newer layout", None)
    assert found.what == ("has layout 2, written by a later saevx; this one reads up to layout 1")
    assert "upgrade saevx" in found.advice


def test_mending_moves_what_is_damaged_and_nothing_else(store: Store) -> None:
    good, short, altered, later = (thing(store, n) for n in range(4))
    (short.path / "acts" / "c.0.0").write_bytes(b"")
    file = altered.path / "acts" / "c.1.0"
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    newer(later)
    check = StoreCheck(store)
    findings = list(check.findings(deep=True))
    assert {f.ref[1] for f in findings if f.fix and f.ref} == {short.key, altered.key}
    assert sum(finding.fix() for finding in findings if finding.fix) == 2
    assert sorted(store.keys("results")) == sorted([good.key, later.key])
    assert {entry.key for entry in entries(store)} == {short.key, altered.key}
    assert [f.topic for f in look(store, deep=True)] == ["newer layout"]
    assert thing(store, 2).verify() == []


def test_what_was_repaired_meanwhile_is_not_moved(store: Store) -> None:
    artifact = thing(store)
    (artifact.path / "zarr.json").unlink()
    check = StoreCheck(store)
    (finding,) = check.findings()
    thing(store)  # a run sees damage too, and makes it again
    assert finding.fix
    assert not finding.fix()
    assert store.open("results", artifact.key).verify() == []


def test_what_is_collected_meanwhile_is_no_finding(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = thing(store)
    real = verify.digest_file

    def late(path: str) -> Any:
        if artifact.path.exists():
            artifact.path.rename(store.root / "gone")
        return real(path)

    monkeypatch.setattr(verify, "digest_file", late)
    assert errors(store, deep=True) == []


def test_files_that_no_manifest_names(store: Store) -> None:
    artifact = thing(store)
    (artifact.path / "acts" / "c.7.0").write_bytes(b"x")
    (artifact.path / "notes.txt").write_text("mine")
    (found,) = look(store)
    assert (found.severity, found.topic) == ("warning", "unexpected files")
    assert "acts/c.7.0, notes.txt" in found.what
    assert store.find("results", artifact.key)


def test_things_that_are_not_ours(store: Store) -> None:
    thing(store)
    for path in ("notes.txt", "results/notes.txt", "results/ab/notes.txt", "results/.build"):
        (store.root / path).parent.mkdir(exist_ok=True)
        if path[-6:] != ".build":
            (store.root / path).write_text("mine")
    (store.root / "results" / "readings").mkdir()
    found = look(store)
    assert {(f.severity, f.topic) for f in found} == {("info", "not ours")}
    assert sorted(Path(f.where).name for f in found) == ["notes.txt"] * 3 + ["readings"]


def test_missing_inputs_are_told_by_kind(store: Store) -> None:
    parents = {"a": {"kind": "shards", "key": "a" * 32}, "b": {"kind": "shards", "key": "b" * 32}}
    thing(store, 0, parents=parents)
    thing(store, 1, parents=parents)
    (found,) = look(store)
    assert (found.severity, found.topic, found.where) == ("info", "missing inputs", "shards")
    assert found.what.startswith("2 ")


def test_orphans(store: Store, in_child: Any) -> None:
    thing(store)

    def leave() -> None:
        store.draft("results", "a" * 32).__enter__()
        assert store.lease("results", "b" * 32)
        with _announced(store):
            os.kill(os.getpid(), 9)

    assert in_child(leave) == 137
    elsewhere = builds(store.root, "results") / f"{'c' * 32}.elsewhere.01234567.1.1.1.abcdefab"
    elsewhere.mkdir()
    with store.draft("results", "d" * 32), store.lease("results", "d" * 32):  # type: ignore[union-attr]
        check = StoreCheck(store)
        found = list(check.findings())
        warnings = [f for f in found if f.severity == "warning"]
        assert [f.topic for f in warnings] == ["orphans"] * 3
        assert [f.topic for f in found if f.severity == "info"] == ["work elsewhere"]
        assert all(finding.fix and finding.fix() for finding in warnings)
        assert [f.topic for f in look(store)] == ["work elsewhere"]
        assert len(names_in(builds(store.root, "results"))) == 2
    assert [name for name in os.listdir(collectors(store.root)) if name[0] != "."] == []
    old = time.time() - 8 * 86400
    os.utime(elsewhere, (old, old))
    assert [f.topic for f in look(store)] == ["orphans"]  # nobody wrote to it for a week


def test_records(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = thing(store)
    recording = RunRecording(store, Path("/x.py"), "x")
    recording.add_targets([("results", artifact.key)], {("results", artifact.key): ()})
    pin(store, ("results", "a" * 32), [])
    (found,) = look(store)
    assert found.severity == "warning"
    assert "pins results aaaaaaaa, which is not in the store" in found.what
    (folder,) = runs(store.root).iterdir()
    (folder / "last.json").write_text("{")
    monkeypatch.setattr(network_caches, "OPENED_S", 0.0)
    assert "records" in errors(store)[0]


@pytest.mark.parametrize("name", ["Thumbs.db", "desktop.ini", ".DS_Store", "._x.json", ".nfs0123"])
def test_stray_files_of_an_operating_system_are_no_errors(store: Store, name: str) -> None:
    """They stop no collection either, wherever a file manager or an NFS client leaves them."""
    full(store)
    folders = [folder for folder in store.root.rglob("*") if folder.is_dir()]
    (run,) = (folder for folder in folders if folder.parent.name == ".runs")
    assert {run, run.parent, store.root / ".pins", dropped(store.root, "results")} <= {*folders}
    for folder in [store.root, *folders]:
        (folder / name).write_bytes(b"\x00\x05\x16\x07")
    assert errors(store) == []
    survey = Reachability(store)
    survey.refresh()
    assert len(survey.runs) == 1
    assert len(survey.roots.pins) == 1
    assert collect(survey, list(survey.stale({}))).failed == []
    assert store.count_parts("results") == {"a" * 32: 1}
    RunRecording(store, Path("/x.py"), "x").complete()
    assert (run / name).exists()


def test_roots_and_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "scratch"
    store = Store(tmp_path / "store", {"shards": gone})
    artifact = thing(store)
    (found,) = look(store)
    assert (found.severity, found.where) == ("warning", str(gone))
    assert "is not there" in found.what
    gone.mkdir()
    assert look(store) == []
    # Tests may run as root, whom no mode stops.
    closed: set[str] = set()
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: str(path) not in closed and access(path, mode)
    )
    closed.add(str(artifact.path / "acts" / "c.0.0"))
    assert errors(store) == ["permissions: cannot be read by you: acts/c.0.0"]
    closed.clear()
    closed.add(str(store.root))
    assert errors(store) == ["permissions: cannot be read: Permission denied"]


def test_a_manifest_that_cannot_be_read_is_told_and_left(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact, other = thing(store, 0), thing(store, 1)
    opened = os.open

    def refuse(path: Any, *args: Any, **kwargs: Any) -> int:
        if str(path) == f"{artifact.path}/zarr.json":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    check = StoreCheck(store)
    (found,) = check.findings(deep=True)
    assert (found.severity, found.topic, found.fix) == ("error", "permissions", None)
    assert list(check.manifests) == [("results", other.key)]


def test_a_store_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A path mistyped or a disk not mounted must not pass for a store without faults."""
    (found,) = look(Store(tmp_path / "typo"), deep=True)
    assert (found.severity, found.topic, found.where) == ("error", "roots", str(tmp_path / "typo"))
    assert "mount it" in found.advice


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO, errno.EACCES])
def test_what_cannot_be_read_is_not_taken_for_altered(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    good, bad, both = (thing(store, n) for n in range(3))
    file = both.path / "acts" / "c.0.0"
    file.write_bytes(bytes(file.stat().st_size))
    real = verify.digest_file

    def digest_file(path: str) -> Any:
        if path in (f"{bad.path}/acts/c.0.0", f"{both.path}/acts/c.1.0"):
            raise OSError(code, os.strerror(code), path)
        return real(path)

    monkeypatch.setattr(verify, "digest_file", digest_file)
    check = StoreCheck(store)
    found = {(f.ref[1], f.topic): f for f in check.findings(deep=True) if f.ref}
    assert found.keys() == {
        (bad.key, "unreadable"),
        (both.key, "unreadable"),
        (both.key, "damaged"),
    }
    assert (
        f"could not be read: acts/c.0.0 ({os.strerror(code)})" in found[bad.key, "unreadable"].what
    )
    assert {f.topic: f.fix and f.fix() for f in found.values()} == {
        "unreadable": None,
        "damaged": True,
    }
    assert sorted(store.keys("results")) == sorted([good.key, bad.key])


# Parts.


def part_of(store: Store, key: str, index: int) -> StoredArtifact:
    with store.draft("results", key, index) as draft:
        draft.write("a", np.arange(8))
        return draft.publish(
            type="Thing", version=1, canonical="{}", spec={}, parents={}, provenance={}
        )


def test_damaged_parts_are_found_and_moved_to_the_trash(store: Store) -> None:
    key = "a" * 32
    good, short, altered = (part_of(store, key, i) for i in range(3))
    os.truncate(short.path / "a" / "c.0", 3)
    file = altered.path / "a" / "c.0"
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    (good.path.parent / "notes").write_text("mine")
    found = look(store)
    assert {(f.topic, Path(f.where).name) for f in found} == {
        ("unfinished", key), ("not ours", "notes"), ("damaged", "1"),
    }  # fmt: skip
    check = StoreCheck(store)
    seen: list[tuple[int, int]] = []
    found = list(check.findings(deep=True, progress=lambda *at: seen.append(at)))
    assert {f.where for f in found if f.topic == "damaged"} == {str(short.path), str(altered.path)}
    assert seen[-1][0] == seen[-1][1] > 0
    assert all(f.fix and f.fix() for f in found if f.topic == "damaged")
    assert store.parts("results", key) == [0]
    assert len(os.listdir(trash(store.root, "results"))) == 2
    assert errors(store, deep=True) == []


def test_a_part_that_a_later_saevx_wrote_is_left(store: Store) -> None:
    part = part_of(store, "a" * 32, 0)
    rewrite(part, layout=2)
    assert sorted(f.topic for f in look(store, deep=True)) == ["newer layout", "unfinished"]


def test_parts_of_what_is_there_are_told_so(store: Store) -> None:
    made = thing(store)
    part_of(store, made.key, 0)
    part_of(store, "a" * 32, 0)
    words = {f.ref[1]: f.what for f in look(store) if f.ref}
    assert "an artifact that is there" in words[made.key]
    assert "an artifact that is not there yet" in words["a" * 32]


# Closed doors.


@pytest.fixture
def shared() -> Iterator[Store]:
    """A store that every user may look at: pytest's own folders are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Store(Path(folder) / "store")


def full(store: Store) -> StoredArtifact:
    """A store with something at every place."""
    made = thing(store)
    thing(store, 1, "shards")
    part_of(store, "a" * 32, 0)
    builds(store.root, "results").mkdir(exist_ok=True)
    (builds(store.root, "results") / "x").mkdir()
    assert store.lease("results", "b" * 32)
    trash(store.root, "results").mkdir(exist_ok=True)
    recording = RunRecording(store, Path("/x.py"), "x")
    recording.add_targets([("results", made.key)], {("results", made.key): ()})
    pin(store, ("results", made.key), [])
    dropped(store.root, "results").mkdir(parents=True)
    with _announced(store):
        pass
    return made


PLACES: dict[str, Callable[[Store, StoredArtifact], Path]] = {
    "the root": lambda store, made: store.root,
    "a kind": lambda store, made: store.root / "results",
    "a shelf": lambda store, made: made.path.parent,
    "an artifact": lambda store, made: made.path,
    "builds": lambda store, made: builds(store.root, "results"),
    "work": lambda store, made: work(store.root, "results", "a" * 32).parent,
    "parts": lambda store, made: work(store.root, "results", "a" * 32),
    "a part": lambda store, made: part_home(store.root, "results", "a" * 32, 0),
    "leases": lambda store, made: store.root / "results" / ".leases",
    "trash": lambda store, made: trash(store.root, "results"),
    "collections": lambda store, made: collectors(store.root),
    "all dropped": lambda store, made: dropped(store.root, "results").parent,
    "dropped": lambda store, made: dropped(store.root, "results"),
    "all runs": lambda store, made: runs(store.root),
    "runs": lambda store, made: next(runs(store.root).iterdir()),
    "pins": lambda store, made: store.root / ".pins",
}


@pytest.mark.parametrize("mode", [0o000, 0o644, 0o311])
@pytest.mark.parametrize("place", PLACES)
def test_what_is_closed_is_a_finding_and_the_rest_is_looked_at(
    shared: Store, in_child: Any, tmp_path: Path, place: str, mode: int
) -> None:
    closed = PLACES[place](shared, full(shared))
    damaged = thing(shared, 7, "shards")
    (damaged.path / "acts" / "c.0.0").write_bytes(b"")
    before = stat.S_IMODE(closed.stat().st_mode)
    closed.chmod(mode)
    with open(tmp_path / "found", "w") as out:

        def as_another() -> None:
            if os.geteuid() == 0:  # whom no mode stops
                os.setgid(65534)
                os.setuid(65534)
            found = look(shared, deep=True)
            json.dump([(f.severity, f.where) for f in found], out)
            out.flush()

        try:
            code = in_child(as_another)
        finally:
            closed.chmod(before)
    assert code == 0
    found = json.loads((tmp_path / "found").read_text())
    about = [where for severity, where in found if severity == "error" and str(closed) in where]
    readable = (
        place in ("an artifact", "a part") and mode == 0o311
    )  # its files are asked for by name
    assert len([where for where in about if where != str(damaged.path)]) == (not readable)
    if place != "the root" or mode == 0o311:
        assert ["error", str(damaged.path)] in found


def test_a_folder_on_another_file_system(store: Store) -> None:
    thing(store)
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == store.root.stat().st_dev:
        pytest.skip("needs a second file system")
    with tempfile.TemporaryDirectory(dir=elsewhere) as folder:
        shutil.rmtree(builds(store.root, "results"))
        builds(store.root, "results").symlink_to(folder)
        (found,) = look(store)
    assert (found.severity, found.topic) == ("error", "file systems")
    assert found.where == str(builds(store.root, "results"))


def test_artifacts_of_a_kind_that_moved_are_told_of(tmp_path: Path) -> None:
    before = Store(tmp_path / "store")
    kept = thing(before, 0, "shards")
    thing(before, 1, "shards")
    thing(before, 2, "results")
    (kept.path.parent / "notes").write_text("mine")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (found,) = look(Store(before.root, {"shards": scratch}))
    assert (found.severity, found.topic) == ("warning", "roots")
    assert found.where == str(before.root / "shards")
    assert found.what.startswith("holds 2 artifacts that are not read")
    assert str(scratch / "shards") in found.advice
    assert look(Store(before.root, {"results": before.root, "shards": before.root}))[0].topic == (
        "not ours"
    )
