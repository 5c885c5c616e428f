"""Train subsets: which `n_train` images of a set are used. Smaller subsets lie in larger ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray


def nested_order(images: Sequence[str]) -> NDArray[np.int64]:
    """Return the order in which images join the train subsets, (n,): by the hash of their names.

    It depends only on the names, so the first 64 contain the first 16 on every machine.
    """
    hashes = np.array([xxhash.xxh3_64_intdigest(name.encode()) for name in images], np.uint64)
    return np.argsort(hashes, kind="stable")
