"""Collection: what is reachable stays, whatever happens meanwhile; the rest goes to the trash."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store import MissingArtifact, Store, StoreError, network_caches
from store.gc import collector as gc
from store.gc import reachability as survey
from store.gc import roots
from store.gc import scan as inventory
from store.gc.collector import collect, evictable, wait_for_collectors
from store.gc.evicted import evicted_manifest as manifest_given_up
from store.gc.reachability import Reachability, Stale, StaleReason
from store.gc.records import Run, write_record
from store.gc.roots import Roots, RunRecording, forget_runs, pin, unpin
from store.gc.scan import StoredEntry
from store.layout import Ref, collectors, part_home, part_key, runs, works
from store.trash.contents import empty, entries, restore
from store.trash.move import identity_of

pytestmark = pytest.mark.usefixtures("no_fsync")

A, B, C, D = (f"{digit}{'0' * 31}" for digit in "abcd")
EXPERIMENT = Path("/home/someone/cub_layers.py")


def put(
    store: Store, make: Any, key: str, *below: str, kind: str = "results", age_s: float = 9e4,
    **changes: Any,
) -> Ref:  # fmt: skip
    """An artifact of some age, made from others of the same kind."""
    parents = {f"p{i}": {"kind": kind, "key": k} for i, k in enumerate(below)}
    artifact = make(store, key, kind, parents=parents, **changes)
    at = time.time() - age_s
    os.utime(artifact.path, (at, at))
    return kind, key


def ref(key: str, kind: str = "results") -> Ref:
    return kind, key


def want(store: Store, *targets: str, below: dict[str, Iterable[str]] | None = None,
         path: Path | None = EXPERIMENT) -> RunRecording:  # fmt: skip
    graph = {ref(key): [ref(k) for k in keys] for key, keys in (below or {}).items()}
    recording = RunRecording(store, path, "cub_layers")
    recording.add_targets(map(ref, targets), dict.fromkeys(map(ref, targets), ()) | graph)
    assert not recording.problem
    return recording


def look(store: Store, **options: Any) -> Reachability:
    found = Reachability(store, **options)
    found.refresh()
    return found


def stale(store: Store, versions: dict[str, int] | None = None, **options: Any) -> list[Stale]:
    return list(look(store, **options).stale(versions or {}))


def stale_keys(store: Store, **options: Any) -> set[str]:
    return {item.ref[1] for item in stale(store, **options)}


def run_gc(store: Store, **options: Any) -> gc.Collected:
    found = look(store, **options)
    return collect(found, list(found.stale({})))


# What keeps things


def test_what_nothing_reaches_is_stale_once_it_is_old(store: Store, make: Any) -> None:
    put(store, make, A)
    put(store, make, B, age_s=10)
    (item,) = stale(store)
    assert (item.ref, item.reason, item.type) == (ref(A), StaleReason.NOT_REACHED, "Thing")
    assert item.n_bytes == store.open("results", A).n_bytes
    assert stale_keys(store, grace_s=5) == {A, B}
    assert stale_keys(store, grace_s=1e6) == set()


def test_the_young_keep_what_they_were_made_from(store: Store, make: Any) -> None:
    put(store, make, A)
    put(store, make, B, A)
    put(store, make, C, B, age_s=0)
    found = look(store)
    assert list(found.stale({})) == []
    assert [link for link, _ in found.why(ref(A))] == [ref(C), ref(B), ref(A)]
    assert found.why(ref(A))[0][1].root == "younger than 1 h"


def test_a_run_keeps_its_targets_and_all_below(store: Store, make: Any) -> None:
    put(store, make, A)
    put(store, make, B, A)
    put(store, make, C, age_s=2e6)
    want(store, B).complete()
    found = look(store)
    assert [item.ref for item in found.stale({})] == [ref(C)]
    assert "the latest run of /home/someone/cub_layers.py, finished" in found.why(ref(A))[0][1].root
    assert found.why(ref(C)) == []


def test_a_recorded_graph_keeps_what_no_manifest_tells_of(store: Store, make: Any) -> None:
    """C -> B -> A, where neither C nor B has been made yet."""
    put(store, make, A)
    want(store, C, below={C: [B], B: [A], A: []})
    found = look(store)
    assert list(found.stale({})) == []
    assert [link for link, _ in found.why(ref(A))] == [ref(C), ref(B), ref(A)]


def test_a_spec_keeps_what_it_names_when_the_parent_between_is_gone(
    store: Store, make: Any
) -> None:
    put(store, make, A)
    scorer = {"type": "Scorer", "kind": "results", "key": A, "fields": {}}
    nested = {"type": "Table", "kind": "results", "key": C, "fields": {"a": [{"b": scorer}]}}
    put(store, make, C, B, spec=nested)
    want(store, C).complete()
    assert stale_keys(store) == set()


@given(
    edges=st.sets(st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda e: e[0] > e[1])),
    made=st.sets(st.integers(0, 9)),
    targets=st.lists(st.integers(0, 9), max_size=3),
    pinned=st.lists(st.integers(0, 9), max_size=2),
    young=st.sets(st.integers(0, 9), max_size=2),
)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_alive_is_what_a_plain_walk_finds(
    tmp_path_factory: pytest.TempPathFactory,
    make: Any,
    edges: set[tuple[int, int]],
    made: set[int],
    targets: list[int],
    pinned: list[int],
    young: set[int],
) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    keys = [f"{i:032x}" for i in range(10)]
    below = {i: [b for a, b in sorted(edges) if a == i] for i in range(10)}
    for i in made:
        put(store, make, keys[i], *(keys[b] for b in below[i]), age_s=0 if i in young else 9e4)

    def walk(start: int, knows: Callable[[int], bool]) -> set[int]:
        found = {start}
        for b in below[start] if knows(start) else []:
            found |= walk(b, knows)
        return found

    alive: set[int] = set()
    if targets:
        everything = {i for t in targets for i in walk(t, lambda _: True)}
        graph = {keys[i]: [keys[b] for b in below[i]] for i in everything}
        want(store, *(keys[i] for i in targets), below=graph).complete()
        alive |= everything
    for i in pinned:
        pin(store, ref(keys[i]), inventory.below(store, ref(keys[i])))
        alive |= walk(i, lambda x: x in made)
    for i in young & made:
        alive |= walk(i, lambda x: x in made)
    # From what is alive, manifests lead further down than a pin of an absent artifact knew.
    for i in list(alive):
        alive |= walk(i, lambda x: x in made)
    assert stale_keys(store) == {keys[i] for i in made - alive}
    run_gc(store)
    assert {int(key, 16) for key in store.keys("results")} == made & alive


# Runs that end, and runs that do not


def test_a_run_that_was_cut_off_gives_up_nothing(store: Store, make: Any, in_child: Any) -> None:
    for key in (A, B, C, D):
        put(store, make, key)
    want(store, A).complete()
    assert in_child(lambda: want(store, B)) == 0
    assert in_child(lambda: want(store, C)) == 0
    # A of the last complete run, C of the last one cut off; the next try superseded that for B.
    assert stale_keys(store) == {B, D}
    assert "not finished" in str(look(store).why(ref(C))[0][1].root)
    want(store, D).complete()
    assert stale_keys(store) == {A, B, C}
    assert len(list(runs(store.root).glob("*/*"))) == 1


def test_runs_that_go_on_all_count(store: Store, make: Any) -> None:
    for key in (A, B, C):
        put(store, make, key)
    first, second = want(store, A), want(store, B)
    assert stale_keys(store) == {C}
    assert "in progress" in str(look(store).why(ref(A))[0][1].root)
    second.complete()
    assert stale_keys(store) == {C}
    first.complete()
    assert stale_keys(store) == {A, C}


@pytest.mark.parametrize("first", ["older", "newer"])
def test_of_complete_runs_the_one_that_began_last_counts(
    store: Store, make: Any, first: str
) -> None:
    """Whichever finishes first."""
    for key in (A, B, C):
        put(store, make, key)
    older, newer = want(store, A), want(store, B)
    order = [older, newer] if first == "older" else [newer, older]
    for recording in order:
        recording.complete()
    assert stale_keys(store) == {A, C}
    assert RunRecording(store, EXPERIMENT, "cub_layers").known_graph([ref(B)]) == {ref(B): ()}
    assert len(list(runs(store.root).glob("*/*"))) == 1


def test_a_record_of_an_earlier_saevx_counts_by_when_it_began(store: Store, make: Any) -> None:
    """Such a run, which may be a follower's old copy of the code, replaces `last.json`."""
    for key in (A, B, C):
        put(store, make, key)

    def earlier(key: str, began: float) -> None:
        run = Run.begin("cub_layers", EXPERIMENT).wanting([ref(key)], {ref(key): ()})
        run = msgspec.structs.replace(run, began=began, finished=time.time())
        write_record(runs(store.root) / run.folder / "last.json", run)

    earlier(A, time.time() - 60)
    assert stale_keys(store) == {B, C}
    newer = want(store, B)
    newer.complete()
    assert stale_keys(store) == {A, C}
    earlier(C, time.time() - 60)  # it began before `newer`, and ends only now
    assert stale_keys(store) == {A, C}
    assert forget_runs(store, EXPERIMENT) == 2
    assert stale_keys(store) == {A, B, C}


