"""Leases: one owner per key, dead owners are detected by every rule, live ones keep their lease."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from store import LeaseOwner, Store, StoreError
from store.layout import owner_file
from store.locks import heartbeat as heartbeats
from store.locks import lease as leases
from store.locks import slurm
from store.locks.heartbeat import BEAT_S
from store.locks.lease import LeaseFile
from store.locks.liveness import ENDED_S, INCOMPLETE_S, LOST_S, RESTARTED_S, STALE_IN_JOB_S, STALE_S
from store.locks.process import ProcessId

KIND = "results"
ELSEWHERE: dict[str, Any] = {"host": "elsewhere"}
"""A process that only Slurm or its heartbeat can show to be dead."""


@pytest.fixture(autouse=True)
def _no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(slurm, "_answers", {})


@pytest.fixture
def beats(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short intervals between heartbeats."""
    monkeypatch.setattr(heartbeats, "BEAT_S", 0.02)
    yield
    heartbeats.heartbeats._wake.set()


def folder(store: Store, key: str) -> Path:
    return store.root_of(KIND) / KIND / ".leases" / key


def leave(store: Store, key: str, *, age_s: float = 0.0, **changes: Any) -> str:
    """Write a lease as another process would, with an old heartbeat, and return its token."""
    content = msgspec.structs.replace(LeaseFile.here(), **changes)
    folder(store, key).mkdir(parents=True)
    owner_file(folder(store, key)).write_bytes(msgspec.json.encode(content))
    beat = time.time() - age_s
    os.utime(owner_file(folder(store, key)), (beat, beat))
    return content.token


def leave_incomplete(store: Store, key: str, *, age_s: float, content: bytes | None = None) -> None:
    path = folder(store, key)
    path.mkdir(parents=True)
    if content is not None:
        owner_file(path).write_bytes(content)
        os.utime(owner_file(path), (time.time() - age_s,) * 2)
    os.utime(path, (time.time() - age_s,) * 2)


def only(store: Store) -> LeaseOwner:
    (found,) = store.leases(KIND)
    return found


def trash(store: Store) -> list[str]:
    path = store.root / KIND / ".trash"
    return os.listdir(path) if path.exists() else []


def test_a_key_has_one_owner_at_a_time(store: Store, key: str) -> None:
    with store.lease(KIND, key) as lease:
        assert store.lease(KIND, key) is None
        found = only(store)
        assert (found.kind, found.key, found.may_be_alive) == (KIND, key, True)
        assert found.file.process == ProcessId.here()
        assert str(found) == f"{ProcessId.here().host} (process {os.getpid()})"
        assert 0 <= found.age_s < 5
        assert str(os.getpid()) in str(found)
        assert not lease.lost
        assert store.is_leased_here(KIND, key)
    assert lease.lost
    assert not store.is_leased_here(KIND, key)
    assert list(store.leases()) == []
    assert trash(store) == []
    lease.release()
    store.lease(KIND, key).release()


@pytest.mark.parametrize("job", [None, "77"])
def test_lease_files_on_disk(
    store: Store, key: str, monkeypatch: pytest.MonkeyPatch, job: str | None
) -> None:
    if job:
        monkeypatch.setenv("SLURM_JOB_ID", job)
    with store.lease(KIND, key) as lease:
        place = store.root / KIND / ".leases"
        assert os.listdir(place / key) == ["owner.json"]
        content = json.loads((place / key / "owner.json").read_text())
        assert re.fullmatch("[0-9a-f]{16}", content.pop("token"))
        assert content == {
            **ProcessId.here()._asdict(),
            "job": job,
            "restarts": "0" if job else None,
        }
        assert not (place / ".clock").exists()
        assert store.lease(KIND, key) is None
        assert (place / ".clock").read_bytes() == b""
        assert lease.token == only(store).token


def test_a_key_of_another_kind_is_another_lease(store: Store, key: str) -> None:
    with store.lease(KIND, key), store.lease("shards", key):
        assert [found.kind for found in store.leases()] == ["shards", KIND]
        assert [found.kind for found in store.leases(keys=["f" * 32])] == []
        assert [found.key for found in store.leases(KIND, [key, "f" * 32])] == [key]


