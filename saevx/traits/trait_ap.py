"""The recipe of TraitAP: pick each trait's best prototype on train, and test it on test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saevx.datasets.labels import Labels, check_traits, read_labels, trait_names
from saevx.errors import DatasetError
from saevx.resolve.batch import Batch
from saevx.resolve.recipe import recipe
from saevx.traits.average_precision import average_precision, paired_average_precision
from saevx.traits.train_subsets import nested_order
from spec import Keys, Site, SpecError, TraitAP, TraitSet

if TYPE_CHECKING:
    import polars as pl

    from store import StoredArtifact

SUSPICIOUS_PREVALENCE = 0.5
"""Mean constant-score AP above which labels were probably read wrong."""

SHOWN = 5
"""Most traits listed that only one set has."""


def check(specs: Sequence[TraitAP], site: Site) -> None:
    """Refuse train subsets larger than the train set, train and test sets that share images or have
    different traits, scorers that used labels of test images, and traits without labels.
    """
    keys = Keys(site)
    # Each pair of sets is compared once, however many scorers and train subsets it has.
    sides = {(keys.text((spec.train, spec.test)), spec.allow_overlap): spec for spec in specs}
    faults = []
    for spec in {(keys.of(s.scorer), keys.text(s.test)): s for s in specs}.values():
        try:
            spec.check_labels_unseen(site)
        except SpecError as error:
            faults.append(str(error))
    traits: dict[str, tuple[str, ...] | None] = {}
    for spec in sides.values():
        try:
            spec.check_overlap(site)
        except SpecError as error:
            faults.append(str(error))
        for side in (spec.train, spec.test):
            if (name := keys.text(side)) not in traits:
                try:
                    traits[name] = _chosen_traits(side, site)
                except SpecError as error:
                    traits[name] = None
                    faults.append(str(error))
        train, test = traits[keys.text(spec.train)], traits[keys.text(spec.test)]
        if train is not None and test is not None and train != test:
            faults.append(f"{spec.train!r} and {spec.test!r}: {_trait_difference(train, test)}")
    for spec in specs:
        n_images = spec.train.images.n_images(site)
        if spec.n_train is not None and spec.n_train > n_images:
            faults.append(
                f"TraitAP(n_train={spec.n_train}) is more than the {n_images} images of its train "
                f"set: use at most {n_images}, or None for all"
            )
    if faults:
        raise SpecError("\n".join(dict.fromkeys(faults)))


def _chosen_traits(trait_set: TraitSet, site: Site) -> tuple[str, ...]:
    """Return the traits of a set, in order. Raises SpecError when it names unknown traits."""
    check_traits(trait_set, site)
    return trait_names(trait_set, site) if trait_set.traits is None else trait_set.traits


def _trait_difference(train: Sequence[str], test: Sequence[str]) -> str:
    """Say how the traits of two sets differ, and what to do."""
    only = [
        f"only {side} has {', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}"
        for side, names in (
            ("train", [name for name in train if name not in set(test)]),
            ("test", [name for name in test if name not in set(train)]),
        )
        if names
    ]
    return (
        f"train and test have different traits: {'; '.join(only) or 'their order differs'}; "
        "use the same settings, or pass the same traits=(...) to both"
    )


@recipe(
    TraitAP,
    batch_by=lambda spec: (spec.scorer, spec.train, spec.test),
    preflight=check,
    load=lambda artifact: artifact.table("traits"),
)
def trait_ap(batch: Batch[TraitAP]) -> None:
    """Read one pair of score arrays for every n_train of the batch."""
    import polars as pl

    first = batch.specs[0]
    train = read_labels(first.train, batch.site)
    test = read_labels(first.test, batch.site)
    if train.traits != test.traits:
        raise DatasetError(_trait_difference(train.traits, test.traits))
    train_scores = _scores(batch.input(first.train_scores), train)
    test_scores = _scores(batch.input(first.test_scores), test)
    order = nested_order(train.images)
    n_test_fitted = pl.lit(first.n_test_fitted(batch.site), pl.Int64).alias("n_test_fitted")
    for done, spec in enumerate(batch.specs, start=1):
        chosen = np.sort(order[: spec.n_train])
        frame = pick_and_test(
            train_scores[chosen], train.y[chosen], test_scores, test.y, train.traits
        ).with_columns(n_test_fitted)
        batch.draft(spec).table("traits", frame)
        batch.publish(spec, summary(frame))
        batch.progress(done, len(batch.specs), "tables")


def pick_and_test(
    train_scores_ik: NDArray[np.float32],
    train_it: NDArray[np.bool_],
    test_scores_ik: NDArray[np.float32],
    test_it: NDArray[np.bool_],
    traits: Sequence[str],
) -> pl.DataFrame:
    """Return one row per trait: the prototype with the highest train AP, first of equals, its APs.

    A trait without positives in train or test is left out: its row says why, and has no AP.
    """
    import polars as pl

    n_pos_train, n_pos_test = train_it.sum(axis=0), test_it.sum(axis=0)
    both = np.flatnonzero((n_pos_train > 0) & (n_pos_test > 0))
    train_ap_kt = average_precision(train_scores_ik, train_it[:, both])
    best = train_ap_kt.argmax(axis=0) if len(both) else np.zeros(0, np.int64)
    row_of = {trait: row for row, trait in enumerate(both.tolist())}
    train_ap = train_ap_kt[best, np.arange(len(both))]
    test_ap = paired_average_precision(test_scores_ik[:, best], test_it[:, both])

    def per_trait(values: NDArray[Any]) -> list[Any]:
        listed = values.tolist()
        return [listed[row_of[t]] if t in row_of else None for t in range(len(traits))]

    left_out = [
        None if t in row_of else "no positives in " + ("train" if n_pos_train[t] == 0 else "test")
        for t in range(len(traits))
    ]
    n_traits = len(traits)
    return pl.DataFrame(
        {
            "trait": list(traits),
            "prototype": per_trait(best),
            "ap": per_trait(test_ap),
            "train_ap": per_trait(train_ap),
            "constant_ap": test_it.mean(axis=0).astype(np.float64),
            "n_pos_train": n_pos_train.astype(np.int64),
            "n_pos_test": n_pos_test.astype(np.int64),
            "n_train_images": np.full(n_traits, len(train_it), np.int64),
            "n_test_images": np.full(n_traits, len(test_it), np.int64),
            "left_out": left_out,
        },
        schema_overrides={
            "prototype": pl.Int64,
            "ap": pl.Float64,
            "train_ap": pl.Float64,
            "left_out": pl.String,
        },
    )


def summary(frame: pl.DataFrame) -> dict[str, Any]:
    """Return the facts shown without opening the table, with a warning if it looks wrong."""
    import polars as pl

    scored = frame.filter(pl.col("left_out").is_null())
    facts: dict[str, Any] = {
        "n_traits": frame.height,
        "n_scored": scored.height,
        "left_out": frame.filter(pl.col("left_out").is_not_null())["trait"].to_list(),
    }
    if scored.height:
        constant = float(scored["constant_ap"].to_numpy().mean())
        facts |= {"mean_ap": float(scored["ap"].to_numpy().mean()), "mean_constant_ap": constant}
        if constant > SUSPICIOUS_PREVALENCE:
            facts["warnings"] = [
                f"constant scores alone give a mean AP of {constant:.3f}: more than half of all "
                "labels are positive, which usually means that labels were read wrong"
            ]
    return facts


def _scores(artifact: StoredArtifact, labels: Labels) -> NDArray[np.float32]:
    """Return the image scores (n_images, K), checked to be in the order of the labels."""
    if tuple(artifact.table("images")["file"]) != labels.images:
        raise DatasetError(
            f"the images of {artifact.path} are not those of the labels: the dataset changed "
            "during the run; run again"
        )
    scores: NDArray[np.float32] = artifact.array("scores").read()
    return scores
