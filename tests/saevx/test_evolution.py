"""Tests of docs/evolution.md: which changes of specs, versions and layouts keep what."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result

from saevx import Artifact, Batch, Exec, Since, recipe
from saevx.cli import main
from saevx.notebook import load, run, table
from saevx.query.search import search
from saevx.resolve.plan import make_plan
from saevx.workspace import Workspace, open_workspace
from spec import Keys, from_document, to_document
from store import NewerLayout
from store.artifact.manifest import encode_manifest
from store.io import digest
from store.layout import LAYOUT


def base_type(version: int = 1, name: str = "Base", **fields: Any) -> type[Artifact]:
    """`Base` at some point in time: its fields and its recipe."""
    annotations = {"size": int, **{field: kind for field, (kind, _) in fields.items()}}
    defaults = {field: default for field, (_, default) in fields.items()}
    body = {"__annotations__": annotations, "__module__": __name__, "namespace": "toy"}
    facts = {"kind": "checkpoints", "version": version}
    made = type(name, (Artifact,), {**body, **facts, **defaults})

    @recipe(made, load=lambda artifact: int(artifact.array("size").read()[0]))
    def make(batch: Batch[Any]) -> None:
        for spec in batch.specs:
            batch.draft(spec).write("size", np.array([spec.size]))
            batch.publish(spec)

    return made


class Table(Artifact):
    kind: ClassVar = "results"
    base: Artifact


@recipe(Table, load=lambda artifact: artifact.table("rows"))
def make_table(batch: Batch[Table]) -> None:
    (spec,) = batch.specs
    value = int(batch.input(spec.base).array("size").read()[0])
    batch.draft(spec).table("rows", pl.DataFrame({"value": [value]}))
    batch.publish(spec)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A store with an artifact of the first `Base` and a table made from it."""
    monkeypatch.setattr("os.fsync", lambda fd: None)
    workspace = open_workspace(tmp_path / "store")
    run(Table(base=base_type()(size=3)), workspace)
    return workspace


def to_make(target: Artifact, workspace: Workspace) -> list[str]:
    plan = make_plan([target], Keys(workspace), workspace.store)
    return [type(node.spec).__name__ for node in plan.to_make]


pooled = Annotated[str, Since(legacy="max")]
KEPT: dict[str, Callable[[], Artifact]] = {
    "nothing": lambda: base_type()(size=3),
    "a field with Since": lambda: base_type(pool=(pooled, "max"))(size=3),
    "another default later, the old value": lambda: base_type(pool=(pooled, "mean"))(
        size=3, pool="max"
    ),
    "a field with Exec": lambda: base_type(device=(Annotated[str, Exec()], "cpu"))(size=3),
    "its value": lambda: base_type(device=(Annotated[str, Exec()], "cpu"))(size=3, device="cuda"),
}
NEW: dict[str, Callable[[], Artifact]] = {
    "a field without Since": lambda: base_type(pool=(str, "max"))(size=3),
    "another value": lambda: base_type(pool=(pooled, "max"))(size=3, pool="mean"),
    "another default later": lambda: base_type(pool=(pooled, "mean"))(size=3),
    "a legacy that is only equal": lambda: base_type(pool=(Annotated[Any, Since(legacy=0)], False))(
        size=3
    ),
    "a version": lambda: base_type(version=2)(size=3),
    "a name": lambda: base_type(name="Basis")(size=3),
}


@pytest.mark.parametrize("change", KEPT)
def test_changes_that_keep_keys(change: str, workspace: Workspace):
    base = KEPT[change]()
    assert to_make(Table(base=base), workspace) == []
    assert to_make(base, workspace) == []
    assert load(base, workspace) == 3
    assert table(Table(base=base), workspace)["value"].to_list() == [3]


@pytest.mark.parametrize("change", NEW)
def test_changes_that_give_new_keys_to_all_dependents(change: str, workspace: Workspace):
    base = NEW[change]()
    assert to_make(Table(base=base), workspace) == [type(base).__name__, "Table"]
    before = {artifact.key for artifact in workspace.store.scan()}
    run(Table(base=base), workspace)
    after = {artifact.key for artifact in workspace.store.scan()}
    assert before < after
    assert load(base_type()(size=3), workspace) == 3  # the old code still finds its own