def test_wrong_names_are_refused(store: Store, key: str) -> None:
    with pytest.raises(StoreError, match="kind"):
        store.lease("tables", key)
    with pytest.raises(StoreError, match="key"):
        store.lease(KIND, "../up")
    with pytest.raises(StoreError, match="kind"):
        list(store.leases("tables"))


ALIVE, DEAD = True, False


@pytest.mark.parametrize(
    ("changes", "age_s", "alive"),
    [
        # On this host its process tells, whatever the heartbeat says.
        ({}, 1e9, ALIVE),
        ({"pid": 2**22 + 1}, 0, DEAD),
        ({"started": "1"}, 0, DEAD),
        # Elsewhere the heartbeat does; in another process namespace too.
        (ELSEWHERE, 0, ALIVE),
        (ELSEWHERE, STALE_S - 5, ALIVE),
        (ELSEWHERE, STALE_S + 5, DEAD),
        (ELSEWHERE, -1e6, ALIVE),
        ({"namespace": "1", "pid": 2**22 + 1}, STALE_S - 5, ALIVE),
        ({"namespace": "1"}, STALE_S + 5, DEAD),
        (ELSEWHERE | {"boot": "before", "pid": 2**22 + 1}, 0, ALIVE),
        # Before a restart, or on a second machine of our name.
        ({"boot": "before", "pid": 2**22 + 1}, STALE_S - 5, ALIVE),
        ({"boot": "before"}, STALE_S + 5, DEAD),
    ],
)
def test_when_an_owner_counts_as_alive(
    store: Store, key: str, changes: dict[str, Any], age_s: float, alive: bool
) -> None:
    token = leave(store, key, age_s=age_s, **changes)
    assert only(store).may_be_alive is alive
    lease = store.lease(KIND, key)
    if alive:
        assert lease is None
        assert only(store).token == token
    else:
        assert only(store).token == lease.token != token
        lease.release()
        assert trash(store) == []


@pytest.mark.parametrize(
    ("runs", "age_s", "alive"),
    [
        (True, STALE_S + 5, ALIVE),
        (True, STALE_IN_JOB_S + 5, DEAD),  # it died, and its job goes on
        (False, ENDED_S - 5, ALIVE),  # perhaps a job of another cluster
        (False, ENDED_S + 5, DEAD),
        (None, STALE_S - 5, ALIVE),
        (None, STALE_S + 5, DEAD),
    ],
)
def test_when_a_slurm_job_counts_as_alive(
    store: Store,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
    runs: bool | None,
    age_s: float,
    alive: bool,
) -> None:
    asked = []
    monkeypatch.setattr(slurm, "job_runs", lambda job: asked.append(job) or runs)
    leave(store, key, age_s=age_s, job="77", restarts="0", **ELSEWHERE)
    assert only(store).may_be_alive is alive
    assert asked == ["77"]
    assert "Slurm job 77" in str(only(store))


def test_a_process_on_this_host_needs_no_squeue(
    store: Store, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "job_runs", lambda job: pytest.fail("asked"))
    leave(store, key, job="77", restarts="0", pid=2**22 + 1)
    assert not only(store).may_be_alive


