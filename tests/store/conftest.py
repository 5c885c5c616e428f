"""What the tests of the store share: an empty store, and ways to fill it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store import Draft, Store, StoredArtifact
from store.locks.heartbeat import heartbeats


def _publish(draft: Draft, **changes: Any) -> StoredArtifact:
    facts: dict[str, Any] = {
        "type": "Thing",
        "version": 1,
        "canonical": '{"n":1}',
        "spec": {"n": 1, "vit": {"name": "tiny"}},
        "parents": {"shards": {"kind": "shards", "key": "f" * 32}},
        "provenance": {"host": "here", "wall_s": 0.5},
    }
    return draft.publish(**(facts | changes))


def _fill(draft: Draft) -> None:
    """Two arrays, one in a group, one over several shards."""
    values = np.arange(7 * 2 * 3, dtype="float32").reshape(7, 2, 3)
    with draft.array("patches", values.shape, "f4", rows_per_chunk=2, rows_per_shard=4) as writer:
        for rows in np.array_split(values, 3):
            writer.append(rows)
    draft.write("a group/ids", np.arange(5), {"unit": "images"})


def _make(store: Store, key: str, kind: str = "results", **changes: Any) -> StoredArtifact:
    with store.draft(kind, key) as draft:
        _fill(draft)
        return _publish(draft, **changes)


def _entries(store: Store, folder: str, kind: str = "results") -> list[str]:
    path = store.root_of(kind) / kind / folder
    return sorted(os.listdir(path)) if path.exists() else []


def _in_child(function: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


@pytest.fixture(autouse=True)
def _quiet_heart() -> Iterator[None]:
    """What a test leaves open beats in no other."""
    yield
    thread = heartbeats._thread
    for thing in list(heartbeats._members.values()):
        heartbeats.remove(thing)
    if thread is not None:
        thread.join(10)


@pytest.fixture(scope="session")
def key() -> str:
    return "0123456789abcdef" * 2


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(scope="session")
def publish() -> Callable[..., StoredArtifact]:
    """Publishes a draft, with a manifest of no interest but for what is given."""
    return _publish


@pytest.fixture(scope="session")
def fill() -> Callable[[Draft], None]:
    """Writes some arrays into a draft; without polars, which does not survive a fork."""
    return _fill


@pytest.fixture(scope="session")
def make() -> Callable[..., StoredArtifact]:
    """Makes a whole small artifact: (store, key, kind="results", **changes of the manifest)."""
    return _make


@pytest.fixture(scope="session")
def entries() -> Callable[..., list[str]]:
    """Names in `.build` or `.trash`: (store, folder, kind="results")."""
    return _entries


@pytest.fixture(scope="session")
def in_child() -> Callable[[Callable[[], object]], int]:
    """Runs a function in a forked process: 0 if it returns, 1 if it raises, 128 + n by signal n."""
    return _in_child


@pytest.fixture(scope="module")
def no_fsync() -> Iterator[None]:
    """For tests that make many artifacts and pull no plug."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        yield
