"""Memory maps of whole files that keep no descriptor open.

Python's `mmap` keeps one for each map (before 3.13, always), so a reader of many shard files would
reach the limit of open files.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt


def map_file(fd: int, n_bytes: int) -> npt.NDArray[np.uint8]:
    """Return the first bytes of an open file as a read-only array: (n_bytes,).

    The map ends with the last array over it. The file may be closed and renamed meanwhile, but not
    cut: access past its end kills the process. Raises OSError.
    """
    if n_bytes == 0:
        return np.empty(0, np.uint8)
    libc = _libc()
    address = libc.mmap(None, n_bytes, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    if address == ctypes.c_void_p(-1).value:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    buffer = (ctypes.c_ubyte * n_bytes).from_address(address)
    # Not at exit: other threads may still read.
    weakref.finalize(buffer, libc.munmap, address, n_bytes).atexit = False
    content: npt.NDArray[np.uint8] = np.ctypeslib.as_array(buffer)
    content.flags.writeable = False
    return content


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    size, address, number = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int
    libc.mmap.argtypes = [address, size, number, number, number, ctypes.c_int64]
    libc.mmap.restype = address
    libc.munmap.argtypes = [address, size]
    return libc
