"""Rows in groups of different lengths, such as the tokens of images."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from store.arrays.reader import Array

AnyArray = npt.NDArray[Any]


class RaggedArray:
    """An array (n_rows, ...) whose rows `indptr[i]` to `indptr[i + 1]` are group i.

    `ragged[i]` is a view of a memory map where the rows are in one file that is not compressed, as
    they are if files are cut between groups.
    """

    def __init__(self, flat: Array, indptr: npt.NDArray[np.int64]) -> None:
        self.flat = flat
        self.indptr = indptr
        """First row of each group, and the number of rows: (n_groups + 1,)."""

    def __len__(self) -> int:
        """Number of groups."""
        return len(self.indptr) - 1

    def __repr__(self) -> str:
        rows = ", ".join(["...", *map(str, self.flat.shape[1:])])
        return f"RaggedArray({len(self)} x ({rows}), dtype={self.dtype.name})"

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.flat.dtype

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of rows of each group: (n_groups,)."""
        return np.diff(self.indptr)

    def __getitem__(self, group: int) -> AnyArray:
        """Return the rows of a group: (lengths[group], ...). Raises IndexError."""
        i, n = operator.index(group), len(self)
        if not -n <= i < n:
            raise IndexError(f"group {i} of {n}")
        i %= n
        return self.flat[int(self.indptr[i]) : int(self.indptr[i + 1])]

    def __iter__(self) -> Iterator[AnyArray]:
        return (self[i] for i in range(len(self)))
