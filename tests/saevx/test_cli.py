"""The command line, on experiment files that tests write."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from saevx.cli import main

HERE = Path(__file__).resolve().parent

HEAD = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
from toy import Number, Square
"""

SQUARES = """
targets = [Square(number=Number(value=value)) for value in (1, 2, 3)]
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAEVX_STORE", raising=False)
    monkeypatch.delitem(sys.modules, "toy", raising=False)


def write(code: str, name: str = "squares.py") -> str:
    Path(name).write_text(HEAD + textwrap.dedent(code))
    return name


def saevx(*words: str) -> Result:
    return CliRunner().invoke(main, list(words), catch_exceptions=False)


def as_json(*words: str) -> Any:
    result = saevx(*words, "--json")
    return json.loads(result.stdout)


def test_run_makes_what_is_missing_once():
    file = write(SQUARES)
    first, second = as_json("run", file), as_json("run", file)
    assert (first["made"], second["made"]) == (6, 0)
    assert [target["state"] for target in second["targets"]] == ["present"] * 3
    assert "nothing to make" in saevx("run", file).stdout
    write(SQUARES.replace("3)", "3, 4)"))
    assert as_json("run", file)["made"] == 2


def test_plan_says_why_and_makes_nothing():
    file = write(SQUARES)
    result = saevx("plan", file)
    assert result.exit_code == 0
    assert "0 of 3 targets are in the store" in result.stdout
    assert "to make: 3 Number, 3 Square" in result.stdout
    assert "not in the store; asked for" in result.stdout
    assert as_json("ls") == []
    (stage,) = as_json("plan", file)["stages"]
    assert {node["state"] for node in stage["nodes"]} == {"to make"}


def test_ls_and_show():
    saevx("run", write(SQUARES))
    rows = as_json("ls", "--kind", "results")
    assert [row["type"] for row in rows] == ["toy.Square"] * 3
    assert {row["fields"]["value"] for row in rows} == {1, 2, 3}
    listing = saevx("ls", "--columns", "value,number").stdout
    assert listing.splitlines()[0].split()[-2:] == ["value", "number"]
    assert "6 artifacts" in listing
    key = rows[0]["key"]
    shown = saevx("show", key[:6])
    assert shown.stdout.startswith(f"● toy.Square  {key[:8]}\n└─ ● toy.Number value=")
    assert "wall_s" in shown.stdout
    assert as_json("show", key)["spec"] == {**as_json("show", key)["spec"], "type": "toy.Square"}


def test_show_of_a_result_whose_inputs_are_gone():
    import shutil

    saevx("run", write(SQUARES))
    shutil.rmtree(".saevx/checkpoints")
    key = as_json("ls")[0]["key"]
    assert "└─ ○ toy.Number" in saevx("show", key).stdout


def test_show_needs_a_unique_prefix():
    saevx("run", write(SQUARES))
    missing = saevx("show", "ffffffffffffffff")
    assert missing.exit_code == 1
    assert "`saevx ls` lists them" in missing.stderr
    saevx("run", write("targets = [Number(value=v) for v in range(17)]"))
    first_digits = [row["key"][0] for row in as_json("ls")]
    several = saevx("show", max(first_digits, key=first_digits.count))
    assert several.exit_code == 1
    assert "give more digits" in several.stderr


def test_the_store_comes_from_flag_then_environment_then_file_then_folder(monkeypatch):
    file = write(SQUARES)
    saevx("run", file)
    assert len(as_json("ls", "--store", ".saevx")) == 6
    Path("saevx.toml").write_text('[store]\nroot = "toml-store"\nroots = { results = "tables" }\n')
    assert as_json("run", file)["store"].endswith("/toml-store")
    assert Path("tables/results").is_dir()
    assert not Path("toml-store/results").exists()
    Path("below").mkdir()
    monkeypatch.chdir("below")
    assert len(as_json("ls")) == 6
    monkeypatch.setenv("SAEVX_STORE", "env-store")
    assert as_json("ls") == []
    assert len(as_json("ls", "--store", "../.saevx")) == 6


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("[stroe]\nroot = 'x'", "unknown field `stroe`"),
        ("[store]\nrot = 'x'", "unknown field `rot` - at `store`"),
        ("[store]\nroot = 3", "must be a path"),
        ("[store]\nroot = ''", "must be a path"),
        ("[store.roots]\ntables = 'x'", "at `key` in `store.roots`"),
        ("store = [", "cannot read"),
    ],
)
def test_a_wrong_saevx_toml_is_refused(toml: str, says: str):
    Path("saevx.toml").write_text(toml)
    result = saevx("ls")
    assert result.exit_code == 1
    assert says in result.stderr
    assert "saevx.toml" in result.stderr


@pytest.mark.parametrize("words", [["ls"], ["run", "squares.py"], ["plan", "squares.py"]])
def test_an_empty_name_of_a_store_is_refused(words: list[str]):
    write(SQUARES)
    result = saevx(*words, "--store", "")
    assert result.exit_code == 1
    assert "the store's root is empty" in result.stderr
    assert not Path(".saevx").exists()


@pytest.mark.parametrize(
    "code",
    [
        "targets = (Square(number=Number(value=value)) for value in (1, 2))",
        "def targets(): return (Square(number=Number(value=value)) for value in (1, 2))",
        "def targets(): yield (Square(number=Number(value=value)) for value in (1, 2))",
    ],
)
def test_targets_may_be_a_generator_expression(code: str):
    assert as_json("run", write(code))["made"] == 4


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("targets = (Number(value=1 // value) for value in (1, 0))", "ZeroDivisionError"),
        ("x = 1", "defines no targets"),
        ("targets = []", "empty list"),
        ("targets = [1]", "target 0 is 1"),
        ("targets = Number(value=1)", "must be a list of specs"),
        ("targets = None", "must be a list of specs"),
        ("def targets():\n    raise KeyError('layers')", "KeyError: 'layers'"),
        ("targets = [Number(valeu=1)]", "Extra inputs are not permitted"),
        ("1 / 0", "ZeroDivisionError"),
        ("targets = [", "SyntaxError"),
        ("sys.exit()", "SystemExit"),
        ("def targets():\n    sys.exit(0)", "SystemExit"),
        ("def targets():\n    yield sys.exit(0)", "SystemExit"),
        ("targets = [Number(value=1)]\nreport = 3", "report is 3"),
    ],
)
def test_invalid_experiment_files_are_explained(code: str, says: str):
    file = write(code)
    for command in ("run", "plan"):
        result = saevx(command, file)
        assert result.exit_code == 1
        assert says in result.stderr
        assert file in result.stderr
    assert not Path(".saevx/checkpoints").exists()


def test_a_missing_experiment_file_is_reported():
    result = saevx("run", "nowhere.py")
    assert result.exit_code == 1
    assert "there is no experiment file nowhere.py" in result.stderr
    assert as_json("run", "nowhere.py")["type"] == "ExperimentError"


def test_a_failure_is_reported_and_the_rest_is_made():
    file = write(
        """
        targets = [Square(number=Number(value=v)) for v in (-1, 2)]

        def report(table):
            raise AssertionError("must not be asked for")
        """
    )
    result = saevx("run", file)
    assert result.exit_code == 1
    assert "no report" in result.stderr
    assert "-1 is below zero: use a positive number" in result.stderr
    assert "1 not made, because an input failed" in result.stderr
    assert "1 of 2 targets are in the store" in result.stdout
    assert "Traceback" not in result.stderr
    states = [target["state"] for target in as_json("run", file)["targets"]]
    assert states == ["blocked", "present"]


def test_a_staged_experiment_chooses_by_code_and_replays():
    file = write(
        """
        def targets():
            table = yield [Square(number=Number(value=value)) for value in (1, 2, 3)]
            best = table.sort("square", descending=True)["value"][0]
            (numbers,) = yield [Number(value=best * 10)]
            assert numbers[0] == 30
            yield [Square(number=Number(value=best * 100))]

        def report(table):
            return table.select("value", "square").sort("square")
        """
    )
    assert len(as_json("plan", file)["stages"]) == 1
    assert not as_json("plan", file)["complete"]
    result = saevx("run", file)
    assert result.exit_code == 0
    assert "| 300   | 90000  |" in result.stdout
    plan = as_json("plan", file)
    assert plan["complete"]
    assert len(plan["stages"]) == 3
    assert as_json("run", file)["made"] == 0


PLAIN_RESULTS = """
from typing import ClassVar
import numpy as np
import polars as pl
from saevx import Artifact, Batch, recipe

