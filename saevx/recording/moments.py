"""Mean and variance of recorded tokens, summed in an order independent of batches and jobs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass
class Moments:
    """First and second moments of tokens in R^d, as float64 sums.

    Sums run over the tokens of an image, then over the images of a shard file; sums of shard files
    are merged in order. So the same tokens give the same bits in all divisions into parts.
    """

    d: int
    n_tokens: int = 0
    sum_d: NDArray[np.float64] = field(init=False)
    sum_squares: float = 0.0
    """Sum of ||x||^2."""

    def __post_init__(self) -> None:
        self.sum_d = np.zeros(self.d)

    def add_image(self, tokens_nd: NDArray[np.floating]) -> None:
        """Add the tokens (n, d) of one image."""
        exact = tokens_nd.astype(np.float64)
        self.n_tokens += len(exact)
        self.sum_d += exact.sum(axis=0)
        self.sum_squares += float(np.square(exact).sum())

    def merge(self, later: Moments) -> None:
        """Add the tokens of `later`, which follow these."""
        self.n_tokens += later.n_tokens
        self.sum_d += later.sum_d
        self.sum_squares += later.sum_squares

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean token: (d,)."""
        return self.sum_d / self.n_tokens

    @property
    def mean_square(self) -> float:
        """E ||x||^2."""
        return self.sum_squares / self.n_tokens

    @property
    def variance(self) -> float:
        """Trace of the covariance: E ||x - E x||^2, over n_tokens."""
        return max(0.0, self.mean_square - float(np.square(self.mean).sum()))
