"""The whole line from images to a table, on miniature CUB datasets and a ViT of random weights."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from click.testing import CliRunner, Result
from pydantic import ValidationError
from sklearn.metrics import average_precision_score

import saevx
from saevx import (
    CUB200,
    Blosc,
    ImageScores,
    RandomInit,
    RandomPrototypes,
    Shards,
    Squash,
    TraitAP,
    ViT,
)
from saevx.cli import main
from saevx.errors import RunFailed
from saevx.traits import scores
from saevx.traits.train_subsets import nested_order
from saevx.workspace import Workspace, open_workspace

from .cub_tree import CubTree, make_cub

VIT = ViT(name="vit_tiny_patch16_224", weights=RandomInit(seed=0), resize=Squash(size=32))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[CubTree, Workspace]:
    """A dataset and a store in which the targets of two layers are made."""
    folder = tmp_path_factory.mktemp("pipeline")
    tree = make_cub(folder / "cub", n_images=40)
    workspace = open_workspace(folder / "store")
    saevx.run(study(tree.root), workspace)
    return tree, workspace


@pytest.fixture
def copy(made: tuple[CubTree, Workspace], tmp_path: Path) -> tuple[Path, Workspace]:
    """A copy of both, to do harm to."""
    tree, workspace = made
    shutil.copytree(tree.root, tmp_path / "cub")
    shutil.copytree(workspace.store.root, tmp_path / "store")
    return tmp_path / "cub", open_workspace(tmp_path / "store")


def study(
    root: Path | None,
    layers: tuple[int, ...] = (1, 3),
    ns: tuple[int, ...] = (4, 9),
    n_trains: tuple[int | None, ...] = (8, None),
    **labels: Any,
) -> list[TraitAP]:
    where = None if root is None else str(root)
    train, test = (CUB200(split=s, root=where, **labels) for s in ("train", "test"))
    return [
        TraitAP(
            scorer=RandomPrototypes(
                shards=Shards(images=train.images, vit=VIT, layer=layer), n=n, seed=17
            ),
            train=train,
            test=test,
            n_train=n_train,
        )
        for layer in layers
        for n in ns
        for n_train in n_trains
    ]


def made_by(specs: list[TraitAP], workspace: Workspace) -> dict[str, int]:
    """How many artifacts of each type a run makes."""
    before = {artifact.key for artifact in workspace.store.scan()}
    saevx.run(specs, open_workspace(workspace.store.root))
    counts: dict[str, int] = {}
    for artifact in workspace.store.scan():
        if artifact.key not in before:
            counts[artifact.manifest.type] = counts.get(artifact.manifest.type, 0) + 1
    return counts


def test_tables_equal_a_plain_loop(made: tuple[CubTree, Workspace]):
    tree, workspace = made
    for spec in study(tree.root):
        sides = {}
        scorer = saevx.load(spec.scorer, workspace)
        for split in ("train", "test"):
            images = CUB200(split=split, root=str(tree.root)).images
            tokens = saevx.load(spec.scorer.shards.model_copy(update={"images": images}), workspace)
            labels = tree.labels(split)
            y = np.array([labels[name] for name in tokens.images])
            scores = np.stack([scorer(np.asarray(acts)).max(axis=0) for acts in tokens.patches])
            sides[split] = scores, y, tokens.images
        scores, y, names = sides["train"]
        chosen = nested_order(names)[: spec.n_train]
        test_scores, test_y, _ = sides["test"]
        for t, row in enumerate(saevx.load(spec, workspace).iter_rows(named=True)):
            assert row["trait"] == tree.attributes[t]
            assert row["n_pos_test"] == test_y[:, t].sum()
            if not y[chosen, t].any():
                assert row["left_out"] == "no positives in train"
                assert row["ap"] is None
                continue
            aps = [average_precision_score(y[chosen, t], s) for s in scores[chosen].T]
            assert row["train_ap"] == pytest.approx(max(aps), abs=1e-6)
            assert aps[row["prototype"]] == pytest.approx(max(aps), abs=1e-6)
            judged = average_precision_score(test_y[:, t], test_scores[:, row["prototype"]])
            assert row["ap"] == pytest.approx(judged, abs=1e-6)
            assert row["constant_ap"] == pytest.approx(
                average_precision_score(test_y[:, t], np.zeros(len(test_y)))
            )


def test_prototypes_are_tokens_and_nested(made: tuple[CubTree, Workspace]):
    tree, workspace = made
    spec = study(tree.root)[0].scorer
    more = spec.model_copy(update={"n": 9})
    few_kd, many_kd = (saevx.load(s, workspace).vectors_kd for s in (spec, more))
    np.testing.assert_array_equal(few_kd, many_kd[:4])
    tokens = np.asarray(saevx.load(spec.shards, workspace).tokens(), dtype=np.float32)
    assert all((tokens == vector).all(axis=1).any() for vector in many_kd)
    assert saevx.load(more, workspace).n_prototypes == 9


def test_prototypes_are_drawn_by_their_seed(copy: tuple[Path, Workspace]):
    """In one batch, and against numpy's own generator on the same stream."""
    root, workspace = copy
    spec = study(root)[1].scorer
    specs = [spec.model_copy(update={"seed": seed}) for seed in (0, 1, 17)]
    saevx.run(specs, workspace)
    tokens_nd = np.asarray(saevx.load(spec.shards, workspace).tokens(), dtype=np.float32)
    for spec in specs:
        uniform = np.random.default_rng(spec.seed).random(1000)
        drawn = list(dict.fromkeys((uniform * len(tokens_nd)).astype(int)))[: spec.n]
        np.testing.assert_array_equal(
            saevx.load(spec, workspace).vectors_kd, tokens_nd[np.array(drawn)]
        )
        artifact = workspace.store.open("checkpoints", spec.key)
        assert artifact.array("tokens").read().tolist() == drawn
        assert artifact.array("prototypes").dtype == np.float32


