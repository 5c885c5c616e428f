"""The quickstart: what it plans, and what its report makes of a table. The whole is a benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from saevx.cli import main
from saevx.experiments.load import load_experiment

FILE = Path(__file__).parents[2] / "experiments" / "quickstart.py"


def test_it_records_two_layers_of_two_vits_and_shares_what_can_be_shared(tmp_path: Path):
    words = ["plan", str(FILE), "--json", "--store", str(tmp_path)]
    planned = CliRunner().invoke(main, words, catch_exceptions=False)
    (stage,) = json.loads(planned.stdout)["stages"]
    types = [node["type"] for node in stage["nodes"]]
    assert {name: types.count(name) for name in sorted(set(types))} == {
        "ImageScores": 24,
        "RandomPrototypes": 12,
        "Shards": 8,
        "TraitAP": 48,
    }


@pytest.fixture
def table() -> pl.DataFrame:
    """Two traits, of which the second has no positives among the first 64 images."""
    rows = [
        {
            "vit.weights": weights,
            "layer": layer,
            "n": n,
            "n_train_images": n_train,
            "trait": trait,
            "ap": None if trait == "hat" and n_train == 64 else ap,
            "constant_ap": 0.1,
            "left_out": "no positives in train" if trait == "hat" and n_train == 64 else None,
        }
        for weights in ("ImgFocus", "RandomInit")
        for layer in (5, 9)
        for n in (128, 512)
        for n_train in (64, 989)
        for trait, ap in (("face", 0.2), ("hat", 0.8))
    ]
    return pl.DataFrame(rows)


def test_its_report_compares_the_same_traits_along_a_curve(table: pl.DataFrame):
    experiment = load_experiment(FILE)
    assert experiment.report is not None
    report = experiment.report(table)
    frame = report["mean_ap"]
    assert frame.height == 16
    few = frame.filter(pl.col("train images") == 64)
    many = frame.filter(pl.col("train images") == 989)
    assert few["mAP"].to_list() == pytest.approx([0.2] * 8)
    assert many["mAP"].to_list() == pytest.approx([0.5] * 8)
    assert few["traits"].to_list() == [1] * 8
    assert many["mAP of common traits"].to_list() == pytest.approx([0.2] * 8)
    assert set(frame["common traits"]) == {1}
    assert "vega-lite" in report["mean_ap_chart"].to_json()