def test_each_file_has_a_latest_run(store: Store, make: Any) -> None:
    for key in (A, B, C):
        put(store, make, key)
    want(store, A).complete()
    want(store, B, path=Path("/elsewhere/cub_layers.py")).complete()
    assert stale_keys(store) == {C}
    assert stale_keys(store, without=str(EXPERIMENT)) == {A, C}
    assert forget_runs(store, EXPERIMENT) == 1
    assert stale_keys(store) == {A, C}
    going = want(store, A)
    assert forget_runs(store, EXPERIMENT) == 0
    assert stale_keys(store, without=str(EXPERIMENT)) == {C}
    going.complete()


def test_forgetting_keeps_what_a_run_on_another_host_wants(store: Store, make: Any) -> None:
    """Its process cannot be asked from here, and its heart beats."""
    put(store, make, A)
    run = Run.begin("cub_layers", EXPERIMENT).wanting([ref(A)], {ref(A): ()})
    run = msgspec.structs.replace(run, owner="elsewhere.0.0.1.0")
    file = runs(store.root) / run.folder / "elsewhere.0.0.1.0.abcdefab.json"
    write_record(file, run)
    assert stale_keys(store, without=str(EXPERIMENT)) == set()
    os.utime(file, (1.0, 1.0))  # it has not been heard of for long
    assert stale_keys(store, without=str(EXPERIMENT)) == {A}