def test_only_new_artifacts_are_made(copy: tuple[Path, Workspace]):
    root, workspace = copy
    assert made_by(study(root), workspace) == {}
    assert made_by(study(root, n_trains=(8, 16, None)), workspace) == {"TraitAP": 4}
    assert made_by(study(root, ns=(4, 6, 9)), workspace) == {
        "RandomPrototypes": 2,
        "ImageScores": 4,
        "TraitAP": 4,
    }
    assert made_by(study(root, layers=(1, 2, 3)), workspace) == {
        "Shards": 2,
        "RandomPrototypes": 2,
        "ImageScores": 4,
        "TraitAP": 4,
    }


def test_relabelling_makes_new_tables_and_records_nothing(copy: tuple[Path, Workspace]):
    root, workspace = copy
    assert made_by(study(root, min_certainty=2), workspace) == {"TraitAP": 8}
    (file,) = root.rglob("image_attribute_labels.txt")
    lines = file.read_text().splitlines()
    flipped = lines[0].split()
    flipped[2] = "0" if flipped[2] == "1" else "1"
    file.write_text("\n".join([" ".join(flipped), *lines[1:]]) + "\n")
    assert made_by(study(root), workspace) == {"TraitAP": 8}


def test_a_moved_dataset_keeps_its_artifacts(copy: tuple[Path, Workspace]):
    root, workspace = copy
    moved = root.rename(root.with_name("elsewhere"))
    assert made_by(study(moved), workspace) == {}


def test_a_purged_dataset_leaves_its_tables(copy: tuple[Path, Workspace]):
    root, workspace = copy
    saevx.run(study(root), workspace)  # the store learns where this copy lies
    shutil.rmtree(root)
    assert made_by(study(root), workspace) == {}
    assert saevx.load(study(root)[0], workspace.store.root).height == 6
    with pytest.raises(saevx.SaevxError, match=str(root)):
        saevx.run(study(root, layers=(2,)), workspace.store.root)


