"""Recording: one forward pass over the images, with a sink for the activations of each layer.

The activations of a layer do not depend on which other layers are recorded. Those of an image
depend on the image alone, but for their last bits, which may differ with the batch size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from saevx.errors import RecipeError
from saevx.recording.batches import ImageReader, batches
from saevx.vit.model import LoadedViT
from saevx.vit.preprocess import Preprocess

if TYPE_CHECKING:
    import torch

    from spec import Resize


class Overflow(RecipeError):
    """An activation is not finite, or too large for the dtype."""


class Sink(Protocol):
    """Receives the activations of one layer."""

    def append(self, names: Sequence[str], tokens_bnd: torch.Tensor, grid: tuple[int, int]) -> None:
        """Append prefix and patch tokens of the next images, which have `grid` patches each.

        Raises Overflow to drop the layer.
        """
        ...


def record(
    source: ImageReader,
    vit: LoadedViT,
    resize: Resize,
    sinks: Mapping[int, Sink],
    *,
    batch_size: int,
    start: int = 0,
    stop: int | None = None,
    progress: Callable[[int], None] | None = None,
    on_check: Callable[[int], None] | None = None,
    n_decoders: int | None = None,
) -> dict[int, Overflow]:
    """Pass the activations of images `start` to `stop` to the sink of each layer, in order.

    Returns the errors of layers whose sink raised Overflow; those layers are dropped from then on.
    `progress` is called with the number of images done. Raises DatasetError naming the images that
    cannot be decoded, `on_check` as in `batches`; and any other error of a sink.
    """
    import torch

    open_sinks = dict(sinks)
    failed: dict[int, Overflow] = {}
    names = source.files
    preprocess = Preprocess.of(resize, vit.facts)
    stream = batches(
        source,
        preprocess,
        batch_size=batch_size,
        start=start,
        stop=stop,
        n_decoders=n_decoders,
        on_check=on_check,
    )
    with closing(stream):  # else its threads keep running while an error holds the frame
        for batch in stream:
            acts = vit.residual(torch.from_numpy(batch.pixels_bchw), open_sinks)
            for layer, tokens_bnd in acts.items():
                end = batch.start + batch.n
                try:
                    open_sinks[layer].append(
                        names[batch.start : end], tokens_bnd[: batch.n], vit.facts.grid
                    )
                except Overflow as error:
                    failed[layer] = error
                    del open_sinks[layer]
            if progress is not None:
                progress(batch.start + batch.n - start)
            if not open_sinks:
                break
    return failed


def round_tokens(
    tokens_bnd: torch.Tensor, dtype: str, layer: int, names: Sequence[str]
) -> NDArray[Any]:
    """Return tokens (b, n, d) of images in `dtype`.

    Raises Overflow naming the first image with a value that is not finite after rounding.
    """
    import torch

    rounded = tokens_bnd.to(getattr(torch, dtype))
    lowest_and_highest = torch.stack(torch.aminmax(rounded))  # NaN if any value is NaN
    if not bool(torch.isfinite(lowest_and_highest).all()):
        bad = ~torch.isfinite(rounded)
        image = int(bad.flatten(1).any(dim=1).nonzero()[0])
        value = float(tokens_bnd[image][bad[image]][0])
        raise Overflow(_overflow(names[image], layer, value, dtype))
    return np.ascontiguousarray(rounded.cpu().numpy())


def _overflow(name: str, layer: int, value: float, dtype: str) -> str:
    where = f"layer {layer} of image {name!r}"
    if not np.isfinite(value):
        return (
            f"{where} has the value {value} before rounding, so no dtype can hold it: check the "
            "weights of the ViT"
        )
    return (
        f"{where} has the value {value:,.1f}, above the largest {dtype}, "
        f'{np.finfo(dtype).max:,.0f}: use Shards(..., dtype="float32")'
    )
