"""The recipe of Shards: one forward pass over the images for all layers of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from spec import Keys, Shards, Site, SpecError, ViT

from ..device import device
from ..resolve.batch import Batch
from ..resolve.recipe import recipe

if TYPE_CHECKING:
    import store


def check(specs: Sequence[Shards], site: Site) -> None:
    """Refuse ViTs that timm does not know, layers that they lack, image sets without images, and a
    device that cannot be used.
    """
    from .model import check_layers

    keys = Keys(site)
    layers: dict[str, tuple[ViT, set[int]]] = {}
    for spec in specs:
        layers.setdefault(keys.text(spec.vit), (spec.vit, set()))[1].add(spec.layer)
    faults = [f"{spec.images!r} has no images" for spec in specs if not spec.images.n_images(site)]
    checks: list[Callable[[], object]] = [device]
    checks += [partial(check_layers, vit, wanted) for vit, wanted in layers.values()]
    for look in checks:
        try:
            look()
        except SpecError as error:
            faults.append(str(error))
    if faults:
        raise SpecError("\n".join(dict.fromkeys(faults)))


def read_tokens(artifact: store.Artifact) -> Any:
    """The `Tokens` of stored shards."""
    from .tokens import Tokens

    return Tokens(artifact)


@recipe(
    Shards,
    batch_by=lambda spec: (spec.images, spec.vit, spec.dtype, spec.batch_size),
    preflight=check,
    load=read_tokens,
)
def record_shards(batch: Batch[Shards]) -> None:
    """Record every layer of the batch. A layer that overflows fails alone."""
    from ..datasets.images import open_images
    from .model import load_vit
    from .recorder import LayerWriter, record

    first = batch.specs[0]
    source = open_images(first.images, batch.site)
    vit = load_vit(first.vit, site=batch.site)
    spec_of = {spec.layer: spec for spec in batch.specs}
    writers = {
        layer: LayerWriter(
            batch.draft(spec),
            layer,
            vit.facts,
            source.files,
            dtype=spec.dtype,
            batch_size=spec.batch_size,
        )
        for layer, spec in spec_of.items()
    }
    failed = record(
        source,
        vit,
        first.vit.resize,
        writers,
        batch_size=first.batch_size,
        progress=lambda done: batch.progress(done, len(source), "images"),
        on_check=lambda done: batch.progress(done, len(source), "images checked"),
    )
    for layer, spec in spec_of.items():
        if layer in failed:
            writers[layer].abandon()
            batch.fail(spec, failed[layer])
        else:
            facts = writers[layer].finish() | {"weights_revision": vit.revision}
            batch.publish(spec, attributes=facts)