@pytest.mark.parametrize("layout", ["official", "tree"])
def test_both_layouts_of_cub_share_their_shards(tmp_path: Path, layout: Any, made: Any):
    _, workspace = made
    other = make_cub(tmp_path / "other", layout=layout, n_images=40)
    assert made_by(study(other.root), workspace).get("Shards", 0) == 0


def test_a_batch_does_not_change_what_is_made(made: tuple[CubTree, Workspace], tmp_path: Path):
    tree, together = made
    alone = open_workspace(tmp_path / "alone")
    for spec in reversed(study(tree.root)):
        saevx.run(spec, alone)
    for artifact in together.store.scan():
        other = alone.store.find(artifact.kind, artifact.key)
        if other is not None:
            assert other.manifest.files == artifact.manifest.files
    assert {a.key for a in alone.store.scan()} == {study_key for study_key in _keys(tree, together)}


@pytest.mark.parametrize(
    "change",
    [
        {"layer": 2},
        {"dtype": "float32"},
        {"batch_size": 5},
        {"vit": VIT.model_copy(update={"weights": RandomInit(seed=1)})},
    ],
    ids=lambda change: next(iter(change)),
)
def test_recordings_made_together_equal_those_made_alone(
    made: tuple[CubTree, Workspace], tmp_path: Path, change: dict[str, Any]
):
    images = CUB200(split="test", root=str(made[0].root)).images
    spec = Shards(images=images, vit=VIT, layer=1, batch_size=4)
    specs = [spec, spec.model_copy(update=change)]
    together, alone = (open_workspace(tmp_path / name) for name in ("together", "alone"))
    saevx.run(specs, together)
    for one in specs:
        saevx.run([one], alone)
        found, expected = (saevx.load(one, store).patches for store in (together, alone))
        assert found.grid == expected.grid
        np.testing.assert_array_equal(found.read(), expected.read())


def test_tables_made_together_equal_those_made_alone(copy: tuple[Path, Workspace], tmp_path: Path):
    root, together = copy
    alone = open_workspace(shutil.copytree(together.store.root, tmp_path / "alone"))
    (spec,) = study(root, layers=(1,), ns=(4,), n_trains=(10,))
    names = saevx.load(spec.model_copy(update={"n_train": None}), together)["trait"]
    fewer = {"traits": tuple(names[1:4])}
    sides = [
        {"train": spec.train, "test": spec.test},
        {"train": spec.train.model_copy(update=fewer), "test": spec.test.model_copy(update=fewer)},
        {"train": spec.train.model_copy(update={"min_certainty": 4}), "test": spec.test},
        {"train": spec.train, "test": spec.test.model_copy(update={"min_certainty": 4})},
    ]
    specs = [spec.model_copy(update=side) for side in sides]
    saevx.run(specs, together)
    tables = []
    for one in specs:
        saevx.run([one], alone)
        tables.append(saevx.load(one, together))
        assert tables[-1].equals(saevx.load(one, alone))
    assert not any(a.equals(b) for a, b in itertools.combinations(tables, 2))


def _keys(tree: CubTree, workspace: Workspace) -> set[str]:
    from saevx.resolve.plan import make_plan
    from spec import Keys

    plan = make_plan(study(tree.root), Keys(workspace), open_workspace("/nowhere").store)
    return set(plan.nodes)


def test_a_table_carries_its_spec(made: tuple[CubTree, Workspace]):
    tree, workspace = made
    table = saevx.table(study(tree.root), workspace)
    assert table.height == 8 * 6
    assert set(table["layer"]) == {1, 3}
    assert set(table["vit.name"]) == {"vit_tiny_patch16_224"}
    assert set(table["n_train"]) == {8, None}
    assert set(table["n"]) == {4, 9}
    assert set(table["vit.weights"]) == {"RandomInit"}


def test_scores_name_their_images(made: tuple[CubTree, Workspace]):
    tree, workspace = made
    spec: ImageScores = study(tree.root)[0].test_scores
    artifact = saevx.load(spec, workspace)
    assert set(artifact.table("images")["file"]) == set(tree.labels("test"))
    assert artifact.array("scores").shape == (len(tree.labels("test")), 4)


