"""Runs on hosts that nobody can ask: a heartbeat, aged by the file server's clock."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from store import Store
from store.gc import roots
from store.gc.records import Run, is_over, read_record, write_record
from store.gc.roots import Roots, RunRecording
from store.layout import runs
from store.locks import heartbeat as heartbeats
from store.locks import liveness
from store.locks.liveness import LOST_S

pytestmark = pytest.mark.usefixtures("no_fsync")

FILE = Path("/home/someone/experiment.py")
REF = ("results", "a" * 32)
OLD_S = time.time() - 2 * LOST_S


def begin(store: Store, path: Path | None = FILE) -> RunRecording:
    recording = RunRecording(store, path, "experiment")
    recording.add_targets([REF], {REF: ()})
    return recording


def age(folder: Path) -> list[Path]:
    files = list(folder.glob("*/.runs/*/*.json"))
    for file in files:
        os.utime(file, (OLD_S, OLD_S))
    return files


def elsewhere(store: Store) -> Path:
    run = Run(name="x", path=str(FILE), owner="elsewhere.0.0.1.0", began=1.0, nodes=[REF])
    file = runs(store.root) / run.folder / "elsewhere.0.0.1.0.abcdefab.json"
    write_record(file, run)
    return file


def read(file: Path) -> Run:
    run = read_record(file, Run)
    assert run
    return run


class Member:
    """Counts its heartbeats."""

    def __init__(self, name: str) -> None:
        self.path = Path(name)
        self.n_beats = 0

    def beat(self) -> None:
        self.n_beats += 1


def test_members_that_come_and_go_beat_no_sooner_and_no_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An early beat could touch a draft while it is published, so that it seems new."""
    members = [Member(f"{i}") for i in range(300)]
    for member in members:
        heartbeats.heartbeats.add(member)
        time.sleep(0.0)
        heartbeats.heartbeats.remove(member)
    assert sum(member.n_beats for member in members) == 0
    monkeypatch.setattr(heartbeats, "BEAT_S", 0.01)
    while not any(member.n_beats for member in members):
        for member in members:
            heartbeats.heartbeats.add(member)
            time.sleep(0.001)
            heartbeats.heartbeats.remove(member)


def test_a_run_that_goes_on_keeps_its_record_young(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every copy of it, in each root."""
    monkeypatch.setattr(heartbeats, "BEAT_S", 0.01)
    store = Store(tmp_path / "a", {"shards": tmp_path / "b"})
    recording = begin(store)
    files = age(tmp_path)
    assert len(files) == 2
    end = time.monotonic() + 240
    while any(file.stat().st_mtime < OLD_S + 1 for file in files) and time.monotonic() < end:
        time.sleep(0.01)
    assert all(file.stat().st_mtime > OLD_S + 1 for file in files)
    recording.close()  # as one cut off does, whose record stays
    assert not heartbeats.heartbeats.beats_for(recording.path)
    age(tmp_path)
    time.sleep(0.1)
    assert all(file.stat().st_mtime < OLD_S + 1 for file in files)


@pytest.mark.parametrize("path", [FILE, None])
def test_a_run_that_has_ended_beats_no_more(store: Store, path: Path | None) -> None:
    recording = begin(store, path)
    assert heartbeats.heartbeats.beats_for(recording.path)
    recording.complete()
    recording.close()
    assert not heartbeats.heartbeats.beats_for(recording.path)
    recording.beat()  # one that was under way
    assert len(list(runs(store.root).glob("*/*.json"))) == bool(path)


def test_no_clock_but_the_file_servers_counts(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = elsewhere(store)
    now = time.time()
    for ahead in (2 * LOST_S, -2 * LOST_S):
        monkeypatch.setattr(time, "time", lambda ahead=ahead: now + ahead)
        assert not is_over(read(file), file)
    os.utime(file, (OLD_S, OLD_S))
    assert is_over(read(file), file)
    found = Roots(store)
    found.refresh()
    assert len(found.runs) == 1  # the latest of those cut off


def test_records_that_beat_while_they_are_read_are_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = begin(store)
    read, n_beats = roots.read_record, []

    def beating(*args: Any) -> Any:
        n_beats.append(os.utime(recording.path, ns=(0, len(n_beats))))
        return read(*args)

    monkeypatch.setattr(roots, "read_record", beating)
    found = Roots(store)
    assert found.refresh()
    assert [run.nodes for run in found.runs] == [[REF]]
    assert len(n_beats) == 1


def test_who_may_not_ask_the_server_takes_no_run_for_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = elsewhere(store)
    os.utime(file, (OLD_S, OLD_S))
    monkeypatch.setattr(liveness, "server_time", lambda folder: None)
    assert not is_over(read(file), file)
