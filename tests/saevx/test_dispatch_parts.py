"""Artifacts made in parts by several processes of this machine."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saevx.dispatch.batching import parts_text, shares

sys.path.insert(0, str(Path(__file__).resolve().parent))
from dispatching import Place, wait_until

ALBUMS = "targets = [Album(value=value, n_parts=7, group=0{how}) for value in (1, 2)]"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.profile("")
    return place


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("inline"))
    place.profile("")
    ran = place.saevx("run", place.write(ALBUMS.format(how="")))
    assert ran.code == 0, ran
    return place


def pages(place: Place, word: str = "made") -> list[int]:
    """How often each page was begun, or made."""
    return sorted(n for key, n in place.makings(word).items() if "/" in key)


@pytest.mark.parametrize("jobs", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 9))])
def test_processes_share_a_batch_and_the_bytes_are_the_same(place: Place, inline: Place, jobs: int):
    ran = place.saevx("run", place.write(ALBUMS.format(how="")), "--jobs", str(jobs))
    assert ran.code == 0, ran
    assert "made 2 artifacts" in ran.out
    (array,) = place.arrays()
    assert len(array["parts"]) == min(jobs, 7)
    assert sorted(chain(*array["parts"])) == list(range(7))
    assert pages(place, "begin") == [1] * 14
    assert place.contents() == inline.contents()
    assert list((place.store.root / "shards" / ".work").iterdir()) == []


def test_where_there_are_batches_enough_none_is_cut(place: Place):
    file = place.write("targets = [Album(value=value, n_parts=5) for value in range(4)]")
    assert place.saevx("run", file, "--jobs", "2").code == 0
    assert [array["parts"] for array in place.arrays()] == [[]]


def test_the_profile_says_how_many_share_a_batch(place: Place):
    place.profile("""
        [profiles.wide]
        executor = "local"
        jobs = 2
        [profiles.wide.recipes.Album]
        parts = 3
    """)
    file = place.write("targets = [Album(value=value, n_parts=5) for value in range(4)]")
    planned = place.json("plan", file, "--profile", "wide")
    assert [line["arrays"] for line in planned["arrays"]] == [[12]]
    assert place.saevx("run", file, "--profile", "wide").code == 0
    (array,) = place.arrays()
    assert sorted(map(len, array["parts"])) == [1] * 4 + [2] * 8


def test_a_killed_process_costs_one_part(place: Place, inline: Place):
    how = ', how="part 4 killed once" if value == 2 else "well"'
    ran = place.saevx("run", place.write(ALBUMS.format(how=how)), "--jobs", "2")
    assert ran.code == 0, ran
    again = [key for key, n in place.makings("begin").items() if n > 1]
    assert [key.partition("/")[2] for key in again] == ["4"]
    files = {tuple(files.items()) for _, files, _, _ in place.contents().values()}
    assert files == {tuple(files.items()) for _, files, _, _ in inline.contents().values()}


@pytest.mark.slow
def test_a_part_that_fails_fails_its_artifact_alone(place: Place):
    how = ', how="part 3 error" if value == 2 else "well"'
    file = place.write(ALBUMS.format(how=how) + "\ntargets.append(Album(value=9, n_parts=2))")
    ran = place.saevx("run", file, "--jobs", "2")
    assert ran.code == 1
    assert "page 3 of 2 is torn" in ran.err
    assert len(place.contents()) == 2
    before = place.makings("begin")
    again = place.saevx("run", file, "--jobs", "2")
    assert "an earlier run of the same code" in again.err
    assert place.makings("begin") == before
    retried = place.saevx("run", file, "--jobs", "2", "--retry-failed")
    assert "page 3 of 2 is torn" in retried.err
    begun = {k.partition("/")[2] for k, n in place.makings("begin").items() if n > before[k]}
    assert "3" in begun
    assert not begun & {"0", "1", "2"}  # which are kept


@pytest.mark.slow
def test_the_next_run_goes_on_where_a_killed_one_stopped(place: Place, inline: Place):
    file = place.write(ALBUMS.format(how=", pause_s=0.2"))
    run = place.start("run", file, "--jobs", "2")
    wait_until(lambda: len(pages(place)) > 4)
    run.send_signal(signal.SIGKILL)
    run.wait()
    kept = set(place.makings())
    ran = place.saevx("run", file, "--jobs", "3")
    assert ran.code == 0, ran
    begun = place.makings("begin")
    assert all(begun[page] == 1 for page in kept)
    assert place.contents() == inline.contents()


def test_an_inline_run_and_processes_share_the_parts(place: Place, inline: Place):
    file = place.write(ALBUMS.format(how=", pause_s=0.1"))
    first = place.start("run", file, "--jobs", "2")
    wait_until(lambda: len(pages(place)) > 2)
    second = place.start("run", file)
    for process in (first, second):
        out, err = process.communicate()
        assert process.returncode == 0, (out, err)
    assert set(pages(place)) == {1}
    assert place.contents() == inline.contents()
    assert place.leases() == []


def test_status_and_logs_tell_the_parts(place: Place):
    file = place.write(ALBUMS.format(how=", pause_s=3600"))
    run = place.start("run", file, "--jobs", "2")
    wait_until(lambda: len(pages(place, "begin")) == 2)
    shown = place.saevx("status", COLUMNS="200").out
    assert "parts 0 to 2" in shown
    assert "parts 3 to 6" in shown
    assert "2 running" in shown  # two artifacts, of two processes each
    (state,) = json.loads(place.saevx("status", "--json").out)
    assert sorted(element["parts"] for element in state["elements"]) == [[0, 1, 2], [3, 4, 5, 6]]
    place.hurry()
    assert run.wait() == 0
    key = next(iter(place.contents()))
    printed = place.saevx("logs", key[:10]).out
    assert printed.index("== parts 0 to 2") < printed.index("== parts 3 to 6")
    # Both tasks may end their parts at the same moment, and then one finds the artifact made.
    one, other = sorted(re.findall(f"Album {key}: (.+)", printed))
    assert one == "made"
    assert other in ("made elsewhere", "part made")


def test_a_cut_off_run_that_only_lacks_the_sealing_seals(place: Place, inline: Place):
    file = place.write(ALBUMS.format(how=""))
    work = place.store.root / "shards" / ".work"
    ran = place.saevx(
        "run",
        file,
        code="import os, signal, saevx.resolve.batch as b\n"
        "b.Batch.parts = lambda *_: os.kill(os.getpid(), signal.SIGKILL)",
    )
    assert ran.code == -signal.SIGKILL
    assert {len(os.listdir(one)) for one in work.iterdir()} == {7}
    again = place.saevx("run", file, "--jobs", "2")
    assert again.code == 0, again
    assert pages(place, "begin") == [1] * 14
    assert place.contents() == inline.contents()


@given(st.lists(st.integers()), st.integers(1, 50))
def test_shares_are_nearly_equal_and_keep_the_order(items: list[int], n: int):
    cut = shares(items, n) if items else []
    assert list(chain(*cut)) == items
    assert len(cut) == min(n, len(items))
    assert not cut or max(map(len, cut)) - min(map(len, cut)) <= 1


@pytest.mark.parametrize(
    ("parts", "words"),
    [([], ""), ([3], "part 3"), ([3, 4, 5], "parts 3 to 5"), ([1, 4, 5], "3 parts from 1")],
)
def test_parts_in_words(parts: list[int], words: str):
    assert parts_text(parts) == words
