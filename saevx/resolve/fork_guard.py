"""What a recipe has forked must not come out of it: it would go on as the run itself."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def children_end_here() -> Iterator[None]:
    """A process that was forked within this block ends where it would leave it.

    Its code is 0 when it returned, that of its SystemExit, and 1 when it raised, which it prints.
    """
    pid = os.getpid()
    try:
        yield
    except BaseException as error:
        if os.getpid() != pid:
            _end(error)
        raise
    if os.getpid() != pid:
        _end(None)


def _end(error: BaseException | None) -> None:
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        traceback.print_exception(error)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    # At once: what its parent holds is not the child's to close.
    os._exit(code)