def test_a_run_from_a_notebook_is_recorded_while_it_lasts(
    store: Store, make: Any, in_child: Any
) -> None:
    put(store, make, A)
    recording = want(store, A, path=None)
    assert stale_keys(store) == set()
    recording.close()
    assert stale_keys(store) == {A}
    assert in_child(lambda: want(store, A, path=None)) == 0  # killed
    assert stale_keys(store) == {A}


def test_stages_add_to_what_a_run_wants(store: Store, make: Any) -> None:
    put(store, make, A)
    put(store, make, B)
    recording = want(store, A)
    recording.add_targets([ref(B)], {ref(B): []})
    recording.complete()
    assert stale_keys(store) == set()


def test_a_graph_once_recorded_is_known(store: Store) -> None:
    want(store, C, D, below={C: [B], B: [A], A: [], D: []}).complete()
    again = RunRecording(store, EXPERIMENT, "cub_layers")
    assert again.known_graph([ref(C)]) == {ref(C): (ref(B),), ref(B): (ref(A),), ref(A): ()}
    assert (
        again.known_graph([ref(C), ref(A)]) is None
    )  # A was no target, so nobody asked for it alone
    assert RunRecording(store, Path("/other.py"), "other").known_graph([ref(C)]) is None


def test_a_store_that_cannot_be_written_to_stops_no_run(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, make, A)

    def refuse(*_: Any) -> None:
        raise StoreError("read-only")

    monkeypatch.setattr(roots, "write_record", refuse)
    recording = RunRecording(store, EXPERIMENT, "x")
    recording.add_targets([ref(A)], {ref(A): ()})
    recording.complete()
    assert recording.problem == "read-only"


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No call of the system that writes comes through, as on a file system that is read-only."""
    opened = os.open

    def refuse(path: Any, *args: Any, **options: Any) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def reading(path: Any, flags: int, *args: Any, **options: Any) -> int:
        return (refuse if flags & (os.O_WRONLY | os.O_RDWR) else opened)(
            path, flags, *args, **options
        )

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", reading)
        for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "utime", "link"):
            patch.setattr(os, name, refuse)
        yield


def test_where_nothing_can_be_written_a_run_is_not_recorded(
    store: Store, make: Any, request: pytest.FixtureRequest
) -> None:
    """It may find all that it wants; the clean-up must not hide what went wrong before."""
    put(store, make, A)
    want(store, A)
    request.getfixturevalue("read_only")
    recording = RunRecording(store, Path("/x.py"), "x")
    recording.add_targets([ref(A)], {ref(A): ()})
    assert "the file system is read-only" in recording.problem
    recording.complete()
    recording.close()


def test_a_manifest_that_cannot_be_kept_keeps_its_artifact(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, make, A)
    put(store, make, B, A)
    pin(store, ref(B), [ref(B), ref(A)])
    survey = Reachability(store, grace_s=0)
    survey.refresh()
    drop, _ = evictable(survey, "results", lambda manifest: None)

    def refuse(path: Any, *args: Any, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        patch.setattr(os, "unlink", refuse)
        done = collect(survey, drop)
    ((_, why),) = done.failed
    assert "no space is left" in why
    assert store.find("results", A)


def test_two_stores_that_share_a_root_see_each_others_runs(tmp_path: Path, make: Any) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    mine, yours = (Store(tmp_path / name, {"shards": scratch}) for name in ("mine", "yours"))
    put(mine, make, A, kind="shards")
    put(mine, make, C, kind="shards")
    recording = RunRecording(mine, EXPERIMENT, "cub_layers")
    recording.add_targets([ref(B)], {ref(B): [("shards", A)], ("shards", A): []})
    recording.complete()
    pin(mine, ("shards", C), [("shards", C)])
    assert stale_keys(yours) == set()
    unpin(mine, ("shards", C))
    assert stale_keys(yours) == {C}


# Pins


def test_a_pin_keeps_an_artifact_and_what_it_was_made_from(store: Store, make: Any) -> None:
    put(store, make, A)
    put(store, make, B, A)
    put(store, make, C, B)
    pin(store, ref(C), inventory.below(store, ref(C)), note="figure 3", user="ada")
    assert stale_keys(store) == set()
    found = look(store)
    assert "by ada: figure 3" in found.why(ref(A))[0][1].root
    # Should the one between be lost, the pin still knows what was below it.
    os.rename(store.open("results", B).path, store.root / "lost")
    assert stale_keys(store) == set()
    os.rename(store.root / "lost", store.root / "results" / B[:2] / B)
    assert unpin(store, ref(C))
    assert not unpin(store, ref(C))
    assert stale_keys(store) == {A, B, C}


# What is stale for other reasons


def test_reasons(store: Store, make: Any) -> None:
    put(store, make, A, version=1)
    put(store, make, B, version=2)
    put(store, make, C)
    want(store, C).complete()
    (store.open("results", C).path / "patches" / "c.0.0.0").unlink()
    at = time.time() - 9e4
    os.utime(store.root / "results" / C[:2] / C, (at, at))
    found = {item.ref[1]: item for item in stale(store, {"Thing": 2})}
    assert {key: item.reason for key, item in found.items()} == {
        A: StaleReason.OLDER,
        B: StaleReason.NOT_REACHED,
        C: StaleReason.FAILED,  # absent for the next run, whoever wants it
    }
    assert "c.0.0.0 is missing" in found[C].detail
    assert "at 2 now" in found[A].detail


def test_damage_that_is_new_or_being_repaired_stays(store: Store, make: Any) -> None:
    put(store, make, A)
    (store.open("results", A).path / "zarr.json").unlink()  # which makes it new
    assert stale_keys(store) == set()
    at = time.time() - 9e4
    os.utime(store.root / "results" / A[:2] / A, (at, at))
    assert stale_keys(store) == {A}
    with store.draft("results", A):
        assert stale_keys(store) == set()


def test_orphans_are_collected_and_work_is_not(
    store: Store, make: Any, in_child: Any, entries: Any
) -> None:
    def leave() -> None:
        store.draft("results", A).__enter__().write("x", __import__("numpy").arange(100))
        assert store.lease("results", B)
        os.kill(os.getpid(), 9)

    assert in_child(leave) == 137
    with store.draft("results", C) as draft, store.lease("results", D):  # type: ignore[union-attr]
        draft.write("x", __import__("numpy").arange(3))
        found = {item.reason: item for item in stale(store)}
        assert {reason: item.ref[1] for reason, item in found.items()} == {
            StaleReason.ORPHAN: A,
            StaleReason.DEAD_LEASE: B,
        }
        assert found[StaleReason.ORPHAN].n_bytes > 800
        done = run_gc(store)
        assert (len(done.moved), done.failed, done.spared) == (2, [], [])
        assert [name[:32] for name in entries(store, ".build")] == [C]
        assert [holder.key for holder in store.leases("results")] == [D]
    assert [name[:32] for name in entries(store, ".trash")] == [A]


def test_what_is_being_made_stays(store: Store, make: Any) -> None:
    put(store, make, A)
    lease = store.lease("results", A)
    assert lease is not None
    with lease:
        found = look(store)
        assert list(found.stale({})) == []
        assert "being made by" in found.why(ref(A))[0][1].root
    assert stale_keys(store) == {A}


def test_what_cannot_be_known_stops_a_collection(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_caches, "OPENED_S", 0.0)
    put(store, make, A)
    recording = want(store, B)
    (folder,) = runs(store.root).iterdir()
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    for text, says in ((b"{", "cannot be understood"), (b'{"layout": 2}', "later saevx")):
        file.write_bytes(text)
        with pytest.raises(StoreError, match=says):
            stale(store)
    file.write_bytes(whole)
    recording.complete()
    assert stale_keys(store) == {A}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that have passed: only sleeping takes time."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda s: now.__setitem__(0, now[0] + s))
    return now


def test_a_listing_from_a_cache_stops_no_collection(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    """For 20 s it names the record of a run that has ended, and not that of the next."""
    first = want(store, A)
    real = os.listdir
    seen = {folder: real(folder) for folder in runs(store.root).iterdir()}
    first.complete()
    want(store, B).complete()

    def cached(path: Any) -> list[str]:
        return seen[path] if path in seen and clock[0] < 20 else real(path)

    monkeypatch.setattr(os, "listdir", cached)
    assert [run.targets for run in look(store).runs] == [[ref(B)]]


def test_a_record_that_is_torn_for_a_moment_is_read_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache may have the size of the shorter record that this one has replaced."""
    want(store, A, B).complete()
    (file,) = runs(store.root).glob("*/*.json")
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    monkeypatch.setattr(time, "sleep", lambda s: file.write_bytes(whole))
    assert [run.targets for run in look(store).runs] == [[ref(A), ref(B)]]