def test_a_requeued_job_breaks_its_own_lease(
    store: Store, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "job_runs", lambda job: True)
    leave(store, key, job="77", restarts="0", **ELSEWHERE)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    assert store.lease(KIND, key) is None  # another task of the same job
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with store.lease(KIND, key):
        assert (only(store).file.job, only(store).file.restarts) == ("77", "1")


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake squeue, first on the path, that logs its arguments."""
    script = tmp_path / "bin" / "squeue"
    script.parent.mkdir()
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    return script


@pytest.mark.parametrize(
    ("body", "runs"),
    [
        ("echo '77|77|N/A|RUNNING|ann|n1|None|a|b'", True),
        ("echo '77|70|3|COMPLETING|ann|n1|None|a'", True),
        ("echo '77|77|N/A|SUSPENDED|ann|n1|None|a'", True),
        ("echo '77|77|N/A|PENDING|ann||BeginTime|a'", False),  # put back into the queue
        ("echo '77|77|N/A|COMPLETED|ann||None|a'", False),
        # 77 is an array, and its last task
        (
            "echo '78|77|0|RUNNING|ann|n1|None|a'; echo '77|77|1|PENDING|ann||Priority|a'",
            False,
        ),
        ("true", False),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", False),
        ("echo 'Unable to contact slurm controller' >&2; exit 1", None),
        ("exec sleep 3600", None),
    ],
)
def test_answers_of_squeue_are_cached(
    squeue: Path, monkeypatch: pytest.MonkeyPatch, body: str, runs: bool | None
) -> None:
    monkeypatch.setattr(slurm, "TIMEOUT_S", 0.2 if "sleep" in body else 240.0)
    squeue.write_text(f'#!/bin/sh\necho "$*" >> {squeue}.log\n{body}\n')
    squeue.chmod(0o755)
    assert slurm.job_runs("77") is runs
    assert slurm.job_runs("77") is runs
    (asked,) = Path(f"{squeue}.log").read_text().splitlines()
    assert asked.endswith(" --jobs=77")
    monkeypatch.setattr(slurm, "REMEMBER_S", 0.0)
    assert slurm.job_runs("77") is runs
    assert len(Path(f"{squeue}.log").read_text().splitlines()) == 2


def test_squeue_runs_once_for_all_jobs_while_slurm_does_not_answer(squeue: Path) -> None:
    squeue.write_text(f'#!/bin/sh\necho "$*" >> {squeue}.log\nexit 1\n')
    squeue.chmod(0o755)
    assert [slurm.job_runs(job) for job in ("77", "78", "79")] == [None] * 3
    assert len(Path(f"{squeue}.log").read_text().splitlines()) == 1


def test_without_squeue_the_state_is_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm.job_runs("77") is None


def test_the_local_clock_does_not_matter(
    store: Store, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the owner's clock nor ours: only times of files on one server are compared."""
    leave(store, key, **ELSEWHERE)
    for skew_s in (-1e6, 1e6):
        monkeypatch.setattr(time, "time", lambda skew_s=skew_s: skew_s)
        assert only(store).age_s < 5
        assert store.lease(KIND, key) is None


def test_no_heartbeat_has_a_negative_age(store: Store, key: str) -> None:
    leave(store, key, age_s=-1e6, **ELSEWHERE)
    assert only(store).age_s == 0


