"""Make names of files, users and hosts safe for paths, Slurm and shells."""

from __future__ import annotations

import getpass
import os
import re
import time

import xxhash

UTC_STAMP = "%Y%m%dT%H%M%SZ"


def safe_name(text: str, n_bytes: int = 200, also: str = "") -> str:
    """`text` itself where it is safe, else a readable form of it with a digest: `my_study~1f0c...`.

    Safe are ASCII letters and digits (Slurm's accounting fails on others), `_`, `-`, `.`, and what
    `also` adds to this class of a regular expression; in at most `n_bytes` of UTF-8, and no `-`,
    `.` or space at the beginning. The digest keeps different names different. As `~` is never safe,
    no safe name equals such a form.
    """
    safe = rf"A-Za-z0-9_.\-{also}"
    if re.fullmatch(rf"(?![-. ])[{safe}]+", text) and len(text.encode()) <= n_bytes:
        return text
    digest = xxhash.xxh3_64_hexdigest(text.encode(errors="surrogatepass"))[:8]
    readable = re.sub(rf"^[-. ]|[^{safe}]", "_", text).encode()[: n_bytes - len(digest) - 1]
    return f"{readable.decode(errors='ignore')}~{digest}"


def utc_stamp() -> str:
    """Return the present time for names of files, such as 20260314T150926Z."""
    return time.strftime(UTC_STAMP, time.gmtime())


def host_name() -> str:
    return safe_name(os.uname().nodename)


def user_name() -> str:
    """Return the user of this process; the number where it has no name, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # OSError since Python 3.13
        return str(os.getuid())