@pytest.mark.parametrize("default", ["max", "mean"])
def test_old_documents_are_read_with_the_legacy_value(default: str, workspace: Workspace):
    old = next(workspace.store.scan("checkpoints"))
    newer = base_type(pool=(pooled, default))
    read = from_document(old.manifest.spec)
    assert read == newer(size=3, pool="max")
    assert Keys(workspace).of(read) == old.key
    document = to_document(newer(size=3, pool="median"), Keys(workspace))
    assert from_document(json.loads(json.dumps(document))) == newer(size=3, pool="median")


def listed(workspace: Workspace, *words: str) -> Result:
    where = str(workspace.store.root)
    return CliRunner().invoke(main, ["ls", "--store", where, *words], catch_exceptions=False)


def test_listings_mark_an_older_version(workspace: Workspace):
    assert [row.is_older for row in search(workspace.store).rows] == [False, False]
    newer = base_type(version=2)
    by_specs = json.loads(listed(workspace, "--older", "--json").stdout)
    assert [(row["type"], row["version"]) for row in by_specs] == [("toy.Base", 1)]
    run(newer(size=4), workspace)
    rows = json.loads(listed(workspace, "--json").stdout)
    assert [(row["type"], row["version"], row["state"]) for row in rows] == [
        ("toy.Base", 1, "older version"),
        (f"{__name__}.Table", 1, None),
        ("toy.Base", 2, None),
    ]
    assert "older version" in listed(workspace).stdout


def test_searched_tables_leave_older_versions_out(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Table, "version", 2)
    assert table(store=workspace, spec=Table).is_empty()
    run(Table(base=base_type()(size=5)), workspace)
    assert table(store=workspace, spec=Table)["value"].to_list() == [5]
    both = table(store=workspace, spec="Table", older_versions=True)
    assert both["value"].to_list() == [3, 5]


def rewrite(workspace: Workspace, layout: int) -> None:
    for artifact in list(workspace.store.scan()):
        manifest = msgspec.structs.replace(artifact.manifest, layout=layout)
        (artifact.path / "zarr.json").write_bytes(encode_manifest(manifest))


def test_a_newer_layout_is_refused_and_left_alone(workspace: Workspace):
    target = Table(base=base_type()(size=3))
    before = {a.path: a.manifest for a in workspace.store.scan()}
    rewrite(workspace, LAYOUT + 1)
    for use in (
        lambda: to_make(target, workspace),
        lambda: load(target, workspace),
        lambda: run(target, workspace),
        lambda: table(store=workspace),
    ):
        with pytest.raises(NewerLayout, match=r"written by a later saevx.*Upgrade saevx"):
            use()
    result = listed(workspace)
    assert result.exit_code == 0
    assert "2 more cannot be read" in result.stdout
    assert not list(workspace.store.root.glob("*/.trash/*"))
    rewritten = {path: (path / "zarr.json").read_bytes() for path in before}
    for path, manifest in before.items():
        newer = msgspec.structs.replace(manifest, layout=LAYOUT + 1)
        assert rewritten[path] == encode_manifest(newer)


def test_an_older_layout_is_read(workspace: Workspace):
    rewrite(workspace, LAYOUT - 1)
    target = Table(base=base_type()(size=3))
    assert to_make(target, workspace) == []
    assert table(store=workspace)["value"].to_list() == [3]
    assert len(json.loads(listed(workspace, "--json").stdout)) == 2


def test_fields_of_a_manifest_that_are_not_known_are_ignored(workspace: Workspace):
    for artifact in list(workspace.store.scan()):
        text = (artifact.path / "zarr.json").read_text()
        more = text.replace('"layout": 1,', '"layout": 1,\n      "later": {"a": [1]},')
        body = more[:-40].encode()
        (artifact.path / "zarr.json").write_bytes(body + digest(body).encode() + b'"\n  }\n}\n')
    assert to_make(Table(base=base_type()(size=3)), workspace) == []
    assert len(search(workspace.store).rows) == 2
