"""A handle to read recorded activations, without loading more than is asked for."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import zarr

    import store
    from store.arrays import Array

AnyArray = npt.NDArray[Any]


class Tokens:
    """The activations of one layer over an image set: what `saevx.load` gives for Shards.

        tokens = saevx.load(shards)
        tokens.patches[3]              # (n_patches, d) of image 3
        tokens.tokens()[:1000]         # (1000, d), image after image
        tokens.tokens().take([5, 9])   # (2, d)

    Rows come from memory-mapped files, in the dtype in which they were recorded.
    """

    def __init__(self, artifact: store.Artifact) -> None:
        self.artifact = artifact
        facts = artifact.manifest.attributes
        self.n_images: int = facts["n_images"]
        self.n_patches: int = facts["n_patches"]
        """Patch tokens per image."""
        self.grid: tuple[int, int] = tuple(facts["grid"])
        """Rows and columns of patches; token r * columns + c is patch (r, c)."""
        self.d_model: int = facts["d_model"]
        self.variance: float = facts["variance"]
        """Trace of the covariance of the patch tokens: E ||x - E x||^2."""
        self.mean_square: float = facts["mean_square"]
        """E ||x||^2 over the patch tokens."""

    def __repr__(self) -> str:
        n = f"{self.n_images} images x {self.n_patches} patches x {self.d_model}"
        return f"Tokens({self.artifact.key}, {n}, {self.dtype.name})"

    def __len__(self) -> int:
        """Patch tokens over all images."""
        return self.n_images * self.n_patches

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.patches.dtype

    @cached_property
    def patches(self) -> Array:
        """Patch tokens (n_images, n_patches, d): index an image or a range, or `take` some."""
        return self.artifact.array("patches")

    @cached_property
    def cls(self) -> Array | None:
        """Class tokens (n_images, 1, d); None for a ViT that has none."""
        return self.artifact.array("cls") if "cls" in self.artifact.arrays() else None

    @cached_property
    def mean(self) -> npt.NDArray[np.float64]:
        """Mean patch token: (d,)."""
        return self.artifact.array("mean").read()

    @cached_property
    def images(self) -> list[str]:
        """Names of the images, in order."""
        return self.artifact.table("images")["file"].to_list()

    def tokens(self) -> AnyArray | TokenRows:
        """All patch tokens (n_images * n_patches, d), image after image.

        A read-only memory map where they lie in one file, else an object with the same slicing
        and `take`.
        """
        if self.patches.grid.n_shards == 1:
            (patches_npd,) = self.patches.memmaps()
            return patches_npd.reshape(-1, self.d_model)
        return TokenRows(self.patches)

    def zarr(self) -> zarr.Group:
        """The Zarr group that holds all this, read-only."""
        return self.artifact.zarr()


class TokenRows:
    """Patch tokens that lie in several files, as rows of one array (n_tokens, d).

    A slice is a view of a memory map where it lies in one file, else a copy.
    """

    def __init__(self, patches_npd: Array) -> None:
        self._patches_npd = patches_npd
        n_images, self._n_patches, d = patches_npd.shape
        self.shape = (n_images * self._n_patches, d)
        self.dtype = patches_npd.dtype
        self.ndim = 2

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"TokenRows(shape={self.shape}, dtype={self.dtype.name})"

    def __getitem__(self, rows: int | slice) -> AnyArray:
        """One token, or a range of them. Raises IndexError as numpy does."""
        if not isinstance(rows, slice):
            one: AnyArray = self.take(np.asarray([rows]))[0]
            return one
        start, stop, step = rows.indices(len(self))
        if step != 1:
            return self.take(np.arange(start, stop, step))
        first, last = start // self._n_patches, -(-max(start, stop) // self._n_patches)
        images = self._patches_npd[first:last].reshape(-1, self.shape[1])
        skipped = first * self._n_patches
        tokens: AnyArray = images[start - skipped : max(start, stop) - skipped]
        return tokens

    def take(self, rows: npt.ArrayLike, axis: int = 0) -> AnyArray:
        """A copy of the given tokens, in the order given: (n, d); negative rows count from the end.

        Reads file after file, and of each only the tokens asked for. Raises IndexError.
        """
        wanted = np.asarray(rows)
        if axis != 0 or wanted.ndim != 1 or (wanted.size and wanted.dtype.kind not in "iu"):
            raise IndexError("take needs a one-dimensional array of row numbers, along axis 0")
        if wanted.size and not -len(self) <= int(wanted.min()) <= int(wanted.max()) < len(self):
            raise IndexError(f"rows {wanted.min()} to {wanted.max()} of {len(self)} tokens")
        wanted = wanted.astype(np.int64) % max(1, len(self))
        out = np.empty((len(wanted), self.shape[1]), self.dtype)
        order = np.argsort(wanted, kind="stable")
        tokens_per_file = self._patches_npd.grid.rows_per_shard * self._n_patches
        files, within = np.divmod(wanted[order], tokens_per_file)
        for file in np.unique(files):
            here = slice(*np.searchsorted(files, [file, file + 1]))
            first = int(file) * tokens_per_file
            out[order[here]] = self[first : first + tokens_per_file][within[here]]
        return out

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> AnyArray:
        if copy is False:
            raise ValueError("these tokens are not in memory as one array")
        whole = self._patches_npd.read().reshape(self.shape)
        return whole.astype(dtype or self.dtype, copy=False)