def test_a_manifest_that_cannot_be_read_stops_a_collection(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, make, A)
    put(store, make, B)

    def refuse(folder: str, kind: str, key: str) -> Any:
        raise StoreError(f"cannot read {key}: permission denied")

    monkeypatch.setattr(inventory, "examine", refuse)
    with pytest.raises(StoreError, match="2 artifacts cannot be read"):
        stale(store)


# The trash


def test_the_trash_gives_back_and_is_emptied(store: Store, make: Any) -> None:
    put(store, make, A)
    put(store, make, B)
    before = store.open("results", A).manifest
    done = run_gc(store)
    assert sorted(item.ref[1] for item in done.moved) == [A, B]
    assert store.find("results", A) is None
    assert restore(store, "results", A) == store.open("results", A).path
    assert store.open("results", A).manifest == before
    assert store.open("results", A).verify() == []
    assert stale_keys(store) == set()  # it counts as new
    with pytest.raises(MissingArtifact, match="nothing of that key"):
        restore(store, "results", C)
    (left,) = entries(store)
    assert left.key == B
    assert abs(left.moved - time.time()) < 5
    ((gone, n_bytes),) = empty([left])
    assert gone == left
    assert n_bytes > 0
    assert list(entries(store)) == []


def test_the_latest_whole_artifact_is_restored(store: Store, make: Any) -> None:
    for day in ("first", "second"):
        put(store, make, A, attributes={"made": day})
        run_gc(store)
        for entry in entries(store):
            if not entry.path.name.startswith(f"{A}.2020"):
                stamp = {"first": "20200102", "second": "20200203"}[day]
                entry.path.rename(entry.path.with_name(f"{A}.{stamp}T000000Z.00"))
    first, second = entries(store)
    assert first.moved < second.moved
    restore(store, "results", A)
    assert store.open("results", A).manifest.attributes == {"made": "second"}
    put_back = store.open("results", A).path.rename(second.path)
    (put_back / "zarr.json").unlink()
    restore(store, "results", A)
    assert store.open("results", A).manifest.attributes == {"made": "first"}


