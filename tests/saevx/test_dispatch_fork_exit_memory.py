"""Recipes that fork, exit or run out of memory fail their own batch only."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from dispatching import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.profile("")
    return place


CHILD = """
    import os, signal, time
    from saevx import recipe

    class Parent(Leaf):
        pass

    @recipe(Parent)
    def make_parent(batch):
        (spec,) = batch.specs
        if os.fork() == 0:
            {child}
        {parent}
        batch.draft(spec).write("value", __import__("numpy").array([1]))
        batch.publish(spec)

    targets = [Parent(value=value) for value in range({n})]
"""


SLEEPER = "open(f'{os.getpid()}.sleeper', 'w').close(); time.sleep(3600); os._exit(0)"
"""A child process that must not be waited for; if it is, the test times out."""


def end_sleepers(place: Place) -> None:
    for file in place.folder.glob("*.sleeper"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(file.stem), signal.SIGKILL)


def test_a_child_that_outlives_a_killed_worker_is_not_waited_for(place: Place):
    file = place.write(
        CHILD.format(child=SLEEPER, parent="os.kill(os.getpid(), signal.SIGKILL)", n=1)
    )
    ran = place.saevx("run", file, "--jobs", "1")
    end_sleepers(place)
    assert ran.code == 1
    assert "SIGKILL" in ran.err


def test_a_child_that_outlives_its_worker_does_not_delay_the_end(place: Place):
    file = place.write(CHILD.format(child=SLEEPER, parent="pass", n=2))
    ran = place.saevx("run", file, "--jobs", "1")
    end_sleepers(place)
    assert ran.code == 0, ran


@pytest.mark.parametrize("words", [["--jobs", "1"], []], ids=["local", "inline"])
@pytest.mark.parametrize(
    "child", ["return", "raise ValueError('of the child')", "raise SystemExit(0)"]
)
def test_a_child_that_returns_from_a_recipe_ends_there(place: Place, words: list[str], child: str):
    file = place.write(CHILD.format(child=child, parent="os.wait(); time.sleep(0.5)", n=2))
    ran = place.saevx("run", file, *words)
    assert ran.code == 0, ran
    assert "made 2 artifacts" in ran.out
    assert ran.out.count("2 of 2 targets are in the store") == 1
    assert len(place.contents()) == 2
    assert len(place.arrays()) == (1 if words else 0)
    kept = [log.read_text() for log in place.folder.glob(".saevx/.jobs/*/logs/*-*.log")]
    assert all(text.count(": made") == 1 for text in kept)
    if "ValueError" in child:
        assert "of the child" in "".join(kept) + ran.err


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--jobs", "2"], []], ids=["local", "inline"])
@pytest.mark.parametrize("how", ["exit", "exit in parts"])
def test_a_recipe_that_exits_fails_alone(place: Place, words: list[str], how: str):
    file = place.write(f"""
        import sys
        from saevx import Parts, recipe

        class Leaving(Leaf):
            pass

        def leave(batch, todo=None):
            sys.exit(0)

        parts = Parts(lambda spec, site: 2, leave) if {how!r} == "exit in parts" else None
        recipe(Leaving, parts=parts)(leave)
        targets = [Leaving(value=1), Leaf(value=2), Branch(leaf=Leaf(value=3), value=4)]
    """)
    ran = place.saevx("run", file, *words)
    assert ran.code == 1, ran
    assert "2 of 3 targets are in the store" in ran.out
    assert "the recipe of Leaving called sys.exit(0)" in ran.err
    assert "tried 2 times" not in ran.err
    if words:
        again = place.saevx("run", file, *words)
        assert "--retry-failed" in again.err


def test_a_memory_error_reports_its_line(place: Place):
    file = place.write("""
        from saevx import recipe

        class Greedy(Leaf):
            pass

        @recipe(Greedy)
        def make_greedy(batch):
            all_pairs = bytearray(1 << 60)

        targets = [Greedy(value=1)]
    """)
    ran = place.saevx("run", file, "--jobs", "1")
    assert ran.code == 1
    assert "all_pairs = bytearray" in ran.err
    assert "its process held up to 0." in ran.err
