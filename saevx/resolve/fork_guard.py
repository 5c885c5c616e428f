"""End processes that a recipe forks before they return from it and go on as the run itself."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def end_forked_children() -> Iterator[None]:
    """End a process that was forked within this block where it would leave the block.

    Its exit code is 0 if it returned, that of its SystemExit, or 1 with a traceback if it raised.
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
    # Without cleanup: files and locks of the parent are not the child's to close.
    os._exit(code)
