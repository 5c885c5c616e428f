"""Artifacts that other code made are found, and told."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from saevx.cli import main

HELPERS = """
    SCALE = 2

    def scaled(value):
        return value * SCALE

    def unused(value):
        return value
"""

STUDY = """
    from typing import ClassVar
    import numpy as np
    import helpers
    from saevx import Artifact, recipe

    class Points(Artifact):
        kind: ClassVar = "checkpoints"
        n: int = 3

    def fit(n):
        # {comment}
        return np.arange(n){plus}

    @recipe(Points)
    def make_points(batch):
        for spec in batch.specs:
            batch.draft(spec).write("points", helpers.scaled(fit(spec.n)))
            batch.publish(spec)

    targets = [Points(n=n) for n in {sizes}]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


def write(sizes: str = "(3,)", plus: str = "", comment: str = "", helpers: str = HELPERS) -> None:
    sys.modules.pop("helpers", None)
    Path("helpers.py").write_text(textwrap.dedent(helpers))
    text = STUDY.format(sizes=sizes, plus=plus, comment=comment)
    Path("points.py").write_text(textwrap.dedent(text))


def saevx(*words: str) -> Result:
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def anew(*words: str) -> subprocess.CompletedProcess[str]:
    """Run saevx in a process that knows no type of this one."""
    command = [sys.executable, "-m", "saevx", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True)


CHANGES: dict[str, dict[str, Any]] = {
    "a function that the recipe calls": {"plus": " + 1"},
    "a constant of a helper": {"helpers": HELPERS.replace("SCALE = 2", "SCALE = 3")},
    "a function of a helper": {"helpers": HELPERS.replace("value * SCALE", "SCALE * value")},
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_recipe_that_was_edited_is_told_by_plan_and_run(what: str) -> None:
    write()
    saevx("run", "points.py")
    write(**CHANGES[what])
    for command in ("plan", "run"):
        said = saevx(command, "points.py")
        assert "made by other code: points.Points or its recipe has changed since" in said.stderr
    write()
    assert "other code" not in saevx("plan", "points.py").stderr


@pytest.mark.parametrize(
    "change",
    [
        {"sizes": "(3, 4)"},
        {"comment": "a comment"},
        {"helpers": HELPERS.replace("return value\n", "return 2\n")},
    ],
)
def test_what_the_recipe_does_not_use_makes_no_noise(change: dict[str, Any]) -> None:
    write()
    saevx("run", "points.py")
    write(**change)
    assert "other code" not in saevx("plan", "points.py").stderr


def test_jobs_record_the_same_digest() -> None:
    write("(3, 4)")
    saevx("run", "points.py", "--jobs", "1")
    assert "other code" not in saevx("plan", "points.py").stderr
    (key, *_) = [row["key"] for row in json.loads(saevx("ls", "--json").stdout)]
    shown = json.loads(saevx("show", key, "--json").stdout)
    assert len(shown["provenance"]["source"]) == 32


def test_a_plan_tells_of_artifacts_under_a_former_name() -> None:
    write()
    saevx("run", "points.py")
    Path("points.py").rename("dots.py")
    said = anew("plan", "dots.py")
    assert "to make: 1 Points" in said.stdout
    assert "note: the store has 1 of points.Points: if Points is that type" in said.stderr
    code = Path("dots.py").read_text()
    Path("dots.py").write_text(
        code.replace("    n: int = 3", '    n: int = 3\n    formerly = ("points.Points",)')
    )
    said = anew("plan", "dots.py")
    assert "1 of 1 targets are in the store" in said.stdout
    assert "other code" not in said.stderr