def test_the_trash_lists_the_oldest_of_a_kind_first(store: Store, make: Any) -> None:
    for key, kind in ((A, "results"), (B, "results"), (A, "shards")):
        put(store, make, key, kind=kind)
    run_gc(store)
    days = {(B, "results"): "20200101", (A, "shards"): "20200102", (A, "results"): "20200103"}
    for entry in entries(store):
        stamp = days[entry.key, entry.kind]
        entry.path.rename(entry.path.with_name(f"{entry.key}.{stamp}T000000Z.00"))
    listed = [(entry.kind, entry.key, entry.moved) for entry in entries(store, "results")]
    new_year = 1577836800.0
    assert listed == [("results", B, new_year), ("results", A, new_year + 2 * 86400)]
    assert [entry.kind for entry in entries(store)] == ["shards", "results", "results"]
    restore(store, "results", B)  # A is later, and is left alone
    assert [entry.key for entry in entries(store, "results")] == [A]
    with pytest.raises(MissingArtifact, match=f"results/{B}.* nothing of that key is in the trash"):
        restore(store, "results", B)


def test_nothing_is_restored_over_another_or_from_what_is_damaged(store: Store, make: Any) -> None:
    put(store, make, A)
    run_gc(store)
    put(store, make, A)
    with pytest.raises(StoreError, match="there already"):
        restore(store, "results", A)
    run_gc(store)
    for entry in entries(store):
        (entry.path / "patches" / "c.0.0.0").write_bytes(b"")
    with pytest.raises(MissingArtifact, match="damaged"):
        restore(store, "results", A)


# Giving up what can be made again


def test_what_can_be_made_again_is_given_up_though_reached(store: Store, make: Any) -> None:
    for key in (A, B, C, D):
        put(store, make, key, kind="shards")
    put(store, make, A, kind="checkpoints")
    put(store, make, A, kind="results")
    with store.draft("results", B) as draft:
        draft.write("x", __import__("numpy").zeros(1))
        parents = {k: {"kind": "shards", "key": k} for k in (A, B, C)}
        artifact = draft.publish(
            type="Table", version=1, canonical="", spec={}, provenance={}, parents=parents
        )
    os.utime(artifact.path, (0, 0))
    recording = RunRecording(store, EXPERIMENT, "x")
    recording.add_targets([ref(B), ("shards", C)], {ref(B): [], ("shards", C): []})
    recording.complete()
    pin(store, ("shards", D), [("shards", D)])

    found = look(store)
    drop, keep = evictable(found, "shards", lambda m: "its dataset is gone" if m.key == B else None)
    assert [item.ref for item in drop] == [("shards", A)]
    reasons = {key: why for (_, key), _, why in keep}
    assert reasons[B] == "its dataset is gone"
    assert reasons[C].startswith("a target of the latest run")
    assert reasons[D].startswith("pinned")
    collect(found, drop)
    assert store.find("shards", A) is None
    assert store.find("results", B)
    assert manifest_given_up(store, "shards", A).provenance["host"] == "here"  # type: ignore[union-attr]


def test_what_was_given_up_still_keeps_what_it_was_made_from(store: Store, make: Any) -> None:
    put(store, make, A)
    put(store, make, B, A, kind="results")
    put(store, make, C, B)
    want(store, C).complete()
    found = look(store)
    drop, _ = evictable(found, "results", lambda manifest: None)
    assert {item.ref[1] for item in drop} == {A, B}
    collect(found, [item for item in drop if item.ref[1] == B])
    assert stale_keys(store) == set()
    assert [link for link, _ in look(store).why(ref(A))] == [ref(C), ref(B), ref(A)]


def test_an_unfinished_run_gives_up_nothing(store: Store, make: Any) -> None:
    put(store, make, A)
    put(store, make, C, A)
    want(store, C).complete()
    found = look(store)
    drop, _ = evictable(found, "results", lambda manifest: None)
    assert [item.ref[1] for item in drop] == [A]
    want(store, D, below={D: [A], A: []})
    done = collect(found, drop)  # asked about before the run began
    assert done.moved == []
    assert "used by the latest run" in done.spared[0][1]
    assert store.find("results", A)


# Races, each at the point that a step of the protocol is there for


def at(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, act: Callable[[], object]
) -> list[str]:
    """Calls `act` once, right before `module.name` is called the next time."""
    real, log = getattr(module, name), []

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if not log:
            log.append(name)
            act()
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, wrapped)
    return log


def test_c2_a_run_that_begins_after_the_survey_is_heard(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, make, A)
    put(store, make, B)
    found = look(store)
    doomed = list(found.stale({}))
    want(store, A)
    tried: list[str] = []
    real = gc.move_to_trash_if_same
    monkeypatch.setattr(
        gc, "move_to_trash_if_same", lambda *args: tried.append(args[2]) or real(*args)
    )
    done = collect(found, doomed)
    assert [item.ref[1] for item in done.moved] == tried == [B]  # never away, not even for a moment
    assert "in progress" in done.spared[0][1]


