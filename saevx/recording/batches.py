"""Batches of images of one shape, decoded ahead of the model."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from saevx.recording.broken_images import report_broken
from spec import DatasetError

if TYPE_CHECKING:
    from PIL import Image

AHEAD = 2
"""Batches that are decoded while the model works on one. This bounds the memory."""

MAX_DECODERS = 16


class ImageReader(Protocol):
    """Decodes the images of a set; called by several threads at once."""

    @property
    def files(self) -> Sequence[str]:
        """Names of the images, in the order of the set."""
        ...

    def __len__(self) -> int: ...

    def load(self, i: int) -> Image.Image:
        """Return image `i` in RGB. Raises DatasetError when it cannot be decoded."""
        ...


@dataclass(frozen=True)
class ImageBatch:
    """Images `start` to `start + n`; later rows of `pixels_bchw` are padding."""

    start: int
    n: int
    pixels_bchw: NDArray[np.float32]


def batches(
    source: ImageReader,
    preprocess: Callable[[Image.Image], NDArray[np.float32]],
    *,
    batch_size: int,
    start: int = 0,
    stop: int | None = None,
    n_decoders: int | None = None,
    on_check: Callable[[int], None] | None = None,
) -> Generator[ImageBatch, None, None]:
    """Yield images `start` to `stop` in batches of `batch_size`, the last one padded with zeros.

    Raises what `source.load` raises, in the order of the images. Before a DatasetError is raised,
    all images not yet decoded are checked, so that the error names every broken one; `on_check` is
    called with the number of checked images.
    """
    stop = len(source) if stop is None else stop

    def decode(i: int) -> NDArray[np.float32]:
        return preprocess(source.load(i))

    pool = ThreadPoolExecutor(n_decoders or count_decoders(), thread_name_prefix="decode")
    waiting: deque[Future[NDArray[np.float32]]] = deque()
    upcoming = iter(range(start, stop))
    try:
        for first in range(start, stop, batch_size):
            n = min(batch_size, stop - first)
            while len(waiting) < (AHEAD + 1) * batch_size:
                if (i := next(upcoming, None)) is None:
                    break
                waiting.append(pool.submit(decode, i))
            images: list[NDArray[np.float32]] = []
            for i in range(first, first + n):
                try:
                    images.append(waiting.popleft().result())
                except DatasetError as error:
                    for future in waiting:
                        future.cancel()
                    others = [*range(i + 1, len(source)), *range(start)]
                    broken = report_broken(error, source.load, others, pool, on_check)
                    raise broken from error.__cause__
            pixels = np.zeros((batch_size, *images[0].shape), np.float32)
            np.stack(images, out=pixels[:n])
            yield ImageBatch(first, n, pixels)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def count_decoders() -> int:
    """Return the number of cores that this process may use, at most MAX_DECODERS."""
    try:
        n_cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        n_cores = os.cpu_count() or 1
    return min(n_cores, MAX_DECODERS)
