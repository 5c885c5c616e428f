"""Scorers, random prototypes and tables: their input, and what a preflight refuses."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import saevx.prototypes.random
import saevx.traits.scores
import saevx.traits.trait_ap
from saevx.datasets.labels import Labels, read_traits, trait_names
from saevx.errors import DatasetError, RecipeError, SpecError
from saevx.prototypes.random import draw
from saevx.prototypes.scorer import Prototypes
from saevx.recording.token_rows import TokenRows
from saevx.traits import scores as scores_module
from saevx.traits.scores import blocks, max_over_patches
from saevx.traits.train_subsets import nested_order
from saevx.traits.trait_ap import pick_and_test, summary
from spec import (
    CUB200,
    ImageFolder,
    ImageScores,
    RandomInit,
    RandomPrototypes,
    Shards,
    Site,
    Squash,
    TraitAP,
    TraitSet,
    ViT,
)
from spec.files.site import Fingerprint
from store import Store, StoredArtifact

from .cub_tree import make_cub

D = 4
VECTORS = np.random.default_rng(0).standard_normal((3, D)).astype(np.float32)


@pytest.fixture
def scorer() -> Prototypes:
    return Prototypes(VECTORS)


@given(hnp.arrays(np.float16, st.tuples(st.integers(0, 9), st.just(D)),
                  elements=st.floats(-100, 100, width=16)))  # fmt: skip
def test_scores_do_not_depend_on_the_container(acts):
    scorer = Prototypes(VECTORS)
    expected = acts.astype(np.float64) @ VECTORS.T.astype(np.float64)
    rows = type("Rows", (), {"__array__": lambda self, dtype=None, copy=None: acts})()
    for form in (acts, acts.astype(np.float64), rows, *([acts.tolist()] if len(acts) else [])):
        scores = scorer(form)
        assert isinstance(scores, np.ndarray)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-2)
    of_tensor = scorer(torch.from_numpy(acts.copy()))
    assert isinstance(of_tensor, torch.Tensor)
    assert of_tensor.dtype == torch.float32
    np.testing.assert_allclose(of_tensor.numpy(), expected, rtol=1e-4, atol=1e-2)


def published(folder: Path, name: str, values: np.ndarray, files: list[str]) -> StoredArtifact:
    """An artifact with an array of five rows in files of two, and a table of images."""
    with Store(folder).draft("shards", "0" * 32) as draft:
        with draft.array(name, values.shape, values.dtype, rows_per_shard=2) as writer:
            writer.append(values)
        draft.table("images", pl.DataFrame({"file": files}))
        facts = {"type": "Shards", "version": 1, "canonical": "{}", "spec": {}}
        return draft.publish(**facts, parents={}, provenance={}, attributes={})


def test_tokens_are_scored_as_they_come(scorer, tmp_path):
    values = np.random.default_rng(1).standard_normal((5, 2, D)).astype(np.float16)
    flat = published(tmp_path, "patches", values.reshape(-1, D), ["x"]).array("patches")
    np.testing.assert_array_equal(scorer(TokenRows(flat)), scorer(values.reshape(-1, D)))
    np.testing.assert_array_equal(scorer(flat[6:8]), scorer(values[3]))


@pytest.mark.parametrize(
    ("acts", "says"),
    [
        (np.zeros((2, 5)), r"shape \(B, 4\), not \(2, 5\)$"),
        (torch.zeros(2, 5), r"shape \(B, 4\), not \(2, 5\)$"),
        (np.zeros(4), r"not \(4,\): for a single activation pass x\[None\]"),
        (np.zeros((2, 3, 4)), r"not \(2, 3, 4\): pass x\.reshape\(-1, 4\)"),
        (torch.zeros(2, 3, 4), r"reshape\(-1, 4\)"),
        ([[1, 2, 3, 4], [1, 2]], r"must be an array \(B, 4\) of numbers"),
        ([["a", "b", "c", "d"]], "of numbers"),
        (3.0, r"not \(\)"),
    ],
    ids=repr,
)
def test_other_activations_are_refused(scorer, acts, says):
    with pytest.raises(RecipeError, match=says):
        scorer(acts)


def test_scoring_arrays_costs_no_torch():
    code = (
        "import sys, numpy as np\n"
        "from saevx.prototypes.scorer import Prototypes\n"
        "Prototypes(np.ones((2, 3), np.float32))([[1, 2, 3]])\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_highest_patch_is_the_score_of_the_image(scorer):
    acts = np.random.default_rng(2).standard_normal((30, D)).astype(np.float32)
    for lengths in ([5] * 6, [1, 9, 4, 2, 13, 1], [30]):
        images = np.split(acts, np.cumsum(lengths)[:-1])
        expected = np.stack([(image @ VECTORS.T).max(axis=0) for image in images])
        found = max_over_patches(scorer, acts, np.array(lengths))
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=30), st.integers(1, 30))
def test_blocks_are_whole_images_and_as_large_as_allowed(lengths, limit):
    indptr = np.cumsum([0, *lengths])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores_module, "TOKENS_PER_BLOCK", limit)
        found = list(blocks(indptr))
    assert [start for start, _ in found] == [0, *(stop for _, stop in found[:-1])]
    assert found[-1][1] == len(lengths)
    for start, stop in found:
        assert stop == start + 1 or indptr[stop] - indptr[start] <= limit
        assert stop == len(lengths) or indptr[stop + 1] - indptr[start] > limit


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_scores_that_are_not_finite_are_refused(bad):
    scores = torch.zeros(6, 2)
    scores[2:4, 1] = bad  # both patches of the second image
    with pytest.raises(RecipeError, match="not finite"):
        max_over_patches(lambda acts: scores, np.zeros((6, D), np.float32), np.full(3, 2))


@given(st.integers(1, 40), st.data())
def test_draws_are_different_tokens_and_nested(n_tokens, data):
    seed = data.draw(st.integers(0, 9))
    drawn = draw(n_tokens, n_tokens, seed)
    assert sorted(drawn.tolist()) == list(range(n_tokens))
    n = data.draw(st.integers(0, n_tokens))
    np.testing.assert_array_equal(draw(n_tokens, n, seed), drawn[:n])
    with pytest.raises(SpecError, match=f"from {n_tokens} tokens: use n of at most {n_tokens}"):
        draw(n_tokens, n_tokens + 1, seed)


@given(st.lists(st.text(max_size=9), unique=True), st.randoms())
def test_train_subsets_depend_on_names_alone(names, random):
    order = [names[i] for i in nested_order(names)]
    assert order == sorted(names, key=lambda name: xxhash.xxh3_64_intdigest(name.encode()))
    shuffled = random.sample(names, len(names))
    assert [shuffled[i] for i in nested_order(shuffled)] == order
    kept = set(names[::2])
    assert [names[::2][i] for i in nested_order(names[::2])] == [n for n in order if n in kept]


def test_of_equal_prototypes_the_first_is_picked():
    rng = np.random.default_rng(3)
    scores, labels = rng.random((20, 3), np.float32), rng.random((20, 9)) < 0.5
    twice = np.concatenate([scores, scores], axis=1)
    once_picked, picked = (
        pick_and_test(s, labels, s, labels, "abcdefghi") for s in (scores, twice)
    )
    assert picked.equals(once_picked)
    assert set(picked["prototype"]) == {0, 1, 2}


def test_traits_without_positives_are_left_out_with_the_reason():
    train = np.array([[1, 0, 1, 0], [0, 0, 1, 0]], bool)
    test = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], bool)
    scores = np.array([[0.5, 1], [0, 2]], np.float32)
    frame = pick_and_test(scores, train, np.concatenate([scores, scores]), test, "abcd")
    reasons = [None, *(f"no positives in {side}" for side in ("train", "test", "train"))]
    assert frame["left_out"].to_list() == reasons
    assert frame["prototype"].to_list() == [0, None, None, None]
    assert frame["train_ap"].to_list() == [1.0, None, None, None]
    assert frame["ap"].to_list() == [0.5, None, None, None], "a tie of both, and two above others"
    assert frame["constant_ap"].to_list() == [0.5, 0.25, 0, 0]
    assert frame["n_pos_train"].to_list() == [1, 0, 2, 0]
    assert frame["n_pos_test"].to_list() == [2, 1, 0, 0]
    assert set(frame["n_train_images"]) == {2}
    assert set(frame["n_test_images"]) == {4}
    assert summary(frame) == {
        "n_traits": 4,
        "n_scored": 1,
        "left_out": ["b", "c", "d"],
        "mean_ap": 0.5,
        "mean_constant_ap": 0.5,
    }
    test[2, 0] = True
    warned = summary(pick_and_test(scores, train, np.concatenate([scores, scores]), test, "abcd"))
    assert "mean AP of 0.750: more than half" in warned["warnings"][0]
    nothing = pick_and_test(scores, train[:, 1:2], scores, train[:, 1:2], "b")
    assert nothing.schema == frame.schema
    assert summary(nothing) == {"n_traits": 1, "n_scored": 0, "left_out": ["b"]}


def test_scores_in_another_order_than_the_labels_are_refused(tmp_path):
    values = np.arange(10, dtype=np.float32).reshape(5, 2)
    made = published(tmp_path, "scores", values, list("abcde"))
    read = saevx.traits.trait_ap._scores

    def labels(names: str) -> Labels:
        return Labels(tuple(names), ("t",), np.zeros((len(names), 1), bool))

    np.testing.assert_array_equal(read(made, labels("abcde")), values)
    for names in ("bacde", "abcd"):
        with pytest.raises(DatasetError, match="not those of the labels: the dataset changed"):
            read(made, labels(names))


def random_prototypes(folder: Path, n: int, name: str = "test_vit") -> RandomPrototypes:
    for i in range(3):
        (folder / f"{folder.name}{i}.png").write_bytes(folder.name.encode() + b"x" * i)
    vit = ViT(name=name, weights=RandomInit(), resize=Squash(size=32))
    return RandomPrototypes(shards=Shards(images=ImageFolder(root=str(folder)), vit=vit, layer=0),
                            n=n)  # fmt: skip


@pytest.mark.parametrize("name", ["test_vit", "vit_tiny_patch16_224"])
def test_too_many_prototypes_are_refused_for_every_vit(tmp_path, name):
    """3 images of 4 patches; the first name does not include a patch size."""
    check = saevx.prototypes.random.check
    check([random_prototypes(tmp_path, 12, name)], Site())
    with pytest.raises(SpecError, match="more than the 12 patch tokens"):
        check([random_prototypes(tmp_path, 13, name)], Site())


def test_other_faults_do_not_hide_too_many_prototypes(tmp_path):
    specs = [random_prototypes(tmp_path, 1, "vit_smal"), random_prototypes(tmp_path, 13)]
    with pytest.raises(SpecError) as caught:
        saevx.prototypes.random.check(specs, Site())
    assert "no model 'vit_smal'" in str(caught.value)
    assert "more than the 12 patch tokens" in str(caught.value)


def test_an_unusable_device_is_refused(tmp_path, monkeypatch):
    scorer = random_prototypes(tmp_path, 1)
    spec = ImageScores(scorer=scorer, images=scorer.shards.images)
    saevx.traits.scores.check([spec], Site())
    monkeypatch.setenv("SAEVX_DEVICE", "abacus")
    with pytest.raises(SpecError, match="SAEVX_DEVICE=abacus"):
        saevx.traits.scores.check([spec], Site())


class Tagged(TraitSet):
    """A trait set as a user may declare it: with a field that cannot be hashed."""

    root: str
    tags: list[str]

    @property
    def images(self) -> ImageFolder:
        return ImageFolder(root=self.root)

    def label_fingerprint(self, site: Site) -> Fingerprint:
        return Fingerprint("0" * 32, 1)


@read_traits.register
def _read_tags(trait_set: Tagged, site: Site) -> Labels:
    files = trait_set.images.listing(site).files
    return Labels(files, tuple(trait_set.tags), np.ones((len(files), len(trait_set.tags)), bool))


def tables(tmp_path: Path, train: TraitSet, test: TraitSet, **fields) -> TraitAP:
    (tmp_path / "any").mkdir(exist_ok=True)
    scorer = random_prototypes(tmp_path / "any", 1)
    return TraitAP(scorer=scorer, train=train, test=test, **fields)


def tagged(folder: Path, n: int, *tags: str, **fields) -> Tagged:
    folder.mkdir(exist_ok=True)
    for i in range(n):
        (folder / f"{folder.name}{i}.png").write_bytes(folder.name.encode() + b"x" * i)
    return Tagged(root=str(folder), tags=list(tags), **fields)


def faults(*specs: TraitAP) -> str:
    with pytest.raises(SpecError) as caught:
        saevx.traits.trait_ap.check(specs, Site())
    return str(caught.value)


def test_trait_sets_that_cannot_be_hashed_are_checked(tmp_path):
    train, test = tagged(tmp_path / "a", 3, "red", "big"), tagged(tmp_path / "b", 2, "red", "big")
    saevx.traits.trait_ap.check([tables(tmp_path, train, test, n_train=3)], Site())
    assert "n_train=4" in faults(tables(tmp_path, train, test, n_train=4))


def test_traits_that_differ_are_refused_before_the_run(tmp_path):
    train, test = tagged(tmp_path / "a", 3, "red", "big"), tagged(tmp_path / "b", 2, "red", "tall")
    said = faults(tables(tmp_path, train, test), tables(tmp_path, train, test, n_train=2))
    assert said.count("different traits") == 1
    assert "only train has big; only test has tall" in said
    test = tagged(tmp_path / "b", 2, "big", "red")
    assert "their order differs" in faults(tables(tmp_path, train, test))
    chosen = test.model_copy(update={"traits": ("red", "big")})
    saevx.traits.trait_ap.check([tables(tmp_path, train, chosen)], Site())
    unknown = test.model_copy(update={"traits": ("rod",)})
    said = faults(tables(tmp_path, train, unknown))
    assert "did you mean red" in said
    assert "different traits" not in said


def test_traits_are_compared_without_reading_labels(tmp_path):
    tree = make_cub(tmp_path / "cub")
    train, test = (CUB200(split=split, root=str(tree.root)) for split in ("train", "test"))
    tree.file("image_attribute_labels.txt").write_text("these are no labels\n")
    names = trait_names(train, Site())
    saevx.traits.trait_ap.check([tables(tmp_path, train, test)], Site())
    fewer = test.model_copy(update={"traits": names[:-1]})
    assert f"only train has {names[-1]}" in faults(tables(tmp_path, train, fewer))


def test_train_and_test_of_the_same_images_are_refused(tmp_path):
    train = tagged(tmp_path / "a", 3, "red")
    test = train.model_copy(update={"root": str(shutil.copytree(train.root, tmp_path / "b"))})
    assert "the same images" in faults(tables(tmp_path, train, test))


def test_sets_are_compared_once_however_many_scorers_and_subsets_they_have(tmp_path, monkeypatch):
    train, test = tagged(tmp_path / "a", 3, "red"), tagged(tmp_path / "b", 3, "red")
    compared = []
    real = TraitAP.check_overlap
    monkeypatch.setattr(
        TraitAP, "check_overlap", lambda self, site: compared.append(1) or real(self, site)
    )
    (tmp_path / "any").mkdir()
    specs = [
        TraitAP(scorer=random_prototypes(tmp_path / "any", n), train=train, test=test, n_train=k)
        for n in (1, 2, 3)
        for k in (1, 2, None)
    ]
    saevx.traits.trait_ap.check(specs, Site())
    assert len(compared) == 1
