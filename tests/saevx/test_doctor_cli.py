"""`saevx doctor`, and its checks of datasets, weights, types, keys and code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from pydantic import SerializeAsAny

import saevx as api
from saevx import (
    Artifact,
    Batch,
    ImageFolder,
    RandomInit,
    Shards,
    Since,
    Squash,
    ViT,
    WeightsFile,
    recipe,
)
from saevx.check.datasets import cannot_make
from saevx.check.specs import KEYS_CHECKED, check_specs
from saevx.cli import main
from saevx.config import open_store
from saevx.recording.recipe import inspect
from saevx.user_types import DeclaredTypes
from saevx.vit import data_config
from saevx.workspace import open_workspace
from spec import CUB200Images, ImageSet

from .cub_tree import make_cub


class Seen(Artifact):
    """Stands for Shards."""

    kind: ClassVar = "shards"
    images: SerializeAsAny[ImageSet]
    vit: ViT = ViT(name="vit_tiny_patch16_224", weights=RandomInit(seed=0))


class Judged(Artifact):
    kind: ClassVar = "results"
    seen: Seen
    n: int = 0


@recipe(Seen)
def see(batch: Batch[Seen]) -> None:
    (spec,) = batch.specs
    batch.draft(spec).write("x", np.arange(50))
    batch.publish(spec)


@recipe(Judged)
def judge(batch: Batch[Judged]) -> None:
    (spec,) = batch.specs
    batch.draft(spec).write("x", batch.input(spec.seen).array("x").read())
    batch.publish(spec)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAEVX_STORE", raising=False)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.png").write_bytes(name.encode() * 10)
    return folder


def doctor(*words: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *words], catch_exceptions=False)


def findings(*words: str, but: str = "code") -> list[dict[str, Any]]:
    found = json.loads(doctor("--json", *words).stdout)
    return [finding for finding in found if finding["topic"] != but]


def whats(*words: str) -> list[str]:
    return [f"{f['severity']}: {f['topic']}: {f['what']}" for f in findings(*words)]


def test_a_recording_that_would_differ_now_or_is_of_mixed_devices_is_told(
    photos: Path, monkeypatch: pytest.MonkeyPatch
):
    for i, name in enumerate("abc"):
        Image.new("RGB", (32, 32), (i, 0, 0)).save(photos / f"{name}.png")
    vit = ViT(name="test_vit", weights=RandomInit(branch_ratio=0.7))
    spec = Shards(images=ImageFolder(root=str(photos)), vit=vit, layer=1)
    api.run(spec)
    assert whats() == []
    real = data_config.data_config
    changed = {"mean": (0.1, 0.2, 0.3), "resize": Squash(size=96)}
    monkeypatch.setattr(data_config, "data_config", lambda vit: replace(real(vit), **changed))
    told = [text.removeprefix("warning: recipes: was recorded with ") for text in whats()]
    assert [text.split()[0] for text in told] == ["resize", "size", "mean"]
    assert "and the installed timm gives test_vit [0.1, 0.2, 0.3]: a new recording" in told[2]
    attributes = real(vit).as_json() | {"warnings": ["different devices"]}
    monkeypatch.undo()
    assert list(inspect(spec, attributes)) == ["different devices"]


def make(photos: Path, n: int = 0) -> Judged:
    spec = Judged(seen=Seen(images=ImageFolder(root=str(photos))), n=n)
    api.run(spec)
    return spec


def test_a_valid_store_has_no_findings(photos: Path):
    make(photos)
    done = doctor("--deep")
    assert done.exit_code == 0
    assert "2 whole manifests, every byte read: 0 errors, 0 warnings" in done.stdout
    assert findings() == []


def test_damaged_artifacts_are_trashed_and_recomputed(photos: Path):
    spec = make(photos)
    store = open_store()
    file = store.open("results", spec.key).path / "x" / "c.0"
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    assert doctor().exit_code == 0  # sizes do not tell
    done = doctor("--deep")
    assert done.exit_code == 1
    assert "error: damaged" in done.stdout
    assert "has altered bytes in x/c.0" in done.stdout
    assert "→ `saevx doctor --fix` moves it to the trash" in done.stdout
    done = doctor("--deep", "--fix")
    assert done.exit_code == 0
    assert "[fixed]" in done.stdout
    assert store.find("results", spec.key) is None
    api.run(spec)
    assert doctor("--deep").exit_code == 0

    (store.open("results", spec.key).path / "x" / "c.0").unlink()
    (found,) = findings()
    assert (found["severity"], found["kind"], found["key"]) == ("error", "results", spec.key)
    assert findings("--fix")[0]["fix"] == "fixed"


def test_many_findings_are_counted(photos: Path):
    for n in range(25):
        (open_store().open("results", make(photos, n).key).path / "zarr.json").unlink()
    shown = doctor().stdout
    assert "error: damaged (25)" in shown
    assert shown.count("has no manifest") == 20
    assert "and 5 more; --all prints them" in shown
    assert doctor("--all").stdout.count("has no manifest") == 25


def move_away(photos: Path) -> None:
    photos.rename(photos.with_name("moved"))


def empty(photos: Path) -> None:
    for file in photos.iterdir():
        file.unlink()


def add_one(photos: Path) -> None:
    (photos / "d.png").write_bytes(b"d")


def rename_one(photos: Path) -> None:
    (photos / "a.png").rename(photos / "z.png")


def grow_one(photos: Path) -> None:
    (photos / "a.png").write_bytes(b"longer than before")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (move_away, "ImageFolder() cannot be found: there is no folder"),
        (empty, "ImageFolder() cannot be found: there is no image below"),
        (add_one, "has changed: images"),
        (rename_one, "has changed: images"),
        (grow_one, "has changed: images"),
    ],
)
def test_datasets(photos: Path, harm: Callable[[Path], None], says: str):
    make(photos)
    (key,) = open_store().keys("shards")
    whole = photos.with_name("whole")
    shutil.copytree(photos, whole)
    harm(photos)
    (found,) = findings()
    assert (found["severity"], found["topic"]) == ("warning", "datasets")
    assert says in found["what"]
    assert "2 artifacts made from it stay usable" in found["advice"]
    assert doctor().exit_code == 0  # what is there is whole
    manifest = open_store().open("shards", key).manifest
    why_not = cannot_make(open_workspace(), DeclaredTypes([]))
    assert says in str(why_not(manifest))
    # Found again elsewhere, once a run has been there.
    api.run(Judged(seen=Seen(images=ImageFolder(root=str(whole))), n=0))
    assert findings() == []
    assert cannot_make(open_workspace(), DeclaredTypes([]))(manifest) is None


def test_a_dataset_in_saevx_toml(tmp_path: Path):
    make_cub(tmp_path / "cub")
    toml = Path("saevx.toml")
    toml.write_text('[data]\ncub200 = "cub"\n')
    api.run(Seen(images=CUB200Images(split="train")))
    assert findings() == []
    Path("cub").rename("elsewhere")
    (found,) = findings()
    assert "CUB200Images(split='train') cannot be found" in found["what"]
    assert "[data] in saevx.toml" in found["advice"]
    toml.write_text('[data]\ncub200 = "elsewhere"\n')
    assert findings() == []


def test_weights(photos: Path, tmp_path: Path):
    file = tmp_path / "tiny.safetensors"
    file.write_bytes(b"some weights")
    vit = ViT(name="vit_tiny_patch16_224", weights=WeightsFile(path=str(file)))
    api.run(Seen(images=ImageFolder(root=str(photos)), vit=vit))
    assert findings() == []
    file.write_bytes(b"other weights")
    assert "warning: weights: WeightsFile() at" in whats()[0]
    file.unlink()
    assert "warning: weights: WeightsFile() cannot be found" in whats()[0]
    file.write_bytes(b"some weights")
    assert findings() == []


def test_types(photos: Path, monkeypatch: pytest.MonkeyPatch):
    make(photos)
    monkeypatch.setattr(Judged, "version", 2)
    assert whats() == ["info: types: 1 artifact of version 1, and the type is at 2 now"]
    monkeypatch.setattr(Judged, "version", 1)
    monkeypatch.setattr(Seen, "version", 0)
    assert whats()[0] == "warning: types: 1 artifact of version 1, and this code knows 0"
    monkeypatch.setattr(Seen, "version", 1)
    Judged.__name__ = "Renamed"
    try:
        assert whats() == ["info: types: 1 artifact of this type, which is not known here"]
    finally:
        Judged.__name__ = "Judged"


def test_specs_whose_key_changed_are_reported(photos: Path):
    make(photos)
    declared: list[type] = []  # or they would be gone at once

    def declare(**fields: Any) -> None:
        body = {"__annotations__": fields, "kind": "results", "__module__": __name__}
        defaults = {name: 0 for name in fields if name != "seen"}
        declared.append(type("Judged", (Artifact,), {**body, **defaults}))

    declare(seen=Seen, n=int)
    assert findings() == []
    declare(seen=Seen, n=int, also=Annotated[int, Since(legacy=0)])
    assert findings() == []
    declare(seen=Seen, n=int, also=int)
    (what,) = whats()
    assert what.startswith("warning: specs: has another key in this code")
    declare(seen=Seen)
    (what,) = whats()
    assert what.startswith(
        "warning: specs: cannot be read as tests.saevx.test_doctor_cli.Judged by this code"
    )
    declare(seen=Seen, n=int)
    assert findings() == []


def test_keys_of_large_stores_are_computed_only_by_a_deep_check(
    photos: Path, monkeypatch: pytest.MonkeyPatch
):
    make(photos)
    manifests = [artifact.manifest for artifact in open_store().scan()]
    asked: list[int] = []
    monkeypatch.setattr(
        "saevx.check.specs._check_keys", lambda sources, found: asked.append(len(found)) or []
    )
    many = manifests * (KEYS_CHECKED // 2 + 1)
    list(check_specs(open_workspace(), many, DeclaredTypes([])))
    assert asked == []
    list(check_specs(open_workspace(), many, DeclaredTypes([]), deep=True))
    assert asked == [len(many)]


def test_artifacts_of_other_commits_are_counted():
    with open_store().draft("results", "a" * 32) as draft:
        draft.write("x", np.zeros(1))
        draft.publish(
            type="T",
            version=1,
            canonical="",
            spec={"fields": {}},
            parents={},
            provenance={"code": {"commit": "0123456789abcdef", "dirty": True}},
        )
    manifests = [artifact.manifest for artifact in open_store().scan()]
    found = [
        f for f in check_specs(open_workspace(), manifests, DeclaredTypes([])) if f.topic == "code"
    ]
    assert [f.severity for f in found] == ["info", "info"]
    assert "1 artifact made by other commits: 0123456789 (1)" in found[0].what
    assert "not committed" in found[1].what


def test_orphans_are_removed():
    folder = Path(".saevx/results/.build") / f"{'a' * 32}.{_dead_owner()}.abcdefab"
    folder.mkdir(parents=True)
    (found,) = findings()
    assert (found["severity"], found["topic"]) == ("warning", "orphans")
    assert findings("--fix")[0]["fix"] == "fixed"
    assert not folder.exists()
    assert findings() == []


def _dead_owner() -> str:
    from store.locks.process import ProcessId

    return str(ProcessId.here()._replace(started="1"))
