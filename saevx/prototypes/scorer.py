"""Scorers: what maps activations to one score per prototype."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from ..errors import RecipeError

if TYPE_CHECKING:
    import torch

    from store import Artifact as Stored


class Scorer(Protocol):
    """The interface of everything that scores activations."""

    @property
    def n_prototypes(self) -> int:
        """How many scores each activation gets (K)."""
        ...

    def __call__(self, acts_bd: torch.Tensor) -> torch.Tensor:
        """Scores (B, K) of activations (B, d)."""
        ...


class Prototypes:
    """Scores activations by their dot product with fixed vectors."""

    def __init__(self, vectors_kd: NDArray[np.float32]) -> None:
        self.vectors_kd = vectors_kd

    @property
    def n_prototypes(self) -> int:
        """How many vectors there are (K)."""
        return int(self.vectors_kd.shape[0])

    @property
    def d_model(self) -> int:
        """The width of the activations (d)."""
        return int(self.vectors_kd.shape[1])

    @overload
    def __call__(self, acts_bd: torch.Tensor) -> torch.Tensor: ...
    @overload
    def __call__(self, acts_bd: NDArray[np.floating]) -> NDArray[np.float32]: ...
    def __call__(
        self, acts_bd: torch.Tensor | NDArray[np.floating]
    ) -> torch.Tensor | NDArray[np.float32]:
        """Scores (B, K), in float32, of activations (B, d): a tensor for a tensor.

        Raises RecipeError when the activations have another width.
        """
        if acts_bd.ndim != 2 or acts_bd.shape[1] != self.d_model:
            raise RecipeError(
                f"a scorer of activations (B, {self.d_model}) was given {tuple(acts_bd.shape)}"
            )
        if isinstance(acts_bd, np.ndarray):
            scores: NDArray[np.float32] = acts_bd.astype(np.float32, copy=False) @ self.vectors_kd.T
            return scores
        import torch

        vectors = torch.from_numpy(self.vectors_kd).to(acts_bd.device)
        return acts_bd.float() @ vectors.T

    def __repr__(self) -> str:
        return f"Prototypes(n_prototypes={self.n_prototypes}, d_model={self.d_model})"


def load_prototypes(artifact: Stored) -> Prototypes:
    """The scorer kept in a checkpoint of prototypes."""
    return Prototypes(np.array(artifact.array("prototypes").read(), dtype=np.float32))
