"""The recipe of Shards: one forward pass over the images for all layers of a batch.

A recording is made in parts, its shard files: a killed one goes on at the next file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from spec import Keys, Shards, Site, SpecError, ViT

from ..device import device
from ..errors import SaevxError
from ..resolve.batch import Batch
from ..resolve.parts import Parts, Todo
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


def count_files(spec: Shards, site: Site) -> int:
    """Parts of a recording: its shard files."""
    return -(-spec.images.n_images(site) // _rows_per_shard(spec, spec.images.n_images(site)))


def _rows_per_shard(spec: Shards, n_images: int) -> int:
    from .layer_part import rows_per_shard
    from .model import inspect_vit

    return rows_per_shard(n_images, inspect_vit(spec.vit), spec.dtype, spec.batch_size)


def record_files(batch: Batch[Shards], todo: Todo[Shards]) -> None:
    """Record shard files, each of them for every layer that lacks it in one forward pass."""
    from ..datasets.images import open_images
    from .layer_part import LayerPart
    from .model import load_vit
    from .recorder import record

    first = batch.specs[0]
    source = open_images(first.images, batch.site)
    vit = load_vit(first.vit, site=batch.site)
    rows = _rows_per_shard(first, len(source))
    ranges = {
        index: range(len(source))[index * rows : (index + 1) * rows] for index in todo.indices
    }
    n_done, n_images = 0, sum(map(len, ranges.values()))

    def show(before: int, done: int) -> None:
        batch.progress(before + done, n_images, "images")

    for part in todo:
        images = ranges[part.index]
        names = source.files[images.start : images.stop]
        spec_of = {spec.layer: spec for spec in part.specs}
        sinks = {
            layer: LayerPart(
                part.draft(spec), layer, vit.facts, names, dtype=spec.dtype, rows_per_shard=rows
            )
            for layer, spec in spec_of.items()
        }
        failed = record(
            source,
            vit,
            first.vit.resize,
            sinks,
            batch_size=first.batch_size,
            start=images.start,
            stop=images.stop,
            progress=partial(show, n_done),
            on_check=lambda done: batch.progress(done, len(source), "images checked"),
        )
        for layer, spec in spec_of.items():
            if layer in failed:
                sinks[layer].abandon()
                batch.fail(spec, failed[layer])
            else:
                facts = sinks[layer].finish({"weights_revision": vit.revision})
                part.publish(spec, attributes=facts)
        n_done += len(images)


@recipe(
    Shards,
    batch_by=lambda spec: (spec.images, spec.vit, spec.dtype, spec.batch_size),
    preflight=check,
    load=read_tokens,
    parts=Parts(count_files, record_files),
)
def record_shards(batch: Batch[Shards]) -> None:
    """Join the files of every layer of the batch.

    A layer that overflowed has failed alone, and so does one whose files do not fit together: it
    must not keep the others from being joined, now and at each further run.
    """
    from .layer_part import join

    for spec in batch.open_specs:
        try:
            parts = batch.parts(spec)
            attributes = join(parts, batch.draft(spec), spec.images.n_images(batch.site))
            batch.publish(spec, attributes=attributes)
        except SaevxError as error:
            batch.fail(spec, error)
