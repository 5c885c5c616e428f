from __future__ import annotations

import subprocess
import sys
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score

from saevx.traits.average_precision import average_precision, paired_average_precision

TIED = st.sampled_from([-2.0, -0.5, -0.0, 0.0, 1e-45, 0.5, 0.5000001, 3e38])
ANY_FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def tables(draw):
    """Scores (n_images, n_prototypes), mostly tied, and labels (n_images, n_traits)."""
    n_images = draw(st.integers(1, 40))
    n_prototypes, n_traits = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    scores = draw(hnp.arrays(np.float32, (n_images, n_prototypes), elements=TIED | ANY_FINITE))
    return scores, draw(hnp.arrays(np.bool_, (n_images, n_traits)))


def large_table(seed: int = 0, zeros: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Enough prototypes for several blocks, and enough positives for several groups of traits."""
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((700, 75), dtype=np.float32).round(2)
    scores[rng.random(scores.shape) < zeros] = 0.0
    labels = rng.random((700, 40)) < np.linspace(0.0, 1.0, 40)
    return scores, labels


def exact_ap(scores: np.ndarray, labels: np.ndarray) -> float:
    """The definition in exact fractions: recall gained at each threshold, times the precision."""
    n_positives = int(labels.sum())
    if n_positives == 0:
        return float("nan")
    ap, recall = Fraction(0), Fraction(0)
    for threshold in sorted({float(score) for score in scores}, reverse=True):
        chosen = [bool(label) for s, label in zip(scores, labels, strict=True) if s >= threshold]
        next_recall = Fraction(sum(chosen), n_positives)
        ap += (next_recall - recall) * Fraction(sum(chosen), len(chosen))
        recall = next_recall
    return float(ap)


def loop(ap, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.array([[ap(s, label) for label in labels.T] for s in scores.T])


@given(tables())
def test_equals_the_definition(table):
    scores, labels = table
    expected = loop(exact_ap, scores, labels)
    np.testing.assert_allclose(average_precision(scores, labels), expected, rtol=1e-14)


@given(tables())
@settings(max_examples=50)
def test_equals_scikit_learn(table):
    scores, labels = table
    labels[0] = True
    expected = loop(lambda s, label: average_precision_score(label, s), scores, labels)
    np.testing.assert_allclose(average_precision(scores, labels), expected, rtol=1e-12)


@pytest.mark.parametrize("zeros", [0.0, 0.9])
def test_equals_scikit_learn_on_a_larger_table(zeros):
    scores, labels = large_table(zeros=zeros)
    ap = average_precision(scores, labels)
    for prototype in range(0, 75, 8):
        for trait in range(1, 40, 3):
            expected = average_precision_score(labels[:, trait], scores[:, prototype])
            assert ap[prototype, trait] == pytest.approx(expected, rel=1e-12)


@given(tables(), st.sampled_from([0.0, -0.0, -7.5, np.inf, -np.inf]))
def test_constant_scores_give_the_prevalence(table, constant):
    scores, labels = table
    labels[0] = True
    ap = average_precision(np.full_like(scores, constant), labels)
    np.testing.assert_allclose(ap, np.tile(labels.mean(axis=0), (len(ap), 1)), rtol=1e-15)


@given(st.integers(1, 50), st.data())
def test_a_single_positive_has_one_over_its_rank(n_images, data):
    place = data.draw(st.integers(0, n_images - 1))
    scores = -np.arange(n_images, dtype=np.float32)[:, None]
    labels = (np.arange(n_images) == place)[:, None]
    assert average_precision(scores, labels)[0, 0] == 1 / (place + 1)


@given(tables())
def test_all_positive_is_exactly_one(table):
    scores, labels = table
    assert (average_precision(scores, np.ones_like(labels)) == 1.0).all()


@given(tables())
def test_nan_exactly_where_a_trait_has_no_positives(table):
    scores, labels = table
    labels[:, 0] = False
    ap = average_precision(scores, labels)
    assert np.isnan(ap[:, ~labels.any(axis=0)]).all()
    assert (ap[:, labels.any(axis=0)] > 0).all()
    assert (ap[:, labels.any(axis=0)] <= 1).all()


def test_labels_as_scores_are_perfect_and_their_opposite_is_the_worst():
    _, labels = large_table()
    labels = labels[:, labels.any(axis=0)]
    best = paired_average_precision(labels.astype(np.float32), labels)
    worst = paired_average_precision(-labels.astype(np.float32), labels)
    np.testing.assert_array_equal(best, 1.0)
    np.testing.assert_allclose(worst, labels.mean(axis=0), rtol=1e-15)


@given(tables(), st.randoms(use_true_random=False))
def test_order_of_images_changes_no_bit(table, random):
    scores, labels = table
    order = list(range(len(scores)))
    random.shuffle(order)
    np.testing.assert_array_equal(
        average_precision(scores[order], labels[order]), average_precision(scores, labels)
    )


def test_order_of_images_changes_no_bit_of_long_sums():
    scores, labels = large_table()
    order = np.random.default_rng(1).permutation(len(scores))
    np.testing.assert_array_equal(
        average_precision(scores[order], labels[order]), average_precision(scores, labels)
    )


@given(tables(), st.data())
def test_only_the_order_of_scores_matters(table, data):
    scores, labels = table
    values, ranks = np.unique(scores, return_inverse=True)
    floats = st.floats(width=32, allow_nan=False)
    targets = st.lists(floats, min_size=values.size, max_size=values.size, unique=True)
    increasing = np.array(sorted(data.draw(targets)), np.float32)
    np.testing.assert_array_equal(
        average_precision(increasing[ranks].reshape(scores.shape), labels),
        average_precision(scores, labels),
    )


@given(tables(), st.integers(1, 6))
def test_size_of_blocks_changes_no_bit(table, block):
    np.testing.assert_array_equal(average_precision(*table, block=block), average_precision(*table))


@pytest.mark.parametrize("block", [1, 7, 32, 75, 1000])
def test_size_of_blocks_and_groups_changes_no_bit_of_long_sums(block):
    scores, labels = large_table()
    ap = average_precision(scores, labels)
    np.testing.assert_array_equal(average_precision(scores, labels, block=block), ap)
    for trait in range(40):
        one = average_precision(scores, labels[:, [trait]], block=block)
        np.testing.assert_array_equal(one[:, 0], ap[:, trait])
    np.testing.assert_array_equal(average_precision(scores[:, 9:20], labels), ap[9:20])


@pytest.mark.parametrize("block", [1, 7, 32, 1000])
def test_paired_is_the_diagonal_to_the_bit(block):
    scores, labels = large_table()
    paired = paired_average_precision(scores[:, :40], labels, block=block)
    np.testing.assert_array_equal(paired, average_precision(scores, labels)[:40].diagonal())
    assert np.isnan(paired[0])
    assert not np.isnan(paired[1:]).any()


def test_zero_and_minus_zero_tie():
    labels = np.array([[True], [False]])
    for scores in ([[0.0], [-0.0]], [[-0.0], [0.0]]):
        assert average_precision(np.array(scores, np.float32), labels)[0, 0] == 0.5


def test_infinite_scores_are_ranked():
    scores = np.array([[-np.inf], [np.inf], [3e38], [np.inf]], np.float32)
    labels = np.array([[False, True], [True, False], [False, False], [False, False]])
    np.testing.assert_array_equal(average_precision(scores, labels), [[1 / 2, 1 / 4]])


def test_float16_scores_count_as_their_float32_values():
    scores, labels = large_table()
    half = scores.astype(np.float16)
    np.testing.assert_array_equal(
        average_precision(half, labels), average_precision(half.astype(np.float32), labels)
    )


def test_layout_of_inputs_does_not_matter_and_inputs_stay_as_they_are(tmp_path):
    scores, labels = large_table()
    ap = average_precision(scores, labels)
    scores.tofile(tmp_path / "scores")
    mapped = np.memmap(tmp_path / "scores", np.float32, "r", shape=scores.shape)
    np.testing.assert_array_equal(average_precision(mapped, np.asfortranarray(labels)), ap)
    np.testing.assert_array_equal(average_precision(np.asfortranarray(scores), labels), ap)
    np.testing.assert_array_equal(average_precision(scores[::-1, ::-1], labels[::-1]), ap[::-1])
    np.testing.assert_array_equal(scores, mapped)
    np.testing.assert_array_equal(labels, large_table()[1])


@pytest.mark.parametrize("shape", [(0, 3, 2), (4, 0, 2), (4, 3, 0)])
def test_empty_tables(shape):
    n_images, n_prototypes, n_traits = shape
    scores = np.zeros((n_images, n_prototypes), np.float32)
    labels = np.ones((n_images, n_traits), np.bool_)
    ap = average_precision(scores, labels)
    assert ap.shape == (n_prototypes, n_traits)
    assert np.isnan(ap).all()


def test_memory_does_not_grow_with_the_prototypes():
    rng = np.random.default_rng(0)
    labels = rng.random((1000, 2)) < 0.1

    def peak_bytes(n_prototypes: int) -> int:
        scores = rng.standard_normal((1000, n_prototypes), dtype=np.float32)
        tracemalloc.start()
        ap = average_precision(scores, labels, block=16)
        peak = tracemalloc.get_traced_memory()[1] - ap.nbytes
        tracemalloc.stop()
        return peak

    assert peak_bytes(16) < 60 * 16 * 1000
    assert peak_bytes(2048) < 60 * 16 * 1000


@pytest.mark.parametrize("function", [average_precision, paired_average_precision])
def test_nan_scores_are_refused_with_their_number_and_place(function):
    scores = np.zeros((200, 4), np.float32)
    scores[150, 3] = scores[150, 1] = scores[199, 1] = np.nan
    labels = np.ones((200, 4), np.bool_)
    with pytest.raises(ValueError, match=r"3 of 800 .* 2 of 4 columns; .* row 150, column 1\."):
        function(scores, labels)


@pytest.mark.parametrize("function", [average_precision, paired_average_precision])
@pytest.mark.parametrize(
    ("scores", "labels", "error", "message"),
    [
        (np.zeros((3, 2)), np.ones((3, 2), bool), TypeError, "scores are float64"),
        (np.zeros((3, 2), int), np.ones((3, 2), bool), TypeError, "scores are int64"),
        (np.zeros((3, 2), "f4"), np.ones((3, 2), int), TypeError, "labels are int64"),
        (np.zeros((3, 2), "f4"), np.ones((4, 2), bool), ValueError, r"\(3, 2\) .* \(4, 2\)"),
        (np.zeros(3, "f4"), np.ones((3, 2), bool), ValueError, r"\(3,\) .* \(3, 2\)"),
        (np.zeros((3, 2), "f4"), np.ones(3, bool), ValueError, r"\(3, 2\) .* \(3,\)"),
    ],
)
def test_bad_tables_are_refused(function, scores, labels, error, message):
    with pytest.raises(error, match=message):
        function(scores, labels)


def test_paired_needs_one_column_of_scores_for_each_trait():
    with pytest.raises(ValueError, match="one column of scores for each trait"):
        paired_average_precision(np.zeros((3, 2), np.float32), np.ones((3, 5), np.bool_))


def test_empty_blocks_are_refused():
    with pytest.raises(ValueError, match="block is 0"):
        average_precision(np.zeros((3, 2), np.float32), np.ones((3, 2), np.bool_), block=0)


def test_import_needs_neither_torch_nor_scikit_learn():
    code = (
        "import sys, saevx.traits.average_precision;"
        "print(sorted({'torch', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