class CachedListings:
    """Listings as one host has cached them. Creating a file in a folder drops its listing."""

    def __init__(self) -> None:
        self.listdir, self.open = os.listdir, os.open
        self.cached: dict[str, list[str]] = {}

    def list(self, path: Any) -> list[str]:
        if str(path) not in self.cached:
            self.cached[str(path)] = self.listdir(path)
        return self.cached[str(path)]

    def create(self, path: Any, flags: int, *args: Any, **options: Any) -> int:
        if flags & os.O_CREAT:
            self.cached.pop(os.path.dirname(path), None)
        return self.open(path, flags, *args, **options)

    @contextmanager
    def in_use(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(os, "listdir", self.list)
            patch.setattr(os, "open", self.create)
            yield


def test_c2_a_run_is_seen_although_the_listing_of_its_folder_is_stale(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, make, A)
    want(store, B).complete()
    host = CachedListings()
    with host.in_use(monkeypatch):
        found = look(store)
        doomed = list(found.stale({}))
    assert [item.ref for item in doomed] == [ref(A)]
    want(store, A)  # on another host
    with host.in_use(monkeypatch):
        assert look(store).runs == found.runs  # or this test shows nothing
        assert collect(found, doomed).moved == []


def test_r2_a_collection_is_seen_although_the_listing_of_its_folder_is_stale(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    collectors(store.root).mkdir(parents=True)
    host, waited = CachedListings(), []
    with host.in_use(monkeypatch):
        assert os.listdir(collectors(store.root)) == []
    with gc._announced(store):  # on another host
        monkeypatch.setattr(gc, "PATIENCE_S", 0.05)
        with host.in_use(monkeypatch):
            assert os.listdir(collectors(store.root)) == []
            wait_for_collectors(store, lambda: waited.append("waits"))
    assert waited == ["waits"]


def test_c2_what_came_since_keeps_what_it_needs(store: Store, make: Any) -> None:
    put(store, make, A)
    found = look(store)
    doomed = list(found.stale({}))
    put(store, make, B, A, age_s=0)
    assert collect(found, doomed).moved == []


def test_c1_a_run_that_the_collection_missed_waits_for_it(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run writes its record after the collection has read them, and before the move."""
    put(store, make, A)
    seen: list[object] = []

    def run() -> None:
        want(store, A)
        wait_for_collectors(store, lambda: seen.append("waits"))
        seen.append(store.find("results", A))

    thread = threading.Thread(target=run)

    def begin() -> None:
        thread.start()
        deadline = time.monotonic() + 240
        while not seen and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.05)
        assert seen == ["waits"]  # it does not ask the store while things move

    log = at(monkeypatch, gc, "move_to_trash_if_same", begin)
    done = run_gc(store)
    thread.join()
    assert log == ["move_to_trash_if_same"]
    # C4 has seen its record, so what it found at last was there again.
    assert done.moved == []
    assert seen[1].verify() == []  # type: ignore[union-attr, attr-defined]


def test_c4_a_run_that_neither_waits_nor_was_seen_gets_it_back(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, make, A)
    put(store, make, B)
    at(monkeypatch, gc, "move_to_trash_if_same", lambda: want(store, A))
    done = run_gc(store)
    assert [item.ref[1] for item in done.moved] == [B]
    assert store.open("results", A).verify() == []


def test_c3_what_was_replaced_meanwhile_is_put_back(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, make, A)
    path = store.open("results", A).path
    (path / "patches" / "c.0.0.0").unlink()
    os.utime(path, (0, 0))
    at(
        monkeypatch,
        gc,
        "move_to_trash_if_same",
        lambda: make(store, A, attributes={"by": "repair"}),
    )
    done = run_gc(store)
    assert done.moved == []
    assert "replaced" in done.spared[0][1]
    assert store.open("results", A).manifest.attributes == {"by": "repair"}


def test_c3_a_collection_that_was_stopped_announces_itself_anew(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, make, A)
    put(store, make, B)
    names: list[list[str]] = []
    real, clock = gc.move_to_trash_if_same, [0.0]

    def slow(*args: Any) -> Any:
        names.append(sorted(os.listdir(collectors(store.root))))
        clock[0] += 2 * gc.ANNOUNCED_S
        return real(*args)

    monkeypatch.setattr(gc, "move_to_trash_if_same", slow)
    monkeypatch.setattr(gc.time, "monotonic", lambda: clock[0])
    assert len(run_gc(store).moved) == 2
    assert names[0] != names[1]
    assert [name for name in os.listdir(collectors(store.root)) if name[0] != "."] == []


def test_c3_a_file_system_that_is_too_slow_stops_a_collection(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, make, A)
    found = look(store)
    doomed = list(found.stale({}))
    clock = [0.0]
    real = found.refresh

    def slow() -> None:
        clock[0] += 2 * gc.ANNOUNCED_S
        real()

    monkeypatch.setattr(found, "refresh", slow)
    monkeypatch.setattr(gc.time, "monotonic", lambda: clock[0])
    with pytest.raises(StoreError, match="takes longer than 20 s"):
        collect(found, doomed)
    assert store.find("results", A)


def test_c3_a_look_that_is_late_for_once_stops_no_collection(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    """It had to wait until a cache ran out."""
    put(store, make, A)
    found = look(store)
    at(monkeypatch, found, "refresh", lambda: time.sleep(gc.ANNOUNCED_S))
    assert len(collect(found, list(found.stale({}))).moved) == 1


def test_c3_what_was_replaced_under_the_same_inode_stays(store: Store, make: Any) -> None:
    put(store, make, A)
    found = look(store)
    doomed = list(found.stale({}))
    os.utime(store.open("results", A).path)  # as if removed, and made anew
    assert collect(found, doomed).moved == []


def test_c3_what_another_collection_moves_first_is_no_failure(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, make, A)
    put(store, make, B, A)
    want(store, B).complete()
    found, other = look(store), look(store)
    drop, _ = evictable(found, "results", lambda manifest: None)
    assert [item.ref for item in drop] == [ref(A)]
    at(monkeypatch, gc, "keep_manifest", lambda: collect(other, drop))
    done = collect(found, drop)
    assert (done.moved, done.failed) == ([], [])
    assert [item.ref for item, _ in done.spared] == [ref(A)]
    assert len(list(entries(store))) == 1


def test_what_is_away_while_it_is_looked_at_is_not_taken_for_damaged(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another collection moves it, sees that a run wants it, and puts it back."""
    put(store, make, A)
    want(store, A).complete()
    path, aside = store.open("results", A).path, store.root / "aside"
    real = inventory.examine

    def examine(*args: Any) -> Any:
        os.rename(path, aside)
        try:
            return real(*args)
        finally:
            os.rename(aside, path)

    found = Reachability(store)
    monkeypatch.setattr(inventory, "examine", examine)
    found.refresh()
    monkeypatch.setattr(inventory, "examine", real)
    assert collect(found, list(found.stale({}))).moved == []
    assert store.find("results", A)
    found.refresh()
    assert found.is_whole(ref(A))


@pytest.mark.parametrize("begins", ["before", "meanwhile"])
def test_a_run_that_ends_while_records_are_read_is_not_lost(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch, begins: str
) -> None:
    """Its record replaces another that was read."""
    want(store, A).complete()
    recording = want(store, B) if begins == "before" else None
    real, log = roots.read_record, []

    def late(file: Path, what: Any) -> Any:
        found = real(file, what)
        if not log:
            log.append(file)
            (recording or want(store, B)).complete()
        return found

    monkeypatch.setattr(roots, "read_record", late)
    found = Roots(store)
    found.refresh()
    assert log
    assert {ref for run in found.runs for ref in run.targets} == {ref(B)}


def test_a_notebook_that_ends_between_two_looks_is_not_lost(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It publishes after the artifacts were listed, and its record is gone before it is read."""
    put(store, make, A)
    recording = want(store, B, below={B: [A], A: []}, path=None)
    real, log = inventory.StoreScan.refresh, []

    def late(self: Any, progress: Any = None) -> bool:
        found = real(self, progress)
        if not log:
            log.append("ended")
            put(store, make, B, A, age_s=0)
            recording.close()
        return found

    monkeypatch.setattr(inventory.StoreScan, "refresh", late)
    assert stale_keys(store) == set()


def test_a_collection_that_died_is_not_waited_for(store: Store, in_child: Any) -> None:
    store.root.mkdir()

    def die() -> None:
        with gc._announced(store):
            os.kill(os.getpid(), 9)

    assert in_child(die) == 137
    assert len(os.listdir(collectors(store.root))) == 1
    waited: list[int] = []
    wait_for_collectors(store, lambda: waited.append(1))
    assert waited == []


def test_one_on_another_host_is_waited_for_but_not_for_ever(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    collectors(store.root).mkdir(parents=True)
    (collectors(store.root) / "elsewhere.01234567.1.1.1.abcdefab").touch()
    monkeypatch.setattr(gc, "PATIENCE_S", 0.05)
    waited: list[int] = []
    wait_for_collectors(store, lambda: waited.append(1))
    assert waited == [1]


def test_two_collections_at_once(store: Store, make: Any) -> None:
    keys = [f"{i:032x}" for i in range(100)]
    for key in keys:
        put(store, make, key)
    want(store, *keys[::2]).complete()
    surveys = [look(store) for _ in range(2)]
    done: list[gc.Collected] = []
    threads = [
        threading.Thread(target=lambda s=s: done.append(collect(s, list(s.stale({})))))
        for s in surveys
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(store.keys("results")) == keys[::2]
    assert sorted(item.ref[1] for d in done for item in d.moved) == keys[1::2]
    assert [failure for d in done for failure in d.failed] == []


KILLS = ("mkdir", "open", "rename", "replace", "unlink", "utime")


def dying(n: int) -> None:
    """From here on, this process is killed in place of its n-th change of the file system."""
    calls = 0

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == n:
                os.kill(os.getpid(), 9)
            return call(*args, **kwargs)

        return wrapped

    for name in KILLS:
        setattr(os, name, wrap(getattr(os, name)))


@pytest.mark.slow
def test_kill_at_every_point(store: Store, make: Any, in_child: Any) -> None:
    n, code = 0, 137
    while code == 137:
        n += 1
        store = Store(store.root.parent / str(n))
        for key in (A, B, C, D):
            put(store, make, key)
        want(store, A).complete()
        put(store, make, D, kind="shards")
        pin(store, ref(D), [ref(D), ("shards", D)])

        def work() -> None:
            dying(n)  # noqa: B023
            run_gc(store)  # noqa: B023
            found = look(store)  # noqa: B023
            drop, _ = evictable(found, "shards", lambda manifest: None)
            collect(found, drop)

        code = in_child(work)
        for key in (A, D):
            assert store.open("results", key).verify() == []
        for key in (B, C):  # either here or in the trash, whole
            if store.find("results", key) is None:
                restore(store, "results", key)
            assert store.open("results", key).verify() == []
            os.utime(store.open("results", key).path, (0, 0))
        if store.find("shards", D) is None:
            assert manifest_given_up(store, "shards", D)
            restore(store, "shards", D)
        assert store.open("shards", D).verify() == []
        waited: list[int] = []
        wait_for_collectors(store, lambda: waited.append(1))  # noqa: B023
        assert waited == []
        run_gc(store)
        assert sorted(store.keys("results")) == [A, D]
    assert code == 0
    assert n > 25


def test_a_move_that_fails_is_told_and_the_rest_goes_on(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, make, A)
    put(store, make, B)
    rename = os.rename

    def refuse(source: Any, target: Any) -> None:
        if A in str(source):
            raise PermissionError(13, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    done = run_gc(store)
    assert [item.ref[1] for item in done.moved] == [B]
    assert "permission denied" in done.failed[0][1]


# Details


def test_roots_are_read_again_only_when_they_changed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    want(store, A).complete()
    found = Roots(store)
    assert found.refresh()
    monkeypatch.setattr(roots, "read_record", None)
    assert not found.refresh()
    monkeypatch.undo()
    want(store, B)
    assert found.refresh()
    assert len(found.runs) == 2


def test_a_survey_sees_what_comes_goes_and_is_replaced(store: Store, make: Any) -> None:
    put(store, make, A)
    found = look(store)
    put(store, make, B)
    found.refresh()
    assert found.artifacts.keys() == {ref(A), ref(B)}
    (store.open("results", A).path / "zarr.json").unlink()
    make(store, A, attributes={"new": True})
    before = found.artifacts[ref(A)]
    found.refresh()
    assert found.artifacts[ref(A)].identity != before.identity
    os.rename(store.open("results", B).path, store.root / "elsewhere")
    found.refresh()
    assert found.artifacts.keys() == {ref(A)}


def test_a_record_survives_a_round_trip(tmp_path: Path) -> None:
    graph = {ref(C): (ref(A), ref(B)), ref(A): (), ref(B): (ref(A),)}
    run = Run.begin("x", tmp_path / "x.py").wanting([ref(C)], graph)
    write_record(tmp_path / "x.json", run)
    assert json.loads((tmp_path / "x.json").read_text())["targets"] == [["results", C]]
    assert roots.read_record(tmp_path / "x.json", Run) == run
    assert run.graph == graph
    assert roots.read_record(tmp_path / "none.json", Run) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3600, "1 h"), (86400, "1 day"), (7 * 86400, "7 days"), (5400, "90 min"), (0, "0 s")],
)
def test_lengths_of_time_in_words(seconds: float, words: str) -> None:
    assert survey.duration(seconds) == words


# Finished parts of what is being made


def part(store: Store, make: Any, key: str, age_s: float = 9e4) -> Path:
    """A part of an artifact that is not there."""
    place = part_home(store.root, "results", key, 0)
    place.parent.mkdir(parents=True)
    make(store, part_key(key, 0)).path.rename(place)
    at = time.time() - age_s
    os.utime(place.parent, (at, at))
    return place


def test_parts_stay_while_a_run_wants_them(store: Store, make: Any) -> None:
    for key in (A, B):
        part(store, make, key)
    part(store, make, C, age_s=60.0)
    put(store, make, D)
    part(store, make, D)
    recording = want(store, A, D)
    assert {(item.ref[1], item.reason) for item in stale(store)} == {
        (B, StaleReason.PARTS),
        (D, StaleReason.PARTS),
    }
    done = run_gc(store)
    assert [item.reason for item in done.moved] == [StaleReason.PARTS, StaleReason.PARTS]
    assert sorted(path.name for path in works(store.root, "results").iterdir()) == [A, C]
    assert store.open("results", D).verify() == []
    recording.complete()
    assert stale(store) == []
    forget_runs(store, EXPERIMENT)
    assert {item.ref[1] for item in stale(store)} == {A, D}
    with pytest.raises(MissingArtifact):
        restore(store, "results", B)


def test_a_part_that_comes_meanwhile_keeps_the_others(store: Store, make: Any) -> None:
    place = part(store, make, A)
    found = look(store)
    (item,) = found.stale({})
    (place.parent / "1").mkdir()
    done = collect(found, [item])
    assert [why for _, why in done.spared] == ["it was replaced or moved meanwhile"]
    assert place.is_dir()


def test_parts_that_a_run_wants_meanwhile_are_put_back(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = part(store, make, A)
    found = look(store)
    real = gc.move_to_trash_if_same

    def late(*args: Any) -> Any:
        target = real(*args)
        want(store, A)
        return target

    monkeypatch.setattr(gc, "move_to_trash_if_same", late)
    done = collect(found, list(found.stale({})))
    assert len(done.spared) == 1
    assert place.is_dir()


def test_records_are_read_while_runs_keep_beginning(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two equal listings in a row may never be seen in a busy store."""
    monkeypatch.setattr(network_caches, "LISTED_S", 0.1)
    recordings: list[RunRecording] = []
    list_files = Roots._files

    def begin_another_run(self: Roots) -> list[Path]:
        if len(recordings) < 50:
            recordings.append(want(store, A))
        return list_files(self)

    put(store, make, A)
    monkeypatch.setattr(Roots, "_files", begin_another_run)
    found = Roots(store)
    assert found.refresh()
    assert len(found.in_progress) == len(recordings) == 50


@given(st.integers(0, 2**31 * 10**9))
def test_the_time_of_an_artifact_equals_that_of_its_folder(mtime_ns: int) -> None:
    """With a grace period of 0, what was published within the clock's last tick is stale."""
    with tempfile.TemporaryDirectory() as folder:
        os.utime(folder, ns=(mtime_ns, mtime_ns))
        identity = identity_of(Path(folder))
        assert identity is not None
        assert StoredEntry(ref(A), Path(folder), identity).changed == os.stat(folder).st_mtime
