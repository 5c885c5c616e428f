"""Publishing: one winner, nothing replaced, nothing visible before it is whole and durable."""

from __future__ import annotations

import errno
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from store import Store, StoreError
from store.owner import Owner


def damage(artifact: Any) -> None:
    (artifact.path / "patches" / "c.1.0.0").unlink()


def test_artifact_comes_back_as_it_was_given(store: Store, key: str, make: Any) -> None:
    made = make(store, key, attributes={"d_model": 384, "mean": [0.5, None, "x"]})
    for artifact in (made, store.open("results", key)):
        assert artifact.path == store.root / "results" / key[:2] / key
        assert artifact.manifest == made.manifest
        assert artifact.manifest.attributes == {"d_model": 384, "mean": [0.5, None, "x"]}
        assert artifact.manifest.parents["shards"].key == "f" * 32
        assert artifact.arrays() == ["a group/ids", "patches"]
        assert artifact.array("a group/ids").attributes == {"unit": "images"}
        assert artifact.verify() == []


def test_draft_that_is_not_published_leaves_nothing(
    store: Store, key: str, fill: Any, entries: Any
) -> None:
    with store.draft("results", key) as draft:
        fill(draft)
        assert len(entries(store, ".build")) == 1
    assert entries(store, ".build") == []

    def interrupted() -> None:
        with store.draft("results", key) as draft, draft.array("x", (9,), "int8") as writer:
            writer.append(np.zeros(3, "int8"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert entries(store, ".build") == []
    assert store.find("results", key) is None


def test_draft_is_used_in_a_with_statement_and_published_once(
    store: Store, key: str, publish: Any
) -> None:
    draft = store.draft("results", key)
    with pytest.raises(StoreError, match="with statement"):
        draft.write("x", np.zeros(1))
    with draft:
        publish(draft)
        with pytest.raises(StoreError, match="is published"):
            publish(draft)
        with pytest.raises(StoreError, match="is published"):
            draft.table("t", pl.DataFrame({"a": [1]}))


def test_unfinished_arrays_are_named(store: Store, key: str, publish: Any) -> None:
    with store.draft("results", key) as draft:
        draft.array("left open", (1,), "int8")
        with pytest.raises(StoreError, match=r"'left open' \(open\)"):
            publish(draft)


def test_second_one_gets_the_first_ones(
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


def test_damaged_one_is_moved_to_the_trash(store: Store, key: str, make: Any, entries: Any) -> None:
    old = make(store, key, attributes={"by": 1})
    damage(old)
    new = make(store, key, attributes={"by": 2})
    assert new.manifest.attributes == {"by": 2}
    assert store.open("results", key).verify() == []
    (name,) = entries(store, ".trash")
    assert name.startswith(f"{key}.20")
    assert (store.root / "results" / ".trash" / name / "patches" / "c.0.0.0").exists()


@pytest.mark.parametrize("what", ["a file", "an empty folder", "a folder", "a dangling link"])
def test_whatever_stands_in_the_way_is_moved(store: Store, key: str, make: Any, what: str) -> None:
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
    """Attributes of what each of n processes got that published the same key at once."""
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


def test_race_over_a_damaged_one(store: Store, make: Any, entries: Any) -> None:
    for i in range(5):
        key = f"{i:032x}"
        damage(make(store, key))
        race(store, key, make, 6)
        assert store.open("results", key).verify() == []
    assert entries(store, ".build") == []


def test_repair_by_another_is_put_back(
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


def test_everything_is_on_disk_before_the_rename(
    store: Store, key: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    artifact = make(store, key)

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


KILLS = ("mkdir", "open", "write", "fsync", "close", "rename")


def dying(n: int) -> None:
    """From here on, this process is killed in place of its n-th call to the system.

    A write gets half of its bytes out.
    """
    calls = 0

    def wrap(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == n:
                if name == "write":
                    call(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), 9)
            return call(*args, **kwargs)

        return wrapped

    for name in KILLS:
        setattr(os, name, wrap(name, getattr(os, name)))


@pytest.mark.parametrize("before", ["nothing", "a damaged one", "a whole one"])
def test_kill_at_every_point(
    store: Store, key: str, make: Any, entries: Any, in_child: Any, before: str
) -> None:
    n, code = 0, 128 + 9
    while code == 128 + 9:
        n += 1
        store = Store(store.root.parent / str(n))
        if before != "nothing":
            old = make(store, key, attributes={"by": "old"})
        if before == "a damaged one":
            damage(old)

        code = in_child(lambda: (dying(n), make(store, key, attributes={"by": "killed"})))  # noqa: B023

        found = store.find("results", key)
        if found is None:
            assert before != "a whole one"
        else:
            assert found.verify() == []
            assert found.manifest.attributes["by"] == (
                "old" if before == "a whole one" else "killed"
            )
        assert [a.verify() for a in store.scan() if a.key != key] == []

        again = make(store, key, attributes={"by": "again"})
        assert again.verify() == []
        assert store.open("results", key).manifest == again.manifest
        assert entries(store, ".build") == []
    assert code == 0
    assert n > 60  # the loop went through a whole publish


def test_build_of_a_live_process_stays(
    store: Store, key: str, make: Any, fill: Any, publish: Any
) -> None:
    with store.draft("results", key) as slow:
        fill(slow)
        other = make(store, "f" * 32)
        with store.draft("results", key):
            pass
        assert publish(slow).verify() == []
    assert other.verify() == []


def test_builds_of_other_hosts_and_keys_stay(
    store: Store, key: str, make: Any, entries: Any, in_child: Any
) -> None:
    def leave(key: str, host: str | None = None) -> str:
        def child() -> None:
            here = Owner.here()._replace(host=host or os.uname().nodename)
            name = f"{key}.{here}.00000000"
            (store.root / "results" / ".build" / name).mkdir(parents=True)

        before = set(entries(store, ".build"))
        assert in_child(child) == 0
        (name,) = set(entries(store, ".build")) - before
        return name

    mine, elsewhere, other_key = leave(key), leave(key, "elsewhere"), leave("b" * 32)
    foreign = f"{key}.what is this"
    (store.root / "results" / ".build" / foreign).mkdir()
    make(store, key)
    assert entries(store, ".build") == sorted([elsewhere, other_key, foreign])
    assert mine not in entries(store, ".build")
    assert entries(store, ".trash") == []


SYSTEM_ERRORS = {
    errno.ENOSPC: "no space is left",
    errno.EDQUOT: "quota",
    errno.EIO: "I/O error",
    errno.EACCES: "permission denied",
    errno.EROFS: "read-only",
    errno.EXDEV: "different file systems",
    errno.EMFILE: "ulimit",
    errno.EBUSY: "busy",
}


@pytest.mark.parametrize("code", SYSTEM_ERRORS)
@pytest.mark.parametrize("call", ["mkdir", "open", "write", "fsync", "rename", "stat"])
def test_system_errors_are_told_in_words_and_leave_nothing(
    store: Store, key: str, make: Any, entries: Any, call: str, code: int
) -> None:
    make(store, "b" * 32)
    real = getattr(os, call)

    def failing(*args: Any, **kwargs: Any) -> Any:
        path = os.readlink(f"/proc/self/fd/{args[0]}") if isinstance(args[0], int) else str(args[0])
        if str(store.root) in path and (call != "open" or args[1] & os.O_CREAT):
            raise OSError(code, os.strerror(code).lower(), path)
        return real(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, call, failing)
        with pytest.raises(StoreError) as error:
            make(store, key)
    assert SYSTEM_ERRORS[code] in str(error.value)
    assert errno.errorcode[code] in str(error.value)
    assert str(store.root) in str(error.value)
    assert store.find("results", key) is None
    assert entries(store, ".build") == []
    assert make(store, key).verify() == []


def test_file_that_shrank_behind_our_back_is_not_published(
    store: Store, key: str, fill: Any, publish: Any, entries: Any
) -> None:
    with store.draft("results", key) as draft:
        fill(draft)
        (build,) = entries(store, ".build")
        os.truncate(store.root / "results" / ".build" / build / "patches" / "c.0.0.0", 3)
        with pytest.raises(StoreError, match=r"patches/c\.0\.0\.0 is \d+ bytes short"):
            publish(draft)
    assert store.find("results", key) is None


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"x": float("nan")}, "attributes.x is nan"),
        ({"x": [1, {"y": float("inf")}]}, r"attributes.x\[1\].y is inf"),
        ({"x": np.float64(1)}, "float64"),
        ({"x": np.int64(1)}, "int64"),
        ({"x": 1 << 64}, "attributes.x"),
        ({"x": {1, 2}}, "set"),
        ({1: 2}, "attributes has the name 1"),
        ({"x": b"y"}, "bytes"),
        ({"x": "\ud800"}, "attributes.x"),
    ],
)
def test_facts_that_json_would_change_are_refused(
    store: Store, key: str, make: Any, value: Any, says: str
) -> None:
    with pytest.raises(StoreError, match=says):
        make(store, key, attributes=value)
    assert store.find("results", key) is None


@pytest.mark.parametrize(
    "name",
    ["", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", ".a", "__a", "a/__b", "zarr.json", "a\nb",
     "a\0b", "x" * 256, "ü" * 128, "\ud800"],
)  # fmt: skip
def test_names_that_cannot_be(store: Store, key: str, publish: Any, name: str) -> None:
    with store.draft("results", key) as draft:
        with pytest.raises(StoreError, match="rename it"):
            draft.write(name, np.zeros(1))
        if name != "\ud800":  # polars itself refuses that one
            with pytest.raises(StoreError, match="rename it"):
                draft.table("t", pl.DataFrame({name: [1]}))
        assert publish(draft).manifest.files == {}


def test_names_are_taken_once(store: Store, key: str) -> None:
    with store.draft("results", key) as draft:
        draft.write("a", np.zeros(1))
        draft.write("g/a", np.zeros(1))
        draft.table("t", pl.DataFrame({"c": [1]}))
        with pytest.raises(StoreError, match="has 'a' already"):
            draft.write("a", np.zeros(1))
        with pytest.raises(StoreError, match="already"):
            draft.table("g", pl.DataFrame({"c": [1]}))
        with pytest.raises(StoreError, match="in the array 'a'"):
            draft.write("a/b", np.zeros(1))
        with pytest.raises(StoreError, match="in the table 't'"):
            draft.write("t/d", np.zeros(1))


def test_draft_is_broken_by_a_failed_group(
    store: Store, key: str, publish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.draft("results", key) as draft:
        monkeypatch.setattr(os, "write", lambda fd, view: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            draft.table("t", pl.DataFrame({"a": [1]}))
        monkeypatch.undo()
        with pytest.raises(StoreError, match="is broken"):
            publish(draft)
    assert store.find("results", key) is None


def test_parents_are_checked(store: Store, key: str, make: Any) -> None:
    with pytest.raises(StoreError, match="not a kind"):
        make(store, key, parents={"p": {"kind": "shard", "key": key}})
    with pytest.raises(StoreError, match="not a key"):
        make(store, key, parents={"p": {"kind": "shards", "key": "F" * 32}})
