"""Odd names of files, users and hosts in paths, in lists of Slurm and in shells."""

from __future__ import annotations

import getpass
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parent))
from odd_names import ODD

from store import Store
from store.gc.roots import Roots, RunRecording
from store.locks.process import ProcessId
from store.names import safe_name, user_name


@pytest.mark.parametrize("name", ["study", "_x", "study_2.v3-a", "A"])
def test_an_ordinary_name_is_kept(name: str):
    assert safe_name(name) == name


@pytest.mark.parametrize("name", ODD)
def test_an_odd_name_is_made_safe(name: str):
    safe = safe_name(name, 60)
    assert re.fullmatch(r"\w[\w.~-]*", safe, re.ASCII)
    assert len(safe) <= 60
    assert shlex.split(f"echo {safe}") == ["echo", safe]


@given(st.lists(st.text(alphabet=st.characters(), max_size=80), unique=True, min_size=2))
def test_different_names_stay_different(names: list[str]):
    safe = [safe_name(name, 40) for name in names]
    assert len(set(safe)) == len(names)
    assert not set(map(safe_name, safe)) & {name for name in safe if "~" in name}


def test_files_for_people_keep_letters_and_spaces():
    assert safe_name("mean AP 研究", also=r"\w ") == "mean AP 研究"
    assert len(safe_name("研" * 84, also=r"\w ").encode()) <= 200


@pytest.mark.parametrize("host", ["a/b", ".local", "two words"])
def test_a_host_with_an_odd_name_recognises_its_records(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    there = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((there[0], host, *there[2:])))
    assert ProcessId.parse(str(ProcessId.here())) == ProcessId.here()
    assert ProcessId.here().runs()
    store = Store(tmp_path)
    recording = RunRecording(store, tmp_path / "study.py", "study")
    recording.add_targets([("results", "a" * 32)], {("results", "a" * 32): ()})
    assert not recording.problem
    roots = Roots(store)
    roots.refresh()
    assert [run.owner for run in roots.runs] == [str(ProcessId.here())]


def test_a_user_without_a_name_has_a_number(monkeypatch: pytest.MonkeyPatch):
    def fail() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", fail)
    assert user_name() == str(os.getuid())


@pytest.mark.parametrize("name", ODD)
def test_runs_of_any_name_keep_what_they_want(name: str, tmp_path: Path):
    store, ref = Store(tmp_path), ("results", "a" * 32)
    recording = RunRecording(store, tmp_path / "study.py", name)
    recording.add_targets([ref], {ref: ()})
    recording.complete()
    assert not recording.problem
    roots = Roots(store)
    roots.refresh()
    assert [run.targets for run in roots.runs] == [[ref]]


def test_a_run_recorded_under_a_hidden_name_counts_until_a_later_one_completes(tmp_path: Path):
    store, path = Store(tmp_path), tmp_path / ".x.py"
    old, new = ("results", "a" * 32), ("results", "b" * 32)
    recording = RunRecording(store, path, ".x")
    recording.add_targets([old], {old: ()})
    recording.complete()
    (folder,) = (tmp_path / ".runs").iterdir()
    folder.rename(folder.with_name(f".x.{folder.name.rpartition('.')[2]}"))
    (tmp_path / ".runs" / ".DS_Store").write_bytes(b"\0")
    roots = Roots(store)
    roots.refresh()
    assert [run.targets for run in roots.runs] == [[old]]
    again = RunRecording(store, path, ".x")
    again.add_targets([new], {new: ()})
    again.complete()
    roots.refresh()
    assert [run.targets for run in roots.runs] == [[new]]
