"""Collections in a loop beside four runners; tests/bench/gc.py is the same for a minute."""

from __future__ import annotations

from pathlib import Path

import pytest

from .side_by_side import side_by_side


@pytest.mark.slow
def test_nothing_that_a_run_wants_is_ever_missing(tmp_path: Path):
    tally, said = side_by_side(tmp_path / "store", seconds=6.0, n_collectors=2)
    wrong = {name: tally[name] for name in ("missing", "failed", "crashed", "torn")}
    assert not any(wrong.values()), said
    assert tally["runs"] > 20
    assert tally["moved"] > 20
