"""Two mounts of one folder that cache names and attributes, as two hosts have them.

sshfs caches what a folder lists and how large a file is, and hears of no change that is made
through the other mount.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from store import Store
from store.check.store_check import StoreCheck
from store.gc.collector import collect
from store.gc.reachability import Reachability
from store.gc.records import Run, read_record, write_record
from store.gc.roots import Roots, RunRecording
from store.io import digest

CACHED_S = 2
"""So long sshfs caches here, to make the tests quick; without the option, 20 s."""

SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server")

EXPERIMENT = Path("/home/someone/cub_layers.py")


def _sftp_server() -> str | None:
    return next(filter(os.path.exists, SERVERS), None)


def _lacking() -> str:
    """What the tests need and this machine does not have."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError:
        return "/dev/fuse cannot be opened"
    tools = [tool for tool in ("sshfs", "fusermount3") if shutil.which(tool) is None]
    return f"no {tools[0]}" if tools else "" if _sftp_server() else "no sftp-server of OpenSSH"


pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(bool(_lacking()), reason=_lacking()),
    pytest.mark.usefixtures("no_fsync"),
]


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    """One store as two hosts see it. Each mount has a server and caches of its own."""
    (tmp_path / "served").mkdir()
    connect = tmp_path / "connect"
    connect.write_text(f"#!/bin/sh\nexec {_sftp_server()}\n")
    connect.chmod(0o755)
    mounted: list[Path] = []
    try:
        for name in ("one", "other"):
            mount = tmp_path / name
            mount.mkdir()
            options = f"ssh_command={connect},dcache_timeout={CACHED_S}"
            source = f"127.0.0.1:{tmp_path / 'served'}"
            subprocess.run(["sshfs", source, mount, "-o", options], check=True)
            mounted.append(mount)
        one, other = (Store(mount / "store") for mount in mounted)
        yield one, other
    finally:
        for mount in mounted:
            subprocess.run(["fusermount3", "-u", mount], check=True)


def refs(n: int) -> list[tuple[str, str]]:
    return [("results", digest(canonical(i))) for i in range(n)]


def canonical(i: int) -> bytes:
    return b'{"fields":{},"type":"Thing","version":%d}' % i


def want(store: Store, n: int) -> RunRecording:
    recording = RunRecording(store, EXPERIMENT, "cub_layers")
    recording.add_targets(refs(n), dict.fromkeys(refs(n), ()))
    assert not recording.problem
    return recording


def test_the_mounts_cache(stores: tuple[Store, Store]) -> None:
    """Else the other tests would show nothing."""
    one, other = stores
    one.root.mkdir()
    (one.root / "a").touch()
    assert os.listdir(other.root) == ["a"]
    (one.root / "b").touch()
    assert os.listdir(other.root) == ["a"]


def test_records_are_read_that_another_host_replaces(stores: tuple[Store, Store]) -> None:
    """The listing still names the record of the first run, which is gone."""
    one, other = stores
    want(one, 1).complete()
    roots = Roots(other)
    roots.refresh()
    assert [len(run.nodes) for run in roots.runs] == [1]
    want(one, 3).complete()
    Roots(other).refresh()
    roots.refresh()
    assert [len(run.nodes) for run in roots.runs] == [3]


def test_a_record_that_has_grown_is_read_whole(stores: tuple[Store, Store]) -> None:
    """The size that the mount remembers is that of the shorter record."""
    one, other = stores
    want(one, 1).complete()
    (file,) = one.root.glob(".runs/*/*.json")
    same = other.root / file.relative_to(one.root)
    run = read_record(file, Run)
    assert run
    for n in (1, 2000, 3, 1500, 1600, 2):
        os.stat(same)
        write_record(file, run.wanting(refs(n), dict.fromkeys(refs(n), ())))
        read = read_record(same, Run)
        assert read
        assert len(read.nodes) == n


def test_a_run_that_begins_after_the_records_were_listed_keeps_what_it_wants(
    stores: tuple[Store, Store], make: Any
) -> None:
    one, other = stores
    (wanted,) = refs(1)
    artifact = make(one, wanted[1], wanted[0], canonical=canonical(0).decode(), version=0)
    os.utime(artifact.path, (1e9, 1e9))
    recording = RunRecording(one, EXPERIMENT, "cub_layers")
    recording.add_targets([("results", "b" * 32)], {("results", "b" * 32): ()})
    recording.complete()
    reach = Reachability(other)
    reach.refresh()
    stale = list(reach.stale({}))
    assert [item.ref for item in stale] == [wanted]
    want(one, 1)
    assert one.find(*wanted)
    assert collect(reach, stale).moved == []
    assert one.find(*wanted)


def test_a_collection_beside_runs_on_another_host(stores: tuple[Store, Store], make: Any) -> None:
    """Each run wants more than the one before it, and a collection follows each at once."""
    one, other = stores
    survey = Reachability(other, grace_s=0)
    for n in (1, 2, 500):
        recording = want(one, n)
        for i, (kind, key) in enumerate(refs(min(n, 2))):
            if one.find(kind, key) is None:
                make(one, key, kind, canonical=canonical(i).decode(), version=i)
        survey.refresh()
        assert collect(survey, list(survey.stale({}))).failed == []
        recording.complete()
        survey.refresh()
        assert collect(survey, list(survey.stale({}))).failed == []
        assert all(one.find(*ref) for ref in refs(min(n, 2)))
    errors = [found.topic for found in StoreCheck(other).findings() if found.severity == "error"]
    assert errors == []
