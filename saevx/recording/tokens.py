"""A handle on recorded activations that loads only what is indexed."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from saevx.recording.token_rows import TokenRows
from store.arrays.ragged import RaggedArray

if TYPE_CHECKING:
    import zarr

    import store
    from store.arrays.reader import Array


class Tokens:
    """The activations of one layer over an image set, as `saevx.load` returns them for Shards.

        tokens = saevx.load(shards)
        tokens.patches[3]              # (n_patches, d) of image 3
        tokens.patches[3:5]            # (2, n_patches, d), where all images have one grid
        tokens.tokens()[:1000]         # (1000, d), image after image
        tokens.tokens()[[5, 9]]        # (2, d)
        np.asarray(tokens.tokens())    # all of them

    Rows are read from memory-mapped files, patches in the dtype in which they were recorded.
    """

    def __init__(self, artifact: store.StoredArtifact) -> None:
        self.artifact = artifact
        facts = artifact.manifest.attributes
        self.n_images: int = facts["n_images"]
        self.n_patches: int | None = facts["n_patches"]
        """Patch tokens per image; None if images have grids of their own, see `grids`."""
        self.grid: tuple[int, int] | None = tuple(facts["grid"]) if facts["grid"] else None
        """Rows and columns of patches, likewise; token r * columns + c is patch (r, c)."""
        self.n_tokens: int = facts["n_tokens"]
        """Patch tokens over all images."""
        self.d_model: int = facts["d_model"]
        self.variance: float = facts["variance"]
        """Trace of the covariance of the patch tokens: E ||x - E x||^2."""
        self.mean_square: float = facts["mean_square"]
        """E ||x||^2 over the patch tokens."""

    def __repr__(self) -> str:
        of_image = f"{self.n_patches} patches" if self.n_patches else "patches of its grid"
        n = f"{self.n_images} images x {of_image} x {self.d_model}"
        return f"Tokens({self.artifact.key}, {n}, {self.dtype.name})"

    def __len__(self) -> int:
        """Number of patch tokens over all images."""
        return self.n_tokens

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.flat.dtype

    @cached_property
    def flat(self) -> Array:
        """Patch tokens as they are stored, image after image: (n_tokens, d)."""
        return self.artifact.array("patches")

    @cached_property
    def patches(self) -> Array | RaggedArray:
        """Patch tokens by image. Index an image: (its patches, d).

        Where all images have one grid, this is an array (n_images, n_patches, d), which takes
        ranges of images too.
        """
        if self.n_patches is None:
            return RaggedArray(self.flat, self.indptr)
        return self.flat.grouped(self.n_patches)

    @cached_property
    def indptr(self) -> npt.NDArray[np.int64]:
        """First token of each image, and the number of tokens: (n_images + 1,)."""
        return self.artifact.array("indptr").read()

    @cached_property
    def grids(self) -> npt.NDArray[np.int32]:
        """Rows and columns of patches of each image: (n_images, 2)."""
        return self.artifact.array("grids").read()

    @cached_property
    def cls(self) -> Array | None:
        """Class tokens (n_images, 1, d); None for a ViT without one."""
        return self.artifact.array("cls") if "cls" in self.artifact.arrays() else None

    @cached_property
    def registers(self) -> Array | None:
        """Tokens before the patches, without the class token (n_images, r, d); None if not kept."""
        return self.artifact.array("registers") if "registers" in self.artifact.arrays() else None

    @cached_property
    def mean(self) -> npt.NDArray[np.float64]:
        """Mean patch token: (d,)."""
        return self.artifact.array("mean").read()

    @cached_property
    def images(self) -> list[str]:
        """Names of the images, in order."""
        return self.artifact.table("images")["file"].to_list()

    def tokens(self) -> TokenRows:
        """Return all patch tokens, image after image: (n_tokens, d)."""
        return TokenRows(self.flat)

    def zarr(self) -> zarr.Group:
        """Return the artifact as a Zarr group, read-only."""
        return self.artifact.zarr()
