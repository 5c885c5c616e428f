"""What `saevx.run` makes in a notebook: stages, reports and executors, as the command does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import saevx
from saevx.experiments.experiment import Experiment
from store import Store
from store.gc.roots import Roots

HERE = Path(__file__).resolve().parent

STUDY = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
from toy import Number, Square

def targets():
    table = yield [Square(number=Number(value=value)) for value in (1, 2, 3)]
    best = table.sort("square", descending=True)["value"][0]
    (numbers,) = yield [Number(value=best * 10)]
    yield [Square(number=Number(value=int(numbers[0])))]

def report(table):
    return {{"squares": table.select("value", "square").sort("square"), "note": "all is well"}}

def failing():
    yield [Square(number=Number(value=-5))]
    raise AssertionError("must not get here")
"""

SQUARES = [[1, 1], [2, 4], [3, 9], [30, 900]]


def notebook(folder: Path, code: str) -> Any:
    """What a process prints as JSON that has imported the study, as cells of a notebook do."""
    (folder / "my_study.py").write_text(STUDY)
    head = "import json, os\nimport saevx, my_study\nfrom toy import Number, Square\n"
    done = subprocess.run(
        [sys.executable, "-c", head + code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "how", ["", ", executor='local'", ", jobs=2"], ids=["inline", "local", "jobs"]
)
def test_staged_functions_and_their_report_run_as_by_the_command(tmp_path: Path, how: str):
    rows, note, here = notebook(
        tmp_path,
        f"made = saevx.run(my_study.targets, report=my_study.report{how})\n"
        "pids = {pid for pid in saevx.table(spec='Square')['pid']}\n"
        "rows = made.parts['squares'].rows()\n"
        "print(json.dumps([rows, made.parts['note'], pids == {os.getpid()}]))",
    )
    assert (rows, note) == (SQUARES, "all is well")
    assert here == (how == "")
    saved = tmp_path / ".saevx" / "reports" / "my_study" / "squares.csv"
    assert saved.read_text() == "value,square\n1,1\n2,4\n3,9\n30,900\n"
    assert not kept(tmp_path)  # a function may be one of several of its file


def test_a_file_is_run_and_kept_as_by_the_command(tmp_path: Path):
    rows = notebook(tmp_path, "print(json.dumps(saevx.run('my_study.py').parts['squares'].rows()))")
    assert rows == SQUARES
    assert kept(tmp_path) == [str(tmp_path / "my_study.py")]


def kept(folder: Path) -> list[str]:
    """The files whose last runs keep something."""
    roots = Roots(Store(folder / ".saevx"))
    roots.refresh()
    return [run.path for run in roots.runs]


def test_a_function_of_a_cell_runs_until_a_stage_fails(tmp_path: Path):
    made, error = notebook(
        tmp_path,
        "def cell():\n"
        "    table = yield [Square(number=Number(value=4))]\n"
        "    yield [Number(value=int(table['square'][0]))]\n"
        "assert saevx.run(cell()) is None\n"
        "made = int(saevx.load(Number(value=16))[0])\n"
        "try:\n"
        "    saevx.run(my_study.failing)\n"
        "except saevx.RunFailed as error:\n"
        "    print(json.dumps([made, str(error)]))",
    )
    assert made == 16
    assert "1 failed and 1 could not begin" in error
    assert "use a positive number" in error


@pytest.mark.parametrize(
    ("targets", "how", "says"),
    [
        (lambda: [1], {}, "target 0 is 1; each must be the spec of an artifact"),
        (lambda: 1 / 0, {}, "ZeroDivisionError"),
        (saevx.Shards, {}, "is no spec of an artifact"),
        ("nowhere.py", {}, "there is no experiment file nowhere.py"),
        ([], {"executor": "slrum"}, "'slrum' is no executor"),
    ],
)
def test_invalid_targets_and_options_are_refused(
    targets: Any, how: dict[str, Any], says: str, tmp_path: Path
):
    with pytest.raises(saevx.SaevxError, match=says):
        saevx.run(targets, tmp_path, **how)


def test_a_staged_experiment_that_yields_nothing_is_refused():
    def nothing() -> Any:
        yield from ()

    with pytest.raises(saevx.ExperimentError, match="targets yield nothing"):
        list(Experiment(None, nothing).stages(list))
