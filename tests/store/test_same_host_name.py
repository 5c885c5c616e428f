"""Of two machines with one host name, neither takes the processes of the other for dead."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store import Store
from store.gc.collector import collect
from store.gc.reachability import Reachability
from store.gc.roots import Roots, RunRecording
from store.locks import heartbeat as heartbeats
from store.locks.liveness import RESTARTED_S
from store.locks.process import ProcessId

pytestmark = pytest.mark.usefixtures("no_fsync")


@contextmanager
def on_the_other() -> Iterator[None]:
    """Everything started in this block belongs to a process of the other machine."""
    twin = ProcessId.here()._replace(boot="twinboot", pid=2**22 + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProcessId, "here", lambda: twin)
        yield


def publish(draft: Any) -> None:
    draft.write("x", np.arange(3))
    draft.publish(type="T", version=1, canonical="", spec={}, parents={}, provenance={})


def test_a_draft_stays_while_its_process_may_be_alive(store: Store, key: str) -> None:
    with on_the_other():
        draft = store.draft("results", key)
    with draft:
        survey = Reachability(store, grace_s=0.0)
        survey.refresh()
        assert list(survey.stale({})) == []
        with store.draft("results", key):  # removes what dead processes left
            pass
        os.utime(draft.path, (0, time.time() - RESTARTED_S + 60))
        survey.refresh()
        assert list(survey.stale({})) == []
        publish(draft)
    assert store.find("results", key)


def test_a_draft_from_before_a_restart_is_removed_after_its_limit(store: Store, key: str) -> None:
    with on_the_other():
        draft = store.draft("results", key)
    with draft:
        os.utime(draft.path, (0, time.time() - RESTARTED_S - 60))
        survey = Reachability(store, grace_s=0.0)
        survey.refresh()
        (orphan,) = survey.stale({})
        assert orphan.path == draft.path
        assert len(collect(survey, [orphan]).moved) == 1
    assert not draft.path.exists()


def test_a_draft_has_a_heartbeat(store: Store, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process may compute for hours before it writes again."""
    monkeypatch.setattr(heartbeats, "BEAT_S", 0.01)
    with store.draft("results", key) as draft:
        os.utime(draft.path, (0, 0))
        end = time.monotonic() + 10
        while draft.path.stat().st_mtime == 0 and time.monotonic() < end:
            time.sleep(0.01)
        assert time.time() - draft.path.stat().st_mtime < 60
    assert not heartbeats.heartbeats.beats_for(draft.path)


def test_all_runs_that_may_continue_count(store: Store) -> None:
    refs = [("results", digit * 32) for digit in "ab"]
    with on_the_other():
        for ref in refs:
            RunRecording(store, Path("/study.py"), "study").add_targets([ref], {ref: ()})
    roots = Roots(store)
    roots.refresh()
    assert sorted(run.targets[0] for run in roots.runs) == refs
