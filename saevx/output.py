"""Standard output and standard error that take every text, and say when they cannot be written."""

from __future__ import annotations

import codecs
import io
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_ASCII = {"├": "|", "└": "`", "│": "|", "─": "-", "…": "~", "→": "->", "●": "*", "○": "o"}


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs: what our own output draws with, in ASCII; else an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wrong = error.object[error.start : error.end]
    text = (_ASCII.get(c) or c.encode("ascii", "backslashreplace").decode() for c in wrong)
    return "".join(text), error.end


codecs.register_error("saevx", _in_ascii)


def take_every_text() -> None:
    """Let texts be written that the encoding of a terminal, pipe or log has no bytes for."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="saevx")


@contextmanager
def output_failures_told() -> Iterator[None]:
    """End the process with 1 and a message where its output cannot be written, as on a full disk.

    A pipe whose reader has gone is click's to end.
    """
    try:
        yield
    except OSError as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if frame.f_globals["__name__"].partition(".")[0] not in ("click", "rich"):
            raise
        with suppress(OSError):
            sys.stderr.write(f"error: cannot write the output: {error.strerror}\n")
            sys.stderr.flush()
        with suppress(OSError):  # else Python tries once more at its end, and complains
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