class Plain(Artifact):
    kind: ClassVar = "results"
    value: int
    extra: str = ""

@recipe(Plain)
def make_plain(batch: Batch[Plain]) -> None:
    for spec in batch.specs:
        draft = batch.draft(spec)
        draft.table("rows", pl.DataFrame({"row": [spec.value]}))
        if spec.extra == "table":
            draft.table("others", pl.DataFrame({"other": [1]}))
        elif spec.extra:
            draft.write("more", np.arange(3))
        batch.publish(spec)
"""


def test_results_that_hold_one_table_load_as_it():
    file = write(
        PLAIN_RESULTS
        + """
def targets():
    table = yield [Plain(value=value) for value in (1, 2)]
    yield [Plain(value=int(table["row"].sum()))]

def report(table):
    return table.select("row", "value").sort("row")
"""
    )
    result = saevx("run", file)
    assert result.exit_code == 0, result.output
    assert "| 3   | 3     |" in result.stdout


@pytest.mark.parametrize("extra", ["table", "array"])
def test_results_that_hold_more_than_one_table_need_load(extra: str):
    code = PLAIN_RESULTS + f"targets = [Plain(value=1, extra={extra!r})]\n"
    result = saevx("run", write(code + "def report(table): return table\n"))
    assert result.exit_code == 1
    assert "does not load as one table, since it holds " in result.stderr
    assert "@recipe(Plain, load=" in result.stderr


def test_a_stage_gets_results_that_are_no_tables_as_they_load():
    file = write(
        PLAIN_RESULTS
        + """
