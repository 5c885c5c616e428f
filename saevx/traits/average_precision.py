"""Average precision of every prototype for every trait.

AP = sum over thresholds of (R_n - R_{n-1}) P_n, with equal scores as one threshold: the definition
of `sklearn.metrics.average_precision_score`. Only positives contribute, so it is computed as

    AP = 1/P * sum over groups of tied positives of  m * c / r

where P counts the positives of the trait, m those in the group and c those that score at least as
high, and r counts all images that score at least as high: the rank of the group. One sort of a
prototype's scores ranks the images for all traits; a trait then sorts the ranks of its positives.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_BLOCK = 32
"""Prototypes per block: enough to read whole cache lines, few enough to stay in cache."""

_GROUP = 4096
"""Positives per group, for the same reason."""


class _Positives(NamedTuple):
    """The positives of some traits, trait after trait. Every trait has at least one."""

    columns_t: NDArray[np.int64]
    """Column of each trait in the labels."""
    image_p: NDArray[np.int64]
    """Row of each positive in the labels."""
    nth_p: NDArray[np.float64]
    """1, 2, ... within each trait."""
    starts_t: NDArray[np.int64]
    """First place of each trait in `image_p`."""
    stops_t: NDArray[np.int64]
    """Place after the last of each trait in `image_p`."""


def average_precision(
    scores_ik: NDArray[np.floating], labels_it: NDArray[np.bool_], *, block: int = _BLOCK
) -> NDArray[np.float64]:
    """Return the AP of every prototype for every trait, as `average_precision_score` defines it.

    Tied scores share one threshold. So the bits of the result do not depend on the order of the
    images, on `block`, or on how prototypes and traits are split over calls. 0.0 and -0.0 tie.
    Infinite scores are ranked like others.

    Args:
        scores_ik: (n_images, n_prototypes) float32 or float16. May be a memory map: it is read
            once to find NaN, and then in blocks of columns.
        labels_it: (n_images, n_traits) bool.
        block: prototypes per block. Needs about 50 bytes of memory for each of the
            block * n_images scores, besides the result and the list of positives.

    Returns:
        ap_kt: (n_prototypes, n_traits) float64 in (0, 1]; NaN for traits without positives.

    Raises:
        TypeError: scores are not float32 or float16, or labels are not bool.
        ValueError: the shapes do not match, a score is NaN, or `block` is below 1.
    """
    _check(scores_ik, labels_it, block)
    n_prototypes = scores_ik.shape[1]
    ap_kt = np.full((n_prototypes, labels_it.shape[1]), np.nan)
    groups = list(_groups_of_traits(labels_it))
    for start in range(0, n_prototypes if groups else 0, block):
        ranks_ki = _ranks(scores_ik[:, start : start + block])
        for positives in groups:
            ap_kt[start : start + block, positives.columns_t] = _ap_of_ranks(ranks_ki, positives)
    return ap_kt


def paired_average_precision(
    scores_it: NDArray[np.floating], labels_it: NDArray[np.bool_], *, block: int = _BLOCK
) -> NDArray[np.float64]:
    """Return the AP of column t of the scores for column t of the labels.

    This is the diagonal of `average_precision(scores_it, labels_it)`, to the bit.

    Args:
        scores_it: (n_images, n_traits) float32 or float16: the scores of the prototype picked for
            each trait.
        labels_it: (n_images, n_traits) bool.
        block: traits per block.

    Returns:
        ap_t: (n_traits,) float64 in (0, 1]; NaN for traits without positives.

    Raises:
        TypeError: as for `average_precision`.
        ValueError: as for `average_precision`, and when the two shapes differ.
    """
    _check(scores_it, labels_it, block)
    if scores_it.shape != labels_it.shape:
        raise ValueError(
            f"scores have shape {scores_it.shape} and labels {labels_it.shape}; paired average "
            "precision needs one column of scores for each trait: for all pairs of prototypes and "
            "traits, call average_precision"
        )
    ap_t = np.full(labels_it.shape[1], np.nan)
    for start in range(0, ap_t.size, block):
        ranks_ti = _ranks(scores_it[:, start : start + block])
        for trait, ranks_i in enumerate(ranks_ti, start):
            for positives in _groups_of_traits(labels_it[:, trait, None]):
                ap_t[trait] = _ap_of_ranks(ranks_i[None], positives)[0, 0]
    return ap_t


def _ranks(scores_ik: NDArray[np.floating]) -> NDArray[np.int32]:
    """Count the images that score at least as high: (n_prototypes, n_images); the worst has n."""
    n_images, n_prototypes = scores_ik.shape
    # Sorting (score, place) pairs as single integers takes half the time of an argsort.
    keys_ki = np.ascontiguousarray(_descending_keys(scores_ik).T).astype(np.int64)
    keys_ki <<= 32
    keys_ki |= np.arange(keys_ki.size).reshape(keys_ki.shape)
    keys_ki.sort(axis=1)

    scores_ki = keys_ki >> 32
    tied_ki = np.zeros(keys_ki.shape, np.bool_)
    np.equal(scores_ki[:, 1:], scores_ki[:, :-1], out=tied_ki[:, :-1])
    last, n_before = _tied_groups(tied_ki)
    sorted_ranks = np.tile(np.arange(1, n_images + 1, dtype=np.int32), n_prototypes)
    sorted_ranks[tied_ki.reshape(-1)] = np.repeat(sorted_ranks[last], n_before)

    places_ki = keys_ki & ((1 << 32) - 1)
    ranks = np.empty(keys_ki.size, np.int32)
    ranks[places_ki.reshape(-1)] = sorted_ranks
    return ranks.reshape(keys_ki.shape)


def _descending_keys(scores: NDArray[np.floating]) -> NDArray[np.int32]:
    """Return integers that sort like the scores, highest first, and are equal for equal scores."""
    # Adding 0.0 turns -0.0 into 0.0. Rows first: the caller transposes this small copy, since
    # reading the columns of a wide table misses the cache at every step.
    plain: NDArray[np.float32] = np.add(scores, np.float32(0), dtype=np.float32, order="C")
    bits = plain.view(np.int32)
    # The bits of floats sort as integers, but those of negative floats sort backwards.
    keys = bits >> 31
    keys &= np.int32(0x7FFFFFFF)
    keys ^= bits
    np.invert(keys, out=keys)
    return keys


def _ap_of_ranks(ranks_ki: NDArray[np.int32], positives: _Positives) -> NDArray[np.float64]:
    """Compute the AP, (n_prototypes, n_traits), from the ranks of all images."""
    ranks_kp = ranks_ki.take(positives.image_p, axis=1)
    for start, stop in zip(positives.starts_t, positives.stops_t, strict=True):
        ranks_kp[:, start:stop].sort(axis=1)

    tied_kp = np.zeros(ranks_kp.shape, np.bool_)
    np.equal(ranks_kp[:, 1:], ranks_kp[:, :-1], out=tied_kp[:, :-1])
    tied_kp[:, positives.stops_t - 1] = False
    last, n_before = _tied_groups(tied_kp)
    # The last of a tied group has the precision of the group, and represents all of it.
    terms_kp = positives.nth_p / ranks_kp
    terms_kp[tied_kp] = 0.0
    terms_kp.reshape(-1)[last] *= n_before + 1
    # Terms are in order of rank, so rounding does not depend on the order of the images.
    sums_kt: NDArray[np.float64] = np.add.reduceat(terms_kp, positives.starts_t, axis=1)
    return sums_kt / (positives.stops_t - positives.starts_t)


def _tied_groups(
    tied_with_next: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the flat place of the last member of each tied group, and the number before it."""
    edges = np.flatnonzero(np.diff(tied_with_next.reshape(-1), prepend=False))
    return edges[1::2], edges[1::2] - edges[::2]


