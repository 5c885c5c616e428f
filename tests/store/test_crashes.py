"""Killed processes and failing disks leave nothing incomplete visible, and the next run works."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from store import Store, StoreError
from store.locks.process import ProcessId

from .killing import dying

# A killed process loses nothing that it had written; only a crash of the machine needs the flush.
pytestmark = pytest.mark.usefixtures("no_fsync")


def damage(artifact: Any) -> None:
    (artifact.path / "patches" / "c.1.0.0").unlink()


KILLS = ("mkdir", "open", "write", "fsync", "close", "rename")


@pytest.mark.slow
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

        code = in_child(lambda: (dying(n, KILLS), make(store, key, attributes={"by": "killed"})))  # noqa: B023

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


def test_the_draft_of_a_live_process_stays(
    store: Store, key: str, make: Any, fill: Any, publish: Any
) -> None:
    with store.draft("results", key) as slow:
        fill(slow)
        other = make(store, "f" * 32)
        with store.draft("results", key):
            pass
        assert publish(slow).verify() == []
    assert other.verify() == []


def test_drafts_of_other_hosts_and_keys_stay(
    store: Store, key: str, make: Any, entries: Any, in_child: Any
) -> None:
    def leave(key: str, host: str | None = None) -> str:
        def child() -> None:
            here = ProcessId.here()._replace(host=host or os.uname().nodename)
            name = f"{key}.{here}.00000000"
            (store.root / "results" / ".build" / name).mkdir(parents=True)

        before = set(entries(store, ".build"))
        assert in_child(child) == 0
        (name,) = set(entries(store, ".build")) - before
        return name

    mine, elsewhere, other_key = leave(key), leave(key, "elsewhere"), leave(key[:-1] + "0")
    foreign = f"{key}.what is this"
    (store.root / "results" / ".build" / foreign).mkdir()
    make(store, key)
    left = [name for name in entries(store, ".build") if name != ".clock"]
    assert left == sorted([elsewhere, other_key, foreign])
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
def test_system_errors_are_explained_and_leave_nothing(
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
