"""Fitted scorers, which map activations to one score per prototype."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol, TypeGuard, overload

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from saevx.errors import RecipeError

if TYPE_CHECKING:
    import torch

    from store import StoredArtifact


class FittedScorer(Protocol):
    """Maps activations to scores. `saevx.load` returns one for a `Scorer` spec."""

    @property
    def n_prototypes(self) -> int:
        """Number of scores per activation (K)."""
        ...

    def __call__(self, acts_bd: torch.Tensor) -> torch.Tensor:
        """Return scores (B, K) for activations (B, d)."""
        ...


def is_tensor(value: object) -> TypeGuard[torch.Tensor]:
    """Return whether a value is a tensor of torch, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


class Prototypes:
    """Scores activations by their dot products with fixed vectors."""

    def __init__(self, vectors_kd: NDArray[np.float32]) -> None:
        self.vectors_kd = vectors_kd

    @property
    def n_prototypes(self) -> int:
        """Number of vectors (K)."""
        return int(self.vectors_kd.shape[0])

    @property
    def d_model(self) -> int:
        """Width of the activations (d)."""
        return int(self.vectors_kd.shape[1])

    @overload
    def __call__(self, acts_bd: torch.Tensor) -> torch.Tensor: ...
    @overload
    def __call__(self, acts_bd: npt.ArrayLike) -> NDArray[np.float32]: ...
    def __call__(self, acts_bd: torch.Tensor | npt.ArrayLike) -> torch.Tensor | NDArray[np.float32]:
        """Return scores (B, K) in float32 for activations (B, d): a tensor for a tensor.

        Anything else is converted by `numpy.asarray`: arrays, lists of lists, and the results of
        `Tokens`, such as `tokens.patches[3]` or `tokens.tokens()`. Raises RecipeError when the
        activations are not numbers or have another shape.
        """
        if is_tensor(acts_bd):
            return self._score_tensor(acts_bd)
        try:
            plain = np.asarray(acts_bd).astype(np.float32, copy=False)
        except (TypeError, ValueError) as error:
            raise RecipeError(
                f"activations must be an array (B, {self.d_model}) of numbers: {error}"
            ) from error
        self._check(plain.shape)
        scores: NDArray[np.float32] = plain @ self.vectors_kd.T
        return scores

    def _score_tensor(self, acts_bd: torch.Tensor) -> torch.Tensor:
        import torch

        self._check(tuple(acts_bd.shape))
        vectors = torch.from_numpy(self.vectors_kd).to(acts_bd.device)
        return acts_bd.float() @ vectors.T

    def _check(self, shape: tuple[int, ...]) -> None:
        """Raise RecipeError unless the activations have shape (B, d)."""
        if len(shape) == 2 and shape[1] == self.d_model:
            return
        hint = ""
        if shape == (self.d_model,):
            hint = ": for a single activation pass x[None]"
        elif shape and shape[-1] == self.d_model:
            hint = f": pass x.reshape(-1, {self.d_model})"
        raise RecipeError(f"activations must have shape (B, {self.d_model}), not {shape}{hint}")

    def __repr__(self) -> str:
        return f"Prototypes(n_prototypes={self.n_prototypes}, d_model={self.d_model})"


def load_prototypes(artifact: StoredArtifact) -> Prototypes:
    """Return the scorer stored in a checkpoint of prototypes."""
    return Prototypes(np.array(artifact.array("prototypes").read(), dtype=np.float32))