def test_without_the_file_servers_clock_no_owner_is_dead(
    store: Store, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(store, key, age_s=1e9, **ELSEWHERE)
    monkeypatch.setattr(leases, "server_time", lambda folder: None)
    assert only(store).may_be_alive
    assert only(store).age_s is None
    assert store.lease(KIND, key) is None
    monkeypatch.setattr(slurm, "job_runs", lambda job: True)
    leave(store, "f" * 32, age_s=1e9, job="77", restarts="0", **ELSEWHERE)
    assert [found.may_be_alive for found in store.leases(KIND)] == [True, True]


def test_the_clock_file_of_another_user(
    store: Store, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(store, key, **ELSEWHERE)

    def read_only(*args: Any) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(os, "utime", read_only)
    assert only(store).may_be_alive


@pytest.mark.parametrize("content", [None, b"", b'{"token": "0123'])
def test_an_incomplete_lease_is_broken_after_a_while(
    store: Store, key: str, content: bytes | None
) -> None:
    leave_incomplete(store, key, age_s=INCOMPLETE_S - 5, content=content)
    assert only(store).may_be_alive
    assert only(store).file is None
    assert "just begun" in str(only(store))
    assert store.lease(KIND, key) is None
    os.utime(folder(store, key), (time.time() - INCOMPLETE_S - 5,) * 2)
    if content is not None:
        os.utime(owner_file(folder(store, key)), (time.time() - INCOMPLETE_S - 5,) * 2)
    with store.lease(KIND, key) as lease:
        assert only(store).token == lease.token


def test_a_process_that_slept_while_creating_a_lease_does_not_take_the_next_one(
    store: Store, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its mkdir and its owner file, the lease is broken and acquired by another."""
    write, taken = leases.write_new, []

    def sleepy(path: Path, data: bytes) -> None:
        monkeypatch.setattr(leases, "write_new", write)
        os.utime(path.parent, (time.time() - INCOMPLETE_S - 5,) * 2)
        taken.append(store.lease(KIND, key))
        write(path, data)

    monkeypatch.setattr(leases, "write_new", sleepy)
    assert store.lease(KIND, key) is None
    assert only(store).token == taken[0].token
    taken[0].release()


@pytest.mark.parametrize("call", ["mkdir", "open", "write"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
def test_system_errors_are_reported_and_leave_nothing(
    store: Store, key: str, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    store.lease(KIND, "f" * 32).release()
    real = getattr(os, call)

    def failing(*args: Any, **kwargs: Any) -> Any:
        path = os.readlink(f"/proc/self/fd/{args[0]}") if call == "write" else str(args[0])
        if key in path and (call != "open" or args[1] & os.O_CREAT):
            raise OSError(code, os.strerror(code), path)
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        with pytest.raises(StoreError, match=errno.errorcode[code]):
            store.lease_all([(KIND, "e" * 32), (KIND, key)])
    assert list(store.leases()) == []
    store.lease(KIND, key).release()


def test_all_leases_or_none(store: Store) -> None:
    wanted = [("shards", "3" * 32), (KIND, "2" * 32), (KIND, "1" * 32)]
    taken = store.lease_all(wanted)
    assert [(lease.kind, lease.key) for lease in taken] == sorted(wanted)
    assert store.lease_all([(KIND, "0" * 32), wanted[1]]) is None
    assert len(list(store.leases())) == 3
    for lease in taken:
        lease.release()
    with store.lease(*wanted[0]):
        assert store.lease_all(wanted) is None
        assert [found.key for found in store.leases()] == ["3" * 32]
    assert store.lease_all([]) == []


def test_a_key_given_twice_is_leased_once(store: Store, key: str) -> None:
    (lease,) = store.lease_all([(KIND, key), (KIND, key)])
    lease.release()


def test_an_interrupt_releases_the_acquired_leases(
    store: Store, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire = leases.acquire

    def interrupted(root: Path, kind: str, key: str) -> Any:
        if key.startswith("2"):
            raise KeyboardInterrupt
        return acquire(root, kind, key)

    monkeypatch.setattr(leases, "acquire", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.lease_all([(KIND, "1" * 32), (KIND, "2" * 32)])
    assert list(store.leases()) == []


def test_one_thread_beats_for_all_leases_and_ends(store: Store, key: str, beats: None) -> None:
    n_threads = threading.active_count()
    taken = store.lease_all([(KIND, f"{i:032x}") for i in range(5)])
    assert threading.active_count() == n_threads + 1
    long_ago = time.time() - 1e6
    for lease in taken:
        os.utime(owner_file(lease.path), (long_ago, long_ago))
    deadline = time.monotonic() + 240
    while max(found.age_s for found in store.leases()) > 5:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for lease in taken:
        lease.release()
    while threading.active_count() > n_threads:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_owner_of_a_broken_lease_notices_and_stops_beating(
    store: Store, key: str, beats: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = store.lease(KIND, key)
    folder(store, key).rename(store.root / "broken")
    assert lease.lost
    time.sleep(0.1)  # a beat that had looked before the lease was broken is over
    token = leave(store, key, age_s=100, **ELSEWHERE)
    time.sleep(0.1)
    assert only(store).age_s > 90
    assert lease.lost
    monkeypatch.setattr(leases, "_remove", lambda *args: pytest.fail("the lease is another's"))
    lease.release()
    assert only(store).token == token


def test_a_lease_acquired_again_by_its_process_keeps_beating(
    store: Store, key: str, beats: None
) -> None:
    first = store.lease(KIND, key)
    folder(store, key).rename(store.root / "broken")
    with store.lease(KIND, key) as second:
        first.release()
        assert store.is_leased_here(KIND, key)
        assert not second.lost


def test_a_forked_child_has_no_leases(store: Store, key: str, in_child: Any) -> None:
    lease = store.lease(KIND, key)

    def child() -> None:
        assert threading.active_count() == 1
        assert not store.is_leased_here(KIND, key)
        assert store.lease(KIND, key) is None
        lease.release()
        with store.lease(KIND, "f" * 32):
            assert threading.active_count() == 2
        assert only(store).token == lease.token

    assert in_child(child) == 0
    assert not lease.lost
    lease.release()


def test_leases_of_a_killed_process_are_free_at_once(store: Store, key: str, in_child: Any) -> None:
    def die() -> None:
        assert store.lease(KIND, key)
        os.kill(os.getpid(), 9)

    assert in_child(die) == 128 + 9
    assert not only(store).may_be_alive
    store.lease(KIND, key).release()


def in_processes(n: int, function: Any) -> list[Any]:
    """Return the results of a function in n processes that start together."""
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(n), context.SimpleQueue()

    def run(i: int) -> None:
        barrier.wait()
        answers.put(function(i))
        barrier.wait()

    processes = [context.Process(target=run, args=(i,)) for i in range(n)]
    for process in processes:
        process.start()
    got = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    return got


@pytest.mark.slow
@pytest.mark.parametrize("dead", [None, "an owner", "incomplete"])
def test_of_many_processes_one_acquires_the_lease(store: Store, key: str, dead: str | None) -> None:
    for i in range(10):
        key = f"{i:032x}"
        if dead == "an owner":
            leave(store, key, age_s=STALE_S + 5, **ELSEWHERE)
        elif dead == "incomplete":
            leave_incomplete(store, key, age_s=INCOMPLETE_S + 5)

        def attempt(_: int, key: str = key) -> str | None:
            lease = store.lease(KIND, key)
            return lease.token if lease else None

        tokens = [token for token in in_processes(6, attempt) if token]
        (standing,) = [found.token for found in store.leases(KIND, [key])]
        assert standing in tokens
        # Where a dead lease is broken, a late breaker may take the new one away while a third
        # comes; then its first holder has lost it, and sees so.
        assert len(tokens) <= (1 if dead is None else 2)


def test_breaking_a_lease_puts_back_one_that_was_acquired_meanwhile(store: Store, key: str) -> None:
    """Two processes find an owner dead; one acquires the lease before the other breaks it."""
    judged = leave(store, key, age_s=STALE_S + 5, **ELSEWHERE)
    with store.lease(KIND, key) as first:
        leases._remove(store.root, KIND, key, judged)
        assert not first.lost
        assert only(store).token == first.token
    assert trash(store) == []
    leases._remove(store.root, KIND, key, judged)
    assert list(store.leases()) == []


def test_a_lease_is_deleted_under_a_name_that_cannot_be_restored(
    store: Store, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(shutil, "rmtree", lambda path, **options: seen.append(path.suffix))
    with store.lease(KIND, key):
        pass
    assert seen == [".deleted"]


def test_a_third_process_acquires_the_key_while_a_lease_is_put_back(
    store: Store, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then one of two owners has lost its lease and notices; nothing is left."""
    judged = leave(store, key, age_s=STALE_S + 5, **ELSEWHERE)
    first = store.lease(KIND, key)
    read, third = leases.read_lease_file, []

    def slow_read(path: Path) -> Any:
        if not third:
            third.append(None)
            third[0] = store.lease(KIND, key)
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(leases, "read_lease_file", slow_read)
        leases._remove(store.root, KIND, key, judged)
    assert first.lost
    assert not third[0].lost
    first.release()
    assert only(store).token == third[0].token
    third[0].release()
    assert trash(store) == []


@pytest.mark.slow
def test_no_two_processes_own_a_key_at_once(store: Store) -> None:
    """Many processes acquire and release few keys; a folder marks each key that is owned."""
    keys = [f"{i:032x}" for i in range(4)]
    marks = store.root / "marks"
    marks.mkdir(parents=True)

    def run(i: int) -> int:
        n_taken, turn, deadline = 0, 0, time.monotonic() + 240
        while n_taken < 10 and time.monotonic() < deadline:
            turn += 1
            wanted = [keys[(i + turn) % 4], keys[(i * turn) % 4]]
            taken = store.lease_all([(KIND, key) for key in wanted])
            if taken is None:
                continue
            n_taken += 1
            for lease in taken:
                os.mkdir(marks / lease.key)
            for lease in taken:
                os.rmdir(marks / lease.key)
                lease.release()
        return n_taken

    assert in_processes(6, run) == [10] * 6
    assert list(store.leases()) == []
    assert list(marks.iterdir()) == []


def test_time_limits_are_as_documented() -> None:
    assert (BEAT_S, STALE_S, STALE_IN_JOB_S, ENDED_S, INCOMPLETE_S) == (30, 150, 600, 60, 30)
    assert (LOST_S, RESTARTED_S) == (7 * 86400, 3600)