def targets():
    (both,) = yield [Plain(value=1, extra="table")]
    yield [Plain(value=both.table("rows")["row"][0] + 1)]
"""
    )
    assert as_json("run", file)["made"] == 2


def test_a_stage_that_fails_ends_the_run():
    file = write(
        """
        def targets():
            yield [Square(number=Number(value=-5))]
            raise AssertionError("must not get here")
        """
    )
    result = saevx("run", file)
    assert result.exit_code == 1
    assert "must not get here" not in result.stderr


def test_report_prints_and_saves_frames_charts_and_text():
    file = write(
        SQUARES
        + """
import altair as alt

def report(table):
    points = alt.Chart(table.select("value", "square")).mark_point()
    chart = points.encode(x="value:Q", y="square:Q")
    return {"squares": table.select("value", "square"), "chart": chart, "note": "all is well"}
"""
    )
    result = saevx("run", file)
    assert "all is well" in result.stdout
    folder = Path(".saevx/reports/squares")
    assert (folder / "squares.csv").read_text() == "value,square\n1,1\n2,4\n3,9\n"
    assert (folder / "chart.png").read_bytes().startswith(b"\x89PNG")
    assert "cdn" not in (folder / "chart.html").read_text()[:3000]
    drawn = (folder / "chart.png").stat().st_mtime_ns
    again = as_json("run", file)
    assert (folder / "chart.png").stat().st_mtime_ns == drawn
    assert [Path(path).name for path in again["report"]] == [
        "squares.csv",
        "chart.png",
        "chart.html",
    ]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return 1 / 0", "ZeroDivisionError"),
        ("return 3", "report gives int"),
        (
            "return table.select(table.columns[:1]).to_struct('s').to_frame()",
            "'squares' of the rep",
        ),
        ("sys.exit()", "SystemExit"),
    ],
)
def test_a_report_that_fails_says_so(body: str, says: str):
    result = saevx("run", write(SQUARES + f"def report(table):\n    {body}\n"))
    assert result.exit_code == 1
    assert says in result.stderr


def test_a_target_named_twice_counts_once():
    file = write(SQUARES.replace("(1, 2, 3)", "(1, 2, 2, 1)") + "\ndef report(t): return t\n")
    assert len(as_json("run", file)["targets"]) == 2
    assert len(Path(".saevx/reports/squares/squares.csv").read_text().splitlines()) == 1 + 2


def test_a_stage_that_repeats_a_spec_does_not_double_its_rows():
    file = write(
        """
        def targets():
            yield [Square(number=Number(value=1))]
            yield [Square(number=Number(value=value)) for value in (1, 2)]

        def report(table):
            return table
        """
    )
    assert as_json("run", file)["made"] == 4
    assert len(Path(".saevx/reports/squares/squares.csv").read_text().splitlines()) == 1 + 2


def test_a_report_that_cannot_be_saved_is_still_printed():
    file = write(SQUARES + "\ndef report(table): return table.select('square')\n")
    Path(".saevx").mkdir()
    Path(".saevx/reports").write_text("in the way")
    result = saevx("run", file)
    assert result.exit_code == 0
    assert "| 9      |" in result.stdout
    assert "cannot save the report" in result.stderr


def test_reports_of_two_files_with_one_name_are_separate():
    report = "\ndef report(table): return {'all': table.select('square')}\n"
    Path("other").mkdir()
    first = as_json("run", write(SQUARES + report))["report"]
    second = as_json("run", write(SQUARES.replace("3)", "4)") + report, "other/squares.py"))[
        "report"
    ]
    assert first != second
    assert Path(first[0]).read_text() == "square\n1\n4\n9\n"


def test_an_experiment_imports_its_neighbours_within_its_functions():
    Path("sub").mkdir()
    Path("sub/base_of_mine.py").write_text("VALUES = (1, 2)")
    code = """
    def targets():
        from base_of_mine import VALUES
        return [Number(value=value) for value in VALUES]
    """
    assert as_json("run", write(code, "sub/mine.py"))["made"] == 2


@pytest.mark.parametrize("module", ["store.py", "spec.py", "store/__init__.py"])
def test_a_shadowed_module_of_the_user_is_reported(module: str):
    Path(module).parent.mkdir(exist_ok=True)
    Path(module).write_text("VALUES = (1, 2, 3)")
    name = module.partition("/")[0].removesuffix(".py")
    assert as_json("run", write(SQUARES))["made"] == 6  # it is not imported
    for code, file, line in (
        (f"def targets():\n    from {name} import VALUES\n", "squares.py", 6),
        ("import mine\n", "mine.py", 2),
    ):
        Path("mine.py").write_text(f"# mine\nimport os, {name}")
        for word in ("run", "plan"):
            result = saevx(word, write(code))
            assert result.exit_code == 1
            assert f"{file}, line {line}: the import of {name} gives saevx's own" in result.stderr
            assert str(Path(module).resolve()) in result.stderr


def test_json_of_an_error_is_json():
    assert "defines no targets" in as_json("run", write("x = 1"))["error"]


def process(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from saevx.cli import main; main()", *words],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
    )


@pytest.mark.parametrize(
    ("killed", "n_made"), [("inside 1", 0), ("after 1", 1), ("inside 4", 3), ("after 6", 6)]
)
def test_a_killed_run_leaves_nothing_torn_and_is_resumed(
    killed: str, n_made: int, monkeypatch: pytest.MonkeyPatch
):
    file = write("targets = [Square(number=Number(value=v)) for v in range(6)]")
    monkeypatch.setenv("TOY_KILLED", killed)
    run = process("run", file)
    run.communicate()
    assert run.returncode == -signal.SIGKILL
    monkeypatch.delenv("TOY_KILLED")
    from saevx.config import open_store

    store = open_store()
    assert [artifact.verify() for artifact in store.scan()] == [[]] * n_made
    again = as_json("run", file)
    assert again["made"] == 12 - n_made
    assert [target["state"] for target in again["targets"]] == ["present"] * 6
    assert list(Path(".saevx").glob("*/.build/*")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_ends_at_once_and_says_how_to_resume(number: signal.Signals):
    file = write("targets = [Number(value=v, pause_s=0.2) for v in range(100)]")
    run = process("run", file)
    while not list(Path(".saevx").glob("checkpoints/??/*")):
        assert run.poll() is None
        time.sleep(0.05)
    run.send_signal(number)
    _, err = run.communicate()
    assert run.returncode == 130
    assert "run it again to go on" in err
    assert "Traceback" not in err
    assert list(Path(".saevx").glob("*/.build/*")) == []


def test_output_to_a_pipe_has_no_bars():
    run = process("run", write(SQUARES))
    out, err = run.communicate()
    assert run.returncode == 0
    assert "\x1b" not in out + err
    assert err.splitlines()[0] == "squares: to make: 3 Number, 3 Square"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_output_is_written_whatever_the_encoding_of_a_terminal_or_pipe(encoding: str):
    targets = "targets = [Plain(value=1, extra='→ 日本'), Square(number=Number(value=1))]"
    saevx("run", write(f"{PLAIN_RESULTS}\n{targets}\n"))
    (square,) = as_json("ls", "--type", "Square")
    shown = {
        word: CliRunner(charset=encoding).invoke(main, [word, *words], catch_exceptions=False)
        for word, *words in (
            ["plan", "squares.py"],
            ["run", "squares.py"],
            ["ls"],
            ["show", square["key"]],
            ["why", square["key"]],
            ["doctor"],
            ["status"],
        )
    }
    assert {word: r.output for word, r in shown.items() if r.exit_code} == {}
    if encoding != "ascii":  # where click takes the terminal for one of UTF-8
        assert "-> \\u65e5\\u672c" in shown["ls"].stdout
    assert "`- * toy.Number value=1" in shown["show"].stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("words", [["ls"], ["--help"]])
def test_output_that_cannot_be_written_ends_in_an_error(words: list[str]):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "saevx", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "error: cannot write the output: No space left on device\n"


def without_heavy_packages(*words: str) -> str:
    """Run a command in a new process, which may not import slow packages."""
    code = (
        "import sys\nfrom saevx.cli import main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "heavy = {'torch', 'timm', 'zarr', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


RECORDING = """
from saevx import *
from saevx import HubWeights, ImageFolder, RandomInit, Shards, ViT

