"""Which layer encodes CUB's traits? Random vectors from the last twelve blocks of a DINOv2 ViT-L.

Needs CUB-200-2011 on disk, and weights from the hub or its cache. Set the path in saevx.toml:

    [data]
    cub200 = "/data/CUB_200_2011"
"""

from saevx import CUB200, CenterCrop, RandomPrototypes, Shards, TraitAP, ViT

train, test = CUB200(split="train"), CUB200(split="test")
vit = ViT(name="vit_large_patch14_reg4_dinov2.lvd142m", resize=CenterCrop(size=224))

targets = [
    TraitAP(
        scorer=RandomPrototypes(
            shards=Shards(images=train.images, vit=vit, layer=layer), n=n, seed=seed
        ),
        train=train,
        test=test,
        n_train=n_train,
    )
    for layer in range(12, 24)
    for n in (128, 512, 2048, 8192, 32768)
    for n_train in (16, 64, 256, 1024, 4096, None)
    for seed in (17, 42, 137)
]


def report(table):
    """Return mAP by layer, prototypes and train images, averaged over seeds, with two charts."""
    import altair as alt  # imported here to keep `saevx plan` fast
    import polars as pl

    scored = table.filter(pl.col("left_out").is_null())
    # Small train sets have positives of few traits: curves over n_train use the common traits.
    n_sizes = scored["n_train_images"].n_unique()
    common = pl.col("n_train_images").n_unique().over("trait") == n_sizes
    groups = ["layer", "n", "n_train_images"]
    per_seed = (
        scored.with_columns(common.alias("common"))
        .group_by(*groups, "seed")
        .agg(
            pl.col("ap").mean().alias("mAP"),
            pl.col("constant_ap").mean().alias("constant-score AP"),
            pl.len().alias("traits"),
            pl.col("ap").filter("common").mean().alias("mAP of common traits"),
            pl.col("common").sum().alias("common traits"),
        )
    )
    mean_ap = (
        per_seed.group_by(groups)
        .agg(
            pl.col("mAP").mean(),
            pl.col("mAP").std().alias("std over seeds"),
            pl.col("constant-score AP").mean(),
            pl.col("traits").min(),
            pl.col("mAP of common traits").mean(),
            pl.col("common traits").min(),
        )
        .sort(groups)
        .rename({"n": "prototypes", "n_train_images": "train images"})
    )
    full = mean_ap.filter(pl.col("train images") == pl.col("train images").max())
    by_layer = (
        alt.Chart(full)
        .mark_line(point=True)
        .encode(x="layer:O", y=alt.Y("mAP:Q").title("mean test AP"), color="prototypes:O")
        .properties(title="Traits of CUB-200 found by single random prototypes", width=400)
    )
    by_n_train = (
        alt.Chart(mean_ap)
        .mark_line(point=True)
        .encode(
            x=alt.X("train images:Q").scale(type="log"),
            y="mAP of common traits:Q",
            color="prototypes:O",
        )
        .properties(width=160, height=120)
        .facet("layer:O", columns=4)
    )
    return {"mean_ap": mean_ap, "by_layer": by_layer, "by_n_train": by_n_train}
