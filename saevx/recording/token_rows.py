"""Patch tokens as the rows of one array, across shard files."""

from __future__ import annotations

from collections.abc import Iterator
from types import EllipsisType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from store.arrays.reader import Array

AnyArray = npt.NDArray[Any]

Rows = int | slice | npt.ArrayLike
"""A row, a range of rows, row numbers in any order, or a mask with one bool per row."""


ROWS_AT_ONCE = 1024
"""Rows that an iteration reads together."""


class TokenRows:
    """Patch tokens (n_tokens, d), image after image, as returned by `Tokens.tokens()`.

        rows[5]                  # (d,)
        rows[100:200]            # (100, d)
        rows[[7, 3, -1]]         # (3, d); so are arrays of numbers, and masks of n_tokens bools
        rows[100:200, :16]       # (100, 16)
        np.asarray(rows)         # all of them

    Indexing works as for a numpy array of this shape. A row, or a range of rows in one file, is a
    read-only view of a memory map. Anything else is a copy, for which only those rows are read.
    """

    ndim = 2

    def __init__(self, flat_nd: Array) -> None:
        self._flat_nd = flat_nd
        self.shape = flat_nd.shape
        self.dtype = flat_nd.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"TokenRows(shape={self.shape}, dtype={self.dtype.name})"

    def __iter__(self) -> Iterator[AnyArray]:
        for start in range(0, len(self), ROWS_AT_ONCE):
            yield from self._flat_nd[start : start + ROWS_AT_ONCE]

    def __getitem__(self, index: Rows | EllipsisType | tuple[Any, ...]) -> AnyArray:
        """Return rows, or rows and columns, as numpy does. Raises IndexError."""
        rows, columns = _split(index)
        if isinstance(rows, slice):
            found = self._slice(rows)
            return found[:, columns[0]] if columns else found
        numbers = self._numbers(rows)
        if isinstance(rows, int):
            row: AnyArray = self._flat_nd[int(numbers)]
            return row[columns[0]] if columns else row
        if not columns:
            return self.take(numbers)
        # Arrays of rows and of columns pair up. Read the needed rows and let numpy do that.
        needed, places = np.unique(numbers, return_inverse=True)
        paired: AnyArray = self._flat_nd.take(needed)[places.reshape(numbers.shape), columns[0]]
        return paired

    def take(self, rows: npt.ArrayLike, axis: int = 0) -> AnyArray:
        """Return a copy of rows in the order given: (..., d) for row numbers (...).

        Negative numbers count from the end. Raises IndexError.
        """
        if axis != 0:
            raise IndexError(f"take works along axis 0, not {axis}")
        numbers = self._numbers(rows)
        return self._flat_nd.take(numbers.reshape(-1)).reshape(*numbers.shape, self.shape[1])

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> AnyArray:
        wanted = self.dtype if dtype is None else np.dtype(dtype)
        if wanted == self.dtype and not copy and len(self._flat_nd.shards) == 1:
            return self[:]
        if copy is False:
            raise ValueError(
                "an array of these tokens needs a copy, since they are in several files or have "
                "another dtype: leave copy=False out"
            )
        whole: AnyArray = self._flat_nd.read().astype(wanted, copy=False)
        return whole

    def _slice(self, rows: slice) -> AnyArray:
        wanted = range(len(self))[rows]
        if not wanted:
            return np.empty((0, self.shape[1]), self.dtype)
        low, high = min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1])
        first, last = np.searchsorted(self._flat_nd.file_starts, [low, high], side="right")
        if first == last or abs(wanted.step) == 1:
            return self._flat_nd[low : high + 1][:: wanted.step]
        return self._flat_nd.take(np.asarray(wanted))

    def _numbers(self, rows: Any) -> npt.NDArray[np.int64]:
        """Return the numbers of a row, an array of rows or a mask, from 0. Raises IndexError."""
        n = len(self)
        wanted = np.asarray(rows)
        if wanted.dtype == np.bool_:
            if wanted.shape != (n,):
                raise IndexError(
                    f"a mask for {n} tokens must have shape ({n},), not {wanted.shape}"
                )
            return np.flatnonzero(wanted)
        if wanted.size == 0 and not isinstance(rows, np.ndarray):
            wanted = wanted.astype(np.int64)
        if wanted.dtype.kind not in "iu":
            raise IndexError(
                "index tokens by row numbers, slices or masks, and columns after a comma, not by "
                f"{rows!r}"
            )
        if wanted.size and not -n <= int(wanted.min()) <= int(wanted.max()) < n:
            raise IndexError(
                f"rows {wanted.min()} to {wanted.max()} are out of range for {n} tokens"
            )
        return wanted.astype(np.int64) % max(1, n)


def _split(index: Any) -> tuple[Any, tuple[Any, ...]]:
    """Split an index into rows and, if given, columns. Raises IndexError for more axes."""
    parts = index if isinstance(index, tuple) else (index,)
    dots = [place for place, part in enumerate(parts) if part is Ellipsis]
    if dots:
        before, after = parts[: dots[0]], parts[dots[0] + 1 :]
        parts = (*before, *[slice(None)] * (2 - len(before) - len(after)), *after)
    if len(parts) > 2 or len(dots) > 1 or any(part is None for part in parts):
        raise IndexError(f"tokens have 2 axes, rows and columns, which {index!r} does not fit")
    rows, columns = parts[0] if parts else slice(None), parts[1:]
    return int(rows) if isinstance(rows, np.integer) else rows, columns