def _groups_of_traits(labels_it: NDArray[np.bool_]) -> Iterator[_Positives]:
    """Yield the traits with positives, in groups of up to `_GROUP` positives or a single trait."""
    n_positives_t = np.count_nonzero(labels_it, axis=0)
    left_t = np.flatnonzero(n_positives_t)
    while left_t.size:
        stops_t = np.cumsum(n_positives_t[left_t])
        n_traits = max(1, int(np.searchsorted(stops_t, _GROUP, side="right")))
        columns_t, left_t = left_t[:n_traits], left_t[n_traits:]
        stops_t = stops_t[:n_traits]
        starts_t = stops_t - n_positives_t[columns_t]
        image_p = np.nonzero(labels_it[:, columns_t].T)[1]
        nth_p = np.arange(1.0, image_p.size + 1) - np.repeat(starts_t, stops_t - starts_t)
        yield _Positives(columns_t, image_p, nth_p, starts_t, stops_t)


def _check(scores: NDArray[np.floating], labels: NDArray[np.bool_], block: int) -> None:
    """Raise TypeError or ValueError for input without an average precision."""
    if scores.dtype not in (np.float32, np.float16):
        raise TypeError(
            f"scores are {scores.dtype}; average precision needs float32 or float16: convert them "
            "where they are computed, since rounding can tie scores that differ"
        )
    if labels.dtype != np.bool_:
        raise TypeError(
            f"labels are {labels.dtype}; average precision needs bool: pass the positives, as in "
            "`labels == 1`"
        )
    if scores.ndim != 2 or labels.ndim != 2 or len(scores) != len(labels):
        raise ValueError(
            f"scores have shape {scores.shape} and labels {labels.shape}; average precision needs "
            "(n_images, n_prototypes) and (n_images, n_traits), with the images in one order"
        )
    if block < 1:
        raise ValueError(f"block is {block}; it must be at least 1")
    _refuse_nan(scores)


def _refuse_nan(scores: NDArray[np.floating]) -> None:
    n_nan_by_column = np.zeros(scores.shape[1], np.int64)
    first: tuple[int, int] | None = None
    n_rows = 64
    for start in range(0, len(scores), n_rows):
        nan = np.isnan(scores[start : start + n_rows])
        if nan.any():
            n_nan_by_column += np.count_nonzero(nan, axis=0)
            row, column = divmod(int(nan.argmax()), scores.shape[1])
            first = first or (start + row, column)
    if first is not None:
        raise ValueError(
            f"{n_nan_by_column.sum()} of {scores.size} scores are NaN, in "
            f"{np.count_nonzero(n_nan_by_column)} of {scores.shape[1]} columns; the first is in "
            f"row {first[0]}, column {first[1]}. NaN has no rank: fix the scorer, or leave these "
            "columns out"
        )