images = ImageFolder(root="images")
vit = ViT(name="{name}", weights={weights}, resize={resize})
targets = [Shards(images=images, vit=vit, layer=3)]
"""


def write_recording(name: str, weights: str = "RandomInit(seed=0)", resize: str = "None") -> None:
    write(RECORDING.format(name=name, weights=weights, resize=resize), "recording.py")
    Path("images").mkdir()
    Image.new("RGB", (32, 32)).save("images/a.png")


def test_neither_help_nor_ls_nor_plan_loads_heavy_packages():
    write_recording("vit_tiny_patch16_224")
    for words in (["--help"], ["ls"], ["plan", "recording.py"]):
        without_heavy_packages(*words)


def test_a_plan_with_nothing_to_make_loads_no_heavy_packages():
    write_recording("test_vit", resize="Squash(size=32)")
    assert saevx("run", "recording.py").exit_code == 0
    plan = without_heavy_packages("plan", "recording.py")
    assert "1 of 1 targets are in the store" in plan


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"resize": "Squash(size=224)"}, "by Squash(size=224).*trained with CenterCrop(size=224)"),
        ({"resize": "CenterCrop(size=112)"}, "CenterCrop(size=112).*CenterCrop(size=224)"),
        ({"resize": "CenterCrop(size=224)"}, None),
        ({}, None),
        ({"weights": "RandomInit(seed=0)", "resize": "Squash(size=112)"}, None),
    ],
)
def test_a_plan_notes_another_size_or_crop_than_the_pretrained(fields: Any, note: str | None):
    tag = "" if "weights" in fields else ".augreg_in21k"
    write_recording(f"vit_tiny_patch16_224{tag}", **{"weights": "HubWeights()", **fields})
    notes = as_json("plan", "recording.py")["notes"]
    said = [line for line in saevx("plan", "recording.py").stderr.splitlines() if "note" in line]
    if note is None:
        assert notes == said == []
    else:
        assert re.search(re.escape(note).replace(r"\.\*", ".*"), notes[0])
        assert said == [f"note: {notes[0]}"]


WARNING_INPUT = """
from typing import ClassVar
import polars as pl
from saevx import Artifact, recipe

class Doubtful(Artifact):
    kind: ClassVar = "checkpoints"
    value: int = 1

class Judged(Artifact):
    kind: ClassVar = "results"
    doubtful: Doubtful = Doubtful()

@recipe(Doubtful)
def make_doubtful(batch):
    for spec in batch.specs:
        batch.publish(spec, {"warnings": ["its control is none"]})

@recipe(Judged)
def make_judged(batch):
    for spec in batch.specs:
        batch.draft(spec).table("rows", pl.DataFrame({"x": [1]}))
        batch.publish(spec)

targets = [Judged()]
"""


def test_a_run_tells_what_the_inputs_that_it_makes_warn_of():
    Path("judged.py").write_text(WARNING_INPUT)
    ran = saevx("run", "judged.py")
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("warning")]
    assert re.fullmatch(r"warning: Doubtful \w{32}: its control is none", line)
    assert "warning" not in saevx("run", "judged.py").stderr  # the finished table needs no input