def test_compressed_scores_are_the_same(copy: tuple[Path, Workspace]):
    root, workspace = copy
    plain: ImageScores = study(root)[0].test_scores
    small = plain.model_copy(update={"codec": Blosc(cname="lz4")})
    saevx.run([plain, small], workspace)
    arrays = [saevx.load(spec, workspace).array("scores") for spec in (plain, small)]
    assert [array.grid.codec is None for array in arrays] == [True, False]
    np.testing.assert_array_equal(arrays[0].read(), arrays[1].read())
    group = saevx.load(small, workspace).zarr()
    np.testing.assert_array_equal(group["scores"][:], arrays[0].read())
    with pytest.raises(ValidationError, match="scores are no integers"):
        plain.model_copy(update={"codec": Blosc(delta=True)})


def test_a_scorer_that_fails_fails_alone(
    copy: tuple[Path, Workspace], monkeypatch: pytest.MonkeyPatch
):
    """Also with several blocks of images, and files of limited size."""
    root, workspace = copy
    spec: ImageScores = study(root)[0].test_scores
    specs = [
        spec.model_copy(update={"scorer": spec.scorer.model_copy(update={"n": n})})
        for n in (5, 6, 7)
    ]
    real, failures = scores.max_over_patches, []

    def failing(scorer: Any, *acts: Any) -> Any:
        if scorer.n_prototypes == 6 and not failures:
            failures.append(scorer)
            raise saevx.RecipeError("these scores are not finite")
        return real(scorer, *acts)

    monkeypatch.setattr(scores, "max_over_patches", failing)
    monkeypatch.setattr(scores, "TOKENS_PER_BLOCK", 3 * 4)
    monkeypatch.setattr(scores, "SHARD_BYTES", 7 * 4 * 7)
    with pytest.raises(RunFailed, match="these scores are not finite"):
        saevx.run(specs, workspace)
    acts = saevx.load(spec.shards, workspace).patches.read()
    for one in (specs[0], specs[2]):
        array = saevx.load(one, workspace).array("scores")
        vectors_kd = saevx.load(one.scorer, workspace).vectors_kd
        np.testing.assert_allclose(
            array.read(), (acts.astype(np.float32) @ vectors_kd.T).max(axis=1), rtol=1e-4
        )
        assert array.grid.rows_per_shard == 7 * 7 // one.scorer.n
    with pytest.raises(saevx.MissingArtifact):
        saevx.load(specs[1], workspace)


@pytest.fixture
def cub_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CubTree:
    """A folder with a dataset, a saevx.toml and an experiment file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAEVX_STORE", raising=False)
    Path("saevx.toml").write_text('[data]\ncub200 = "cub"\n')
    return make_cub(tmp_path / "cub")


EXPERIMENT = """
from saevx import *

