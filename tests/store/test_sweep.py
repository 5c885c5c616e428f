"""What killed processes leave behind delays nobody, and the next collection removes it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from store import Store
from store.gc import collector as gc
from store.gc.cleanup import SCRATCH_S
from store.gc.collector import collect, evictable, wait_for_collectors
from store.gc.reachability import Reachability, StaleReason
from store.gc.records import Run, write_record
from store.gc.roots import RunRecording, pin
from store.layout import Ref, collectors, dropped, home, pins, runs
from store.locks.process import ProcessId
from store.trash.contents import empty, entries, restore
from store.trash.move import identity_of, move_to_trash_if_same, put_back

pytestmark = pytest.mark.usefixtures("no_fsync")

A, B = "a" * 32, "b" * 32
ELSEWHERE = "elsewhere.01234567.1.1.1"
FILE = Path("/experiment.py")


def survey(store: Store, grace_s: float = 0.0) -> Reachability:
    found = Reachability(store, grace_s=grace_s)
    found.refresh()
    return found


def announcement(store: Store, owner: str, age_s: float = 0.0) -> Path:
    collectors(store.root).mkdir(parents=True, exist_ok=True)
    file = collectors(store.root) / f"{owner}.abcdefab"
    file.touch()
    at = time.time() - age_s
    os.utime(file, (at, at))
    return file


def dead(in_child: Any, tmp_path: Path) -> str:
    file = tmp_path / "owner"
    assert in_child(lambda: file.write_text(str(ProcessId.here()))) == 0
    return file.read_text()


def test_an_old_announcement_delays_no_run(store: Store) -> None:
    announcement(store, ELSEWHERE, age_s=gc.PATIENCE_S + 1)
    waited: list[int] = []
    wait_for_collectors(store, lambda: waited.append(1))
    assert waited == []


def test_announcements_are_swept_once_nobody_waits_for_them(
    store: Store, in_child: Any, tmp_path: Path
) -> None:
    gone = [
        announcement(store, dead(in_child, tmp_path)),
        announcement(store, ELSEWHERE, age_s=gc.PATIENCE_S + 1),
    ]
    stay = [
        announcement(store, f"{ELSEWHERE}2"),
        announcement(store, str(ProcessId.here()), age_s=5.0),
    ]
    foreign = announcement(store, "what is this", age_s=1e6)
    collect(survey(store), [])
    assert [file for file in gone if file.exists()] == []
    assert [file for file in [*stay, foreign] if not file.exists()] == []


def test_records_that_count_no_more_are_swept(store: Store, in_child: Any, tmp_path: Path) -> None:
    def cut_off(path: Path | None, *keys: str) -> None:
        def begin() -> None:
            recording = RunRecording(store, path, "experiment")
            recording.add_targets(
                [("results", key) for key in keys], {("results", k): () for k in keys}
            )

        assert in_child(begin) == 0

    def records() -> set[str]:
        found = survey(store)
        return {str(run) for run in found.runs}

    cut_off(None, A)
    cut_off(FILE, A)
    cut_off(FILE, B)
    live = RunRecording(store, None, "notebook")
    live.add_targets([("results", A)], {("results", A): ()})
    before = records()
    assert len(list(runs(store.root).glob("*/*.json"))) == 4
    collect(survey(store), [])
    assert records() == before
    assert len(before) == 2
    assert len(list(runs(store.root).glob("*/*.json"))) == 2


def test_a_copy_that_is_behind_is_not_swept(tmp_path: Path) -> None:
    store = Store(tmp_path / "a", {"shards": tmp_path / "b"})
    run = Run.begin("experiment", FILE)
    run = Run(
        name=run.name, path=run.path, owner="elsewhere.0.0.1.0", began=time.time(), nodes=[],
    )  # fmt: skip
    graph = {("results", A): ()}
    for root, one in ((tmp_path / "a", run), (tmp_path / "b", run.wanting(list(graph), graph))):
        write_record(runs(root) / run.folder / "elsewhere.0.0.1.0.abcdefab.json", one)
    collect(survey(store), [])
    assert len(list(tmp_path.glob("*/.runs/*/*.json"))) == 2
    last = Run(name=run.name, path=run.path, owner=run.owner, began=time.time(), finished=1.0)
    for root in (tmp_path / "a", tmp_path / "b"):
        write_record(runs(root) / run.folder / "other.0.0.1.0.abcdefab.json", last)
    old = time.time() - 8 * 86400
    for file in tmp_path.glob("*/.runs/*/elsewhere*.json"):
        os.utime(file, (old, old))
    collect(survey(store), [])
    names = [file.name for file in tmp_path.glob("*/.runs/*/*.json")]
    assert names == ["other.0.0.1.0.abcdefab.json"] * 2


def test_scratch_files_are_swept_when_they_are_old(store: Store) -> None:
    names: Iterable[Path] = (
        pins(store.root) / f".results.{A}.json.01234567",
        runs(store.root) / "experiment.0123456789abcdef" / ".last.json.01234567",
        dropped(store.root, "shards") / f".{A}.01234567",
        store.root / "results" / ".catalogue" / "saevx 1.msgpack.123.01234567",
    )
    for age_s, left in ((SCRATCH_S - 60, True), (SCRATCH_S + 60, False)):
        for file in names:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            os.utime(file, (time.time() - age_s,) * 2)
        collect(survey(store), [])
        assert [file.exists() for file in names] == [left] * 4


def test_manifests_of_what_was_given_up_go_with_what_needs_them(store: Store, make: Any) -> None:
    below: Ref = ("shards", A)
    make(store, A, "shards", parents={})
    make(store, B, parents={"shards": {"kind": "shards", "key": A}})
    pin(store, ("results", B), [("results", B)])
    drop, _ = evictable(found := survey(store), "shards", lambda manifest: None)
    assert [item.ref for item in drop] == [below]
    collect(found, drop)
    kept = dropped(store.root, "shards") / f"{A}.json"
    assert kept.exists()
    collect(survey(store), [])
    assert kept.exists()
    for file in pins(store.root).iterdir():
        file.unlink()
    found = survey(store)
    collect(found, list(found.stale({})))
    assert not kept.exists()


def test_who_brings_back_what_is_being_deleted_gets_the_whole_or_nothing(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(store, A).path
    identity = identity_of(path)
    assert identity is not None
    target = move_to_trash_if_same(store.root, "results", A, path, identity)
    assert target is not None
    tried: list[bool] = []
    unlink = os.unlink

    def late(*args: Any, **kwargs: Any) -> None:
        unlink(*args, **kwargs)
        if not tried:
            tried.append(put_back(target, home(store.root, "results", A)))
            with pytest.raises(Exception, match="in the trash"):
                restore(store, "results", A)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", late)
        (gone,) = empty(list(entries(store)))
    assert tried == [False]
    assert gone[0].key == A
    assert not path.exists()
    assert list(entries(store)) == []


def test_what_was_being_deleted_by_a_killed_process_is_deleted(
    store: Store, make: Any, in_child: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(store, A).path
    identity = identity_of(path)
    assert identity is not None
    move_to_trash_if_same(store.root, "results", A, path, identity)

    def die() -> None:
        os.unlink = lambda *args, **kwargs: os.kill(os.getpid(), 9)  # type: ignore[assignment]
        list(empty(list(entries(store))))

    assert in_child(die) == 137
    (left,) = entries(store)
    assert (left.key, left.kind) == (A, "results")
    assert [entry for entry, _ in empty([left])] == [left]
    assert list(entries(store)) == []


def test_what_was_brought_back_is_not_deleted(store: Store, make: Any) -> None:
    path = make(store, A).path
    identity = identity_of(path)
    assert identity is not None
    move_to_trash_if_same(store.root, "results", A, path, identity)
    listed = list(entries(store))
    restore(store, "results", A)
    assert list(empty(listed)) == []
    assert store.open("results", A).verify() == []


def test_an_orphan_that_another_process_has_removed_is_no_longer_stale(
    store: Store, in_child: Any, make: Any
) -> None:
    def leave() -> None:
        with store.draft("results", A):
            os._exit(0)

    assert in_child(leave) == 0
    found = survey(store)
    assert [item.reason for item in found.stale({})] == [StaleReason.ORPHAN]
    make(store, A, parents={})  # a draft of the same key sweeps up first
    assert [item for item in found.stale({}) if item.reason == StaleReason.ORPHAN] == []


def test_a_collection_that_is_stopped_by_hand_puts_back_what_a_run_wants(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in (A, B):
        make(store, key, parents={})
    found = survey(store)
    stale = list(found.stale({}))
    real = gc.move_to_trash_if_same

    def stopped(*args: Any) -> Any:
        if args[2] == B:
            raise KeyboardInterrupt
        target = real(*args)
        RunRecording(store, FILE, "experiment").add_targets([("results", A)], {("results", A): ()})
        return target

    monkeypatch.setattr(gc, "move_to_trash_if_same", stopped)
    with pytest.raises(KeyboardInterrupt):
        collect(found, stale)
    assert store.open("results", A).verify() == []
    assert list(collectors(store.root).glob("[!.]*")) == []
