"""Recording: images go through a ViT once, and each wanted layer goes to a sink of its own.

What is recorded for a layer does not depend on the other layers, and what is recorded for an image
depends on its batch only: images `b * batch_size` onwards, in the order of the set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import RecipeError
from .batches import ImageSource, batches
from .model import LoadedViT, ViTFacts
from .preprocess import Preprocess

if TYPE_CHECKING:
    import torch

    from spec import Resize


class Overflow(RecipeError):
    """An activation that the dtype cannot hold."""


class Sink(Protocol):
    """Takes what one layer gives."""

    def append(self, names: Sequence[str], tokens_bnd: torch.Tensor) -> None:
        """The next images: prefix and patch tokens. Raises Overflow to give this layer up."""
        ...


def record(
    source: ImageSource,
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
    """Give the activations of images `start` to `stop` to the sink of each layer, in order.

    A layer whose sink raises Overflow is left out from then on, and comes back with its error.
    `progress` is called with the number of images done. Raises DatasetError for images that cannot
    be decoded, after a look at the others, of which `on_check` tells how many were looked at; and
    whatever else a sink raises.
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
    with closing(stream):  # its threads would go on while an error is remembered
        for batch in stream:
            acts = vit.residual(torch.from_numpy(batch.pixels_bchw), open_sinks)
            for layer, tokens_bnd in acts.items():
                end = batch.start + batch.n
                try:
                    open_sinks[layer].append(names[batch.start : end], tokens_bnd[: batch.n])
                except Overflow as error:
                    failed[layer] = error
                    del open_sinks[layer]
            if progress is not None:
                progress(batch.start + batch.n - start)
            if not open_sinks:
                break
    return failed


def round_tokens(
    tokens_bnd: torch.Tensor, facts: ViTFacts, dtype: str, layer: int, names: Sequence[str]
) -> NDArray[Any]:
    """The class token, if any, and the patches, in `dtype`, in memory: (b, 1 + n_patches, d).

    Raises Overflow naming the first image with a value that is not finite, or not once rounded.
    """
    import torch

    if tokens_bnd.shape[1:] != (facts.n_prefix + facts.n_patches, facts.d_model):
        raise RecipeError(f"layer {layer} gave {tuple(tokens_bnd.shape)}, which fits no {facts}")
    # The class token comes first, registers after it.
    kept = tokens_bnd[:, facts.n_prefix :]
    if facts.has_cls and facts.n_prefix == 1:
        kept = tokens_bnd
    elif facts.has_cls:
        kept = torch.cat([tokens_bnd[:, :1], kept], dim=1)
    rounded = kept.to(getattr(torch, dtype))
    lowest_and_highest = torch.stack(torch.aminmax(rounded))  # nan when there is any nan
    if not bool(torch.isfinite(lowest_and_highest).all()):
        bad = ~torch.isfinite(rounded)
        image = int(bad.flatten(1).any(dim=1).nonzero()[0])
        value = float(kept[image][bad[image]][0])
        raise Overflow(_overflow(names[image], layer, value, dtype))
    return np.ascontiguousarray(rounded.cpu().numpy())


def _overflow(name: str, layer: int, value: float, dtype: str) -> str:
    where = f"layer {layer} of image {name!r}"
    if not np.isfinite(value):
        return (
            f"{where} holds {value}: the ViT itself gives no finite number there, whatever the "
            "dtype. Are its weights whole?"
        )
    return (
        f"{where} holds {value:,.1f}, which {dtype} cannot (its largest number is "
        f'{np.finfo(dtype).max:,.0f}): use Shards(..., dtype="float32")'
    )
