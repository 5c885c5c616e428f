"""`saevx status` and `saevx status --watch`, on a terminal and into a pipe."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from dispatching import Place, wait_until

SLOW = """
import time
from typing import ClassVar
from saevx import Artifact, recipe

class Slow(Artifact):
    kind: ClassVar = "checkpoints"
    n: int

@recipe(Slow)
def make_slow(batch):
    (spec,) = batch.specs
    for i in range(1000):
        batch.progress(i, 1000, "images")
        time.sleep(0.05)

targets = [Slow(n=1), Slow(n=2)]
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.profile("")
    (place.folder / "slow.py").write_text(SLOW)
    return place


class Screen:
    """A command whose output goes to a terminal, or to a pipe."""

    def __init__(self, place: Place, *words: str, terminal: bool, columns: int = 160) -> None:
        self._end, theirs = pty.openpty() if terminal else os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "saevx", *words],
            cwd=place.folder,
            env=place.environment | {"TERM": "xterm", "COLUMNS": str(columns), "LINES": "50"},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        os.set_blocking(self._end, False)
        self.text = ""

    def read(self) -> str:
        """All of the output so far, without colours."""
        try:
            while data := os.read(self._end, 65536):
                self.text += re.sub(r"\x1b\[[\d;]*m", "", data.decode())
        except OSError:  # nothing more for now, or it has ended
            pass
        return self.text


@pytest.mark.slow
@pytest.mark.parametrize("terminal", [True, False])
def test_watching_shows_how_far_it_is_until_ctrl_c(place: Place, terminal: bool):
    run = place.start("run", "slow.py", "--jobs", "1")
    try:
        screen = Screen(place, "status", "-w", terminal=terminal)
        far = re.compile(r"running +\d+ +Slow \w{8} .* (\d+)/1000 images, [\d.]+/s +\d+ s")
        wait_until(lambda: len({int(n) for n in far.findall(screen.read())}) > 1)
        seen = [int(n) for n in far.findall(screen.text)]
        assert seen == sorted(seen)
        assert "1 running, 1 waiting" in screen.text
        screen.process.send_signal(signal.SIGINT)
        assert screen.process.wait() == 0
        rest = screen.read()
        assert "Traceback" not in rest
        assert "stopped" not in rest
        # The cursor was hidden, and is back.
        assert rest.count("\x1b[?25l") == rest.count("\x1b[?25h") == int(terminal)
    finally:
        run.terminate()
        run.communicate()


def test_status_knows_the_rate_and_the_time_left(place: Place):
    run = place.start("run", "slow.py", "--jobs", "1")
    try:

        def runs_at_a_rate() -> dict[str, float] | None:
            found = [one for run in place.json("status") for one in run["elements"]]
            return next((one for one in found if one["rate"]), None)

        element = wait_until(runs_at_a_rate)
        assert element["state"] == "running"
        assert element["left_s"] == pytest.approx((1000 - element["done"]) / element["rate"])
        assert 0 < element["rate"] <= 20
    finally:
        run.terminate()
        run.communicate()


@pytest.mark.slow
def test_a_narrow_terminal_breaks_no_word_and_has_no_empty_column(place: Place):
    run = place.start("run", "slow.py", "--jobs", "1")
    try:
        wait_until(lambda: "images" in place.saevx("status").out)
        screen = Screen(place, "status", terminal=True, columns=40)
        screen.process.wait()
        text = screen.read()
        assert re.search(r"^running +\d+ +Slow", text, re.MULTILINE)
        assert "waiting" in text
        (keys,) = {
            tuple(key[:8] for one in r["elements"] for key in one["keys"])
            for r in place.json("status")
        }
        assert all(key in text for key in keys)
        assert "why" not in text
    finally:
        run.terminate()
        run.communicate()


def test_what_failed_says_why_without_markup(place: Place):
    place.write("""
        from saevx import RecipeError, recipe

        class Odd(Leaf):
            pass

        @recipe(Odd)
        def make_odd(batch):
            raise RecipeError("no [bold]odd[/bold] numbers")

        targets = [Odd(value=1), Leaf(value=2, pause_s=3600)]
    """)
    run = place.start("run", "trial.py", "--jobs", "2")
    try:
        told = wait_until(lambda: re.search(r"error .*", place.saevx("status").out))
        assert told[0].endswith("no [bold]odd[/bold] numbers")
    finally:
        run.terminate()
        run.communicate()
