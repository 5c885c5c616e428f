"""The resolver, on toy specs whose recipes only write numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
import pytest

import saevx
from saevx.dispatch.jobs.progress import RunProgress
from saevx.notebook import load, run, table
from saevx.recipes import find_recipe
from saevx.resolve.batch import Batch
from saevx.resolve.context import Context
from saevx.resolve.plan import State, make_plan
from saevx.resolve.recipe import recipe
from saevx.resolve.run import RunResult, run_plan
from saevx.workspace import Workspace, open_workspace
from spec import Artifact, Keys, Site, SpecError
from spec.keys.key import CanonicalForm

calls: list[list[str]] = []
"""Per call of a recipe, what its specs were."""


class Number(Artifact):
    kind: ClassVar = "checkpoints"
    value: int
    group: str = "a"


class Sum(Artifact):
    kind: ClassVar = "results"
    numbers: tuple[Number, ...] = ()
    left: Number
    right: Number

    def inputs(self) -> dict[str, Artifact]:
        return {"left": self.left, "right": self.right}


def refuse_thirteen(specs: list[Number], site: Site) -> None:
    if any(spec.value == 13 for spec in specs):
        raise SpecError("13 cannot be made: use 14")


@recipe(
    Number,
    batch_by=lambda spec: spec.group,
    preflight=refuse_thirteen,
    load=lambda artifact: int(artifact.array("value").read()[0]),
)
def make_numbers(batch: Batch[Number]) -> None:
    calls.append([f"number {spec.value}" for spec in batch.specs])
    for spec in batch.specs:
        if spec.value < 0:
            batch.fail(spec, saevx.RecipeError(f"{spec.value} is below zero"))
            continue
        if spec.value == 666:
            raise RuntimeError("a bug")
        batch.draft(spec).write("value", np.array([spec.value]))
        batch.publish(spec)


@recipe(Sum, load=lambda artifact: artifact.table("sums"))
def make_sum(batch: Batch[Sum]) -> None:
    (spec,) = batch.specs
    calls.append([f"sum of {spec.left.value} and {spec.right.value}"])
    values = [int(batch.input(n).array("value").read()[0]) for n in (spec.left, spec.right)]
    batch.draft(spec).table("sums", pl.DataFrame({"sum": [sum(values)]}))
    batch.publish(spec, {"sum": sum(values)})


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path / "store")


def add(left: int, right: int) -> Sum:
    return Sum(left=Number(value=left), right=Number(value=right))


def test_only_what_is_missing_is_made_and_shared_inputs_once(workspace: Workspace):
    run([add(1, 2), add(2, 3)], workspace)
    assert sorted(calls[0]) == ["number 1", "number 2", "number 3"]
    assert calls[1:] == [["sum of 1 and 2"], ["sum of 2 and 3"]]
    assert load(add(2, 3), workspace)["sum"].to_list() == [5]
    calls.clear()
    run([add(1, 2), add(2, 3), add(3, 4)], workspace)
    assert calls == [["number 4"], ["sum of 3 and 4"]]


def test_a_finished_target_needs_none_of_its_inputs(workspace: Workspace):
    import shutil

    run(add(1, 2), workspace)
    shutil.rmtree(workspace.store.root / "checkpoints")
    calls.clear()
    run(add(1, 2), workspace)
    assert calls == []
    assert load(add(1, 2), workspace)["sum"].to_list() == [3]


def test_a_plan_gives_reasons(workspace: Workspace):
    run(Number(value=1), workspace)
    keys = Keys(workspace)
    plan = make_plan([add(1, 2), add(1, 5), add(1, 2)], keys, workspace.store)
    assert len(plan.targets) == 2
    by_spec = {json.dumps(node.spec.model_dump()): node for node in plan.nodes.values()}
    one, two, target = (
        by_spec[json.dumps(s.model_dump())] for s in (Number(value=1), Number(value=2), add(1, 2))
    )
    assert one.state is State.PRESENT
    assert two.why == f"not in the store; needed by Sum {target.key[:8]}"
    assert target.why == "not in the store; asked for"
    assert [node.depth for node in (one, two, target)] == [0, 0, 1]
    order = list(plan.nodes)
    assert all(
        order.index(key) < order.index(node.key)
        for node in plan.nodes.values()
        for key in node.inputs
    )


def test_a_damaged_artifact_is_made_again_and_the_plan_says_so(workspace: Workspace):
    run(Number(value=1), workspace)
    artifact = workspace.store.open("checkpoints", Number(value=1).key)
    payload = next(
        path for path in artifact.path.rglob("*") if path.is_file() and path.name != "zarr.json"
    )
    payload.write_bytes(payload.read_bytes()[:-1])
    plan = make_plan([Number(value=1)], Keys(workspace), workspace.store)
    assert "short" in plan.to_make[0].why
    run(Number(value=1), workspace)
    assert load(Number(value=1), workspace) == 1


def test_one_failure_fails_neither_its_batch_nor_other_branches(workspace: Workspace):
    keys = Keys(workspace)
    targets = [add(-1, 2), add(3, 4)]
    plan = make_plan(targets, keys, workspace.store)
    outcome = run_plan(plan, Context(keys, workspace.store, find_recipe))
    assert list(outcome.failed) == [Number(value=-1).key]
    assert outcome.blocked == {add(-1, 2).key: Number(value=-1).key}
    assert load(add(3, 4), workspace)["sum"].to_list() == [7]
    assert not outcome.ok
    with pytest.raises(saevx.RunFailed, match="-1 is below zero"):
        run(targets, workspace)


class Total(Artifact):
    kind: ClassVar = "results"
    below: Artifact


def test_a_failure_blocks_every_level_above_it(workspace: Workspace):
    """Inline and dispatched: were one level missed, a run would wait for it without end."""
    keys, bottom = Keys(workspace), Number(value=-1)
    top = Total(below=Total(below=add(-1, 2)))
    plan = make_plan([top], keys, workspace.store)
    inline = RunResult(failed={bottom.key: saevx.RecipeError("no")})
    nodes = [node for node in plan.to_make if type(node.spec) is not Number]
    assert all(inline.blocks(node) for node in nodes)
    progress = RunProgress(plan, workspace.store, prefix="", code="", retry_failed=False)
    progress.result.failed = inline.failed
    progress.block([])
    above = [add(-1, 2), top.below, top]
    for outcome in (inline, progress.result):
        assert outcome.blocked == {spec.key: bottom.key for spec in above}


def test_a_bug_in_a_recipe_is_reported_with_its_traceback(workspace: Workspace):
    with pytest.raises(saevx.RunFailed, match=r"RuntimeError: a bug"):
        run([Number(value=666), Number(value=7, group="other")], workspace)
    assert load(Number(value=7, group="other"), workspace) == 7
    assert not list(workspace.store.root.glob("*/.build/*"))


def test_a_recipe_that_forgets_a_spec_fails_it(workspace: Workspace):
    class Forgotten(Artifact):
        kind: ClassVar = "results"

    recipe(Forgotten)(lambda batch: None)
    with pytest.raises(saevx.RunFailed, match="ended without making"):
        run(Forgotten(), workspace)


def test_preflight_stops_everything_before_anything_runs(workspace: Workspace):
    with pytest.raises(SpecError, match="use 14"):
        run([add(1, 2), add(13, 1)], workspace)
    assert calls == []
    run(add(1, 2), workspace)


def test_a_fault_that_two_recipes_report_is_shown_once(workspace: Workspace):
    class Alike(Artifact):
        kind: ClassVar = "results"
        value: int

    recipe(Alike, preflight=refuse_thirteen)(lambda batch: None)
    with pytest.raises(SpecError) as caught:
        run([add(13, 1), Alike(value=13)], workspace)
    assert str(caught.value).count("use 14") == 1


def test_another_spec_under_the_same_key_is_an_error(workspace: Workspace):
    run(Number(value=1), workspace)
    keys = Keys(workspace)
    key = keys.of(Number(value=1))
    forged = Number(value=2)
    keys._by_id[id(forged)] = (forged, CanonicalForm("{}", "{}", key))
    with pytest.raises(saevx.CorruptArtifact, match="another spec"):
        make_plan([forged], keys, workspace.store)


def test_a_subclass_with_a_field_of_its_own_needs_a_recipe_of_its_own(workspace: Workspace):
    class Scaled(Number):
        scale: float = 1.0

    with pytest.raises(saevx.RecipeError, match=r"Scaled adds scale to Number.*@recipe\(Scaled\)"):
        run(Scaled(value=1), workspace)

    class Renamed(Number):
        pass

    run(Renamed(value=1), workspace)
    assert load(Renamed(value=1), workspace) == 1


def test_only_specs_of_artifacts_are_accepted(workspace: Workspace):
    for wrong in (3, [Number(value=1)], saevx.Squash(size=3)):
        with pytest.raises(SpecError, match="is no spec of an artifact"):
            load(wrong, workspace)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="give the root of a store"):
        load(Number(value=1), workspace.store)  # type: ignore[arg-type]


def test_loading_compares_the_spec_too(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    run(Number(value=1), workspace)
    monkeypatch.setattr(Keys, "canonical", lambda self, spec: "{}")
    with pytest.raises(saevx.CorruptArtifact, match="another spec"):
        load(Number(value=1), workspace)


def test_loading_a_missing_artifact_names_what_makes_it(workspace: Workspace):
    with pytest.raises(saevx.MissingArtifact, match=r"(?s)saevx run FILE.py.*saevx\.run\(spec\)"):
        load(add(1, 2), workspace)


def test_table_explodes_specs(workspace: Workspace):
    run([add(1, 2), add(3, 4)], workspace)
    frame = table([add(1, 2), add(3, 4)], workspace)
    assert frame["sum"].to_list() == [3, 7]
    assert frame["key"].to_list() == [add(1, 2).key, add(3, 4).key]
    assert frame["value"].to_list() == [1, 3]
    assert frame["right.value"].to_list() == [2, 4]


def test_table_refuses_artifacts_that_are_not_tables(workspace: Workspace):
    with pytest.raises(SpecError, match=r"use saevx\.load"):
        table([Number(value=1)], workspace)


def test_the_manifest_has_parents_and_provenance(workspace: Workspace):
    run(add(1, 2), workspace)
    manifest = workspace.store.open("results", add(1, 2).key).manifest
    assert {p.key for p in manifest.parents.values()} == {Number(value=v).key for v in (1, 2)}
    assert manifest.attributes == {"sum": 3}
    assert manifest.provenance["wall_s"] >= 0
    assert manifest.provenance["peak_memory_bytes"] > 1 << 20
    assert manifest.spec["fields"]["left"]["fields"] == {"value": 1, "group": "a"}


def test_a_spec_is_drawn_with_its_state(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAEVX_STORE", str(workspace.store.root))
    run(Number(value=1), workspace)
    html = add(1, 2)._repr_html_()
    assert html.count("present") == 1
    assert html.count("missing") == 2
    assert add(1, 2).key[:8] in html