LAYER, N, N_TRAIN, SIZE, NAME, TRAITS = 1, 4, None, 32, "vit_tiny_patch16_224", None
WEIGHTS = RandomInit(seed=0)
{change}
train, test = (CUB200(split=split, traits=TRAITS) for split in ("train", "test"))
vit = ViT(name=NAME, weights=WEIGHTS, resize=Squash(size=SIZE))
shards = Shards(images=train.images, vit=vit, layer=LAYER)
scorer = RandomPrototypes(shards=shards, n=N)
targets = [TraitAP(scorer=scorer, train=train, test=test, n_train=N_TRAIN)]
"""


def run(change: str = "") -> Result:
    Path("study.py").write_text(EXPERIMENT.format(change=change))
    return CliRunner().invoke(main, ["run", "study.py"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("LAYER = 12", "0 to 11"),
        ("LAYER = -1", "greater than or equal to 0"),
        ("N = 10_000", "use n of at most"),
        ("N_TRAIN = 500", "more than the 12 images"),
        ("SIZE = 33", "use a multiple of 16 px"),
        ("NAME = 'vit_tiny_patch16_225'", "vit_tiny_patch16_224"),
        ("NAME = 'resnet18'", "resnet18"),
        ("TRAITS = ('has_part_0::colour_(9)',)", "has_part_0::colour_(0)"),
        ("WEIGHTS = WeightsFile(path='nowhere.pt')", "nowhere.pt"),
        ("WEIGHTS = HubWeights()", "has no tag that names weights"),
    ],
)
def test_specs_that_make_no_sense_fail_before_anything_runs(
    cub_study: CubTree, change: str, says: str
):
    result = run(change)
    assert result.exit_code == 1
    assert says in result.stderr
    assert "Traceback (most" not in result.stderr
    assert not Path(".saevx/shards").exists()


def test_broken_datasets_are_reported_and_leave_nothing(cub_study: CubTree):
    image = cub_study.image(cub_study.names[0])
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    result = run()
    assert result.exit_code == 1
    assert str(image) in result.stderr
    image.write_bytes(b"this is no image")
    assert str(image) in run().stderr
    image.unlink()
    assert image.name in run().stderr
    image.write_bytes(whole)
    labels = cub_study.file("image_attribute_labels.txt")
    labels.rename(labels.with_suffix(".away"))
    assert "image_attribute_labels.txt" in run().stderr
    assert [a.verify() for a in open_workspace(".saevx").store.scan() if a.verify()] == []
    assert not list(Path(".saevx").glob("*/.build/*"))
    assert not list(Path(".saevx").glob("results/*"))
    labels.with_suffix(".away").rename(labels)
    assert run().exit_code == 0


def test_a_dataset_without_a_root_says_how_to_give_one(cub_study: CubTree):
    Path("saevx.toml").unlink()
    result = run()
    assert result.exit_code == 1
    assert 'cub200 = "/path/to/folder"' in result.stderr


def test_suspicious_labels_carry_a_warning(cub_study: CubTree):
    file = cub_study.file("image_attribute_labels.txt")
    rows = [line.split() for line in file.read_text().splitlines()]
    lines = [" ".join([*row[:2], "1", "4", "1.0"]) for row in rows]
    file.write_text("\n".join(lines) + "\n")
    result = run()
    assert result.exit_code == 0
    assert "labels were read wrong" in result.stderr


def test_the_cub_study_runs_on_a_miniature(cub_study: CubTree, monkeypatch: pytest.MonkeyPatch):
    file = Path(__file__).parents[2] / "experiments" / "cub_layers.py"
    plan = CliRunner().invoke(main, ["plan", str(file), "--json"], catch_exceptions=False)
    (stage,) = json.loads(plan.stdout)["stages"]
    assert len(stage["targets"]) == 12 * 5 * 6 * 3
    types = [node["type"] for node in stage["nodes"]]
    assert {name: types.count(name) for name in sorted(set(types))} == {
        "ImageScores": 2 * 12 * 5 * 3,
        "RandomPrototypes": 12 * 5 * 3,
        "Shards": 2 * 12,
        "TraitAP": 1080,
    }
    Path("mini.py").write_text(
        f"""
import runpy
import saevx

vit = saevx.ViT(
    name="vit_tiny_patch16_224", weights=saevx.RandomInit(), resize=saevx.Squash(size=32)
)
study = runpy.run_path({str(file)!r})
report = study["report"]

def smaller(spec):
    shards = spec.scorer.shards
    shards = shards.model_copy(update={{"vit": vit, "layer": shards.layer - 12}})
    scorer = spec.scorer.model_copy(update={{"shards": shards, "n": spec.scorer.n // 32}})
    return spec.model_copy(update={{"scorer": scorer}})

targets = [
    smaller(spec) for spec in study["targets"]
    if spec.scorer.n <= 512 and spec.n_train is None and spec.scorer.shards.layer < 14
]
"""
    )
    result = CliRunner().invoke(main, ["run", "mini.py"], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    frame = pl.read_csv(".saevx/reports/mini/mean_ap.csv")
    assert frame.columns[:4] == ["layer", "prototypes", "train images", "mAP"]
    assert frame.height == 2 * 2
    assert Path(".saevx/reports/mini/by_layer.png").stat().st_size > 1000
