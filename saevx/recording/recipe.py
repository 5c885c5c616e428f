"""The recipe of Shards: one forward pass over the images for all layers of a batch.

A recording is made in parts, one per file of patch tokens. After a kill it resumes at the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any

from saevx.compute.device import describe, device
from saevx.errors import SaevxError
from saevx.resolve.batch import Batch
from saevx.resolve.parts import Parts, PendingParts
from saevx.resolve.recipe import recipe
from spec import Keys, RandomInit, Shards, Site, SpecError, ViT, to_document

if TYPE_CHECKING:
    import store
    from saevx.datasets.images import ImageSource


def check(specs: Sequence[Shards], site: Site) -> None:
    """Refuse unknown ViTs, layers that they lack, empty image sets and unusable devices."""
    from saevx.datasets.images import check_reads_fields
    from saevx.vit.model import check_layers

    keys = Keys(site)
    layers: dict[str, tuple[ViT, set[int]]] = {}
    for spec in specs:
        layers.setdefault(keys.text(spec.vit), (spec.vit, set()))[1].add(spec.layer)
    faults = [
        f"{spec.images!r} has no images: choose another split or root"
        for spec in specs
        if not spec.images.n_images(site)
    ]
    checks: list[Callable[[], object]] = [device]
    checks += [partial(check_reads_fields, spec.images) for spec in specs]
    checks += [partial(check_layers, vit, indices) for vit, indices in layers.values()]
    for run_check in checks:
        try:
            run_check()
        except SpecError as error:
            faults.append(str(error))
    if faults:
        raise SpecError("\n".join(dict.fromkeys(faults)))


def notes(specs: Sequence[Shards]) -> Iterator[str]:
    """Yield which ViTs get images of another size or crop than they were trained on."""
    from saevx.vit.data_config import note_on_resize

    for vit in {repr(spec.vit): spec.vit for spec in specs if spec.vit.resize}.values():
        if note := note_on_resize(vit):
            yield note


def inspect(spec: Shards, attributes: Mapping[str, Any]) -> Iterator[str]:
    """Yield what `saevx doctor` warns of: input that would differ now, and mixed devices."""
    from saevx.vit.data_config import differences

    yield from differences(spec.vit, attributes)
    yield from attributes.get("warnings", ())


def read_tokens(artifact: store.StoredArtifact) -> Any:
    """Return the `Tokens` of stored shards."""
    from saevx.recording.tokens import Tokens

    return Tokens(artifact)


def count_files(spec: Shards, site: Site) -> int:
    """Return the number of parts of a recording, which are its files of patch tokens."""
    n_images = spec.images.n_images(site)
    return -(-n_images // _images_per_file(spec, n_images))


def _images_per_file(spec: Shards, n_images: int) -> int:
    from saevx.recording.layer_part import images_per_file
    from saevx.vit.model import inspect_vit

    return images_per_file(n_images, inspect_vit(spec.vit), spec.dtype)


def record_files(batch: Batch[Shards], todo: PendingParts[Shards]) -> None:
    """Record shard files, each in one forward pass for all layers that lack it."""
    from saevx.datasets.images import open_images
    from saevx.recording.forward_pass import record
    from saevx.recording.layer_part import LayerPart
    from saevx.vit.data_config import data_config
    from saevx.vit.model import first_last_cosine, load_vit

    first = batch.specs[0]
    source = open_images(first.images, batch.site)
    if source.listing.digests is None:
        source = _with_earlier_digests(source, batch)
    vit = load_vit(first.vit, site=batch.site)
    config = data_config(first.vit)
    facts = {"weights_revision": vit.revision, **config.as_json()}
    versions = {name: metadata.version(name) for name in ("torch", "timm", "pillow")}
    computed: dict[str, Any] = {**describe(vit.device), "batch_size": first.batch_size, **versions}
    if isinstance(first.vit.weights, RandomInit):
        computed["first_last_cosine"] = first_last_cosine(vit, config.resize.size)
    per_file = _images_per_file(first, len(source))
    ranges = {
        index: range(len(source))[index * per_file : (index + 1) * per_file]
        for index in todo.indices
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
                part.draft(spec),
                layer,
                vit.facts,
                names,
                dtype=spec.dtype,
                prefix=spec.prefix,
                images_per_file=per_file,
            )
            for layer, spec in spec_of.items()
        }
        failed = record(
            source,
            vit,
            config.resize,
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
                digests = [source.digests[i] for i in images]
                attributes = sinks[layer].finish(digests, facts, computed)
                part.publish(spec, attributes=attributes)
        n_done += len(images)


def _with_earlier_digests(source: ImageSource, batch: Batch[Shards]) -> ImageSource:
    """Return the source with the digests that an earlier recording of the set has met, if any.

    Then an image that has changed since is an error, though the key of the set is the same.
    """
    images = to_document(batch.specs[0].images, Keys(batch.site))
    for stored in batch.store.scan("shards"):
        if stored.manifest.spec["fields"].get("images") == images:
            digests = tuple(row.tobytes().hex() for row in stored.array("xxh3").read())
            return replace(source, listing=replace(source.listing, digests=digests))
    return source


@recipe(
    Shards,
    batch_by=lambda spec: (spec.images, spec.vit, spec.dtype, spec.prefix, spec.batch_size),
    preflight=check,
    load=read_tokens,
    parts=Parts(count_files, record_files),
    notes=notes,
    inspect=inspect,
)
def record_shards(batch: Batch[Shards]) -> None:
    """Join the shard files of every layer of the batch.

    A layer fails alone if it overflowed or its files do not fit together; the others are joined.
    """
    from saevx.recording.join_parts import join

    for spec in batch.open_specs:
        try:
            parts = batch.parts(spec)
            attributes = join(parts, batch.draft(spec), spec.images.n_images(batch.site))
            batch.publish(spec, attributes=attributes)
        except SaevxError as error:
            batch.fail(spec, error)
