"""Standard output and error: write any text in any encoding, and report failures to write."""

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
    """Encode characters that saevx draws with as ASCII, and others as escapes (codecs handler)."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wrong = error.object[error.start : error.end]
    text = (_ASCII.get(c) or c.encode("ascii", "backslashreplace").decode() for c in wrong)
    return "".join(text), error.end


codecs.register_error("saevx", _in_ascii)


def replace_unencodable() -> None:
    """Write characters that the encoding of a terminal, pipe or log lacks as ASCII."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="saevx")


@contextmanager
def report_write_failures() -> Iterator[None]:
    """Exit with 1 and a message if the output cannot be written, for example on a full disk.

    Click itself handles a pipe that its reader has closed.
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
        with suppress(OSError):  # else Python writes again at its exit, and fails
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
