"""Names of everything on disk; docs/disk-layout.md in code. No other module knows a file name.

<root>/<kind>/<key[:2]>/<key>/               a published artifact: one Zarr v3 group
<root>/<kind>/.build/<key>.<owner>/  an artifact in the making
<root>/<kind>/.work/<key>/<part>/    a finished part of one, waiting for the others
<root>/<kind>/.trash/<key>.<time>/   what was moved out of the way
<root>/<kind>/.leases/<key>/         who is making an artifact
"""

from __future__ import annotations

import calendar
import os
import re
import time
from pathlib import Path

import xxhash

from store.errors import StoreError
from store.names import UTC_STAMP, utc_stamp

LAYOUT = 1
"""The version of the layout that this code writes, and the latest it reads."""

KINDS = ("shards", "checkpoints", "activations", "results")

Ref = tuple[str, str]
"""Kind and key of an artifact."""

RESERVED = (".build", ".work", ".trash", ".leases", ".catalogue")
"""What lies beside the artifacts of a kind."""

NODE_FILE = "zarr.json"
DELETED = ".deleted"
"""Ends the name of what is being deleted from the trash for good, and may be half gone."""
VALID_SUFFIX = ".valid"
"""Ends the name of the array that says which rows of a table's column are not null."""

TABLE = "saevx_table"
"""Attribute that makes a group a table."""

_KEY = re.compile(r"[0-9a-f]{32}")
_PREFIX = re.compile(r"[0-9a-f]{1,32}")


def check_kind(kind: str) -> str:
    if kind not in KINDS:
        raise StoreError(f"{kind!r} is not a kind of artifact; the kinds are {', '.join(KINDS)}")
    return kind


def check_key(key: str) -> str:
    if not is_key(key):
        raise StoreError(f"{key!r} is not a key; a key is 32 lower-case hexadecimal digits")
    return key


def check_prefix(prefix: str) -> str:
    if not _PREFIX.fullmatch(prefix):
        raise StoreError(
            f"{prefix!r} does not begin a key; give 1 to 32 lower-case hexadecimal digits"
        )
    return prefix


def is_key(name: str) -> bool:
    return _KEY.fullmatch(name) is not None


def check_name(name: str) -> str:
    """The name of one array, table or column, when it may serve as a file name and a Zarr node."""
    if fault := _fault_of(name):
        raise StoreError(f"{name!r} cannot name an array, table or column: {fault}; rename it")
    return name


def check_path(path: str) -> str:
    """The name of an array or table, which may lie in groups: `"a"`, `"groups/of/a"`."""
    for name in path.split("/"):
        if fault := _fault_of(name):
            raise StoreError(f"{path!r} cannot name an array or table: {fault}; rename it")
    return path


def is_inside(file: str) -> bool:
    """Whether a path in a manifest, which may come from elsewhere, stays within its artifact."""
    return all(part not in ("", ".", "..") and "\0" not in part for part in file.split("/"))


def _fault_of(name: str) -> str | None:
    if not name:
        return "it has an empty part"
    if "/" in name:
        return "it holds a '/'"
    if name.startswith((".", "__")):
        return "a part starts with '.' or '__', which is reserved"
    if name == NODE_FILE:
        return f"{NODE_FILE} is the file of a Zarr node"
    if not name.isprintable():
        return "it holds characters that cannot be printed"
    if len(name.encode()) > 255:
        return "it is longer than 255 bytes"
    return None


def is_prefix_folder(name: str) -> bool:
    """Whether a folder of this name holds the artifacts whose keys begin so."""
    return len(name) == 2 and set(name) <= set("0123456789abcdef")


def home(root: Path, kind: str, key: str) -> Path:
    """Where a published artifact lies."""
    return Path(f"{root}/{kind}/{key[:2]}/{key}")


def builds(root: Path, kind: str) -> Path:
    return root / kind / ".build"


def works(root: Path, kind: str) -> Path:
    return root / kind / ".work"


def work(root: Path, kind: str, key: str) -> Path:
    """Finished parts of an artifact that is not there yet, each an artifact in itself."""
    return works(root, kind) / key


def part_home(root: Path, kind: str, key: str, part: int) -> Path:
    return work(root, kind, key) / str(part)


def part_key(key: str, part: int) -> str:
    """What stands for one part of an artifact where a key is needed: its lease, its manifest."""
    return xxhash.xxh3_128_hexdigest(f"{key}/{part}".encode())


def build_name(key: str, owner: str) -> str:
    """A fresh name below the builds; `owner_of` tells who made it."""
    return f"{key}.{owner}.{os.urandom(4).hex()}"


def owner_of(build: str) -> str:
    """The owner in the name of a build, "" where there is none."""
    return build.partition(".")[2].rpartition(".")[0]


def trash(root: Path, kind: str) -> Path:
    return root / kind / ".trash"


def trash_name(key: str) -> str:
    """A fresh name below the trash; it tells what was moved there and when (UTC)."""
    return f"{key}.{utc_stamp()}.{os.urandom(4).hex()}"


def leases(root: Path, kind: str) -> Path:
    return root / kind / ".leases"


def catalogue_file(root: Path, kind: str, form: str) -> Path:
    """What is remembered of a kind; one file for each form in which that is done."""
    return root / kind / ".catalogue" / f"{form}.msgpack"


def owner_file(lease: Path) -> Path:
    """Tells who holds a lease; its time of change is the last heartbeat."""
    return lease / "owner.json"


def clock_file(leases: Path) -> Path:
    """A file whose time of change, once touched, is the file server's time."""
    return leases / ".clock"


def trashed(name: str) -> tuple[str, float] | None:
    """Key and time (seconds since 1970) in a name below the trash; None for a name not ours."""
    key, _, rest = name.partition(".")
    try:
        moved = calendar.timegm(time.strptime(rest.partition(".")[0], UTC_STAMP))
    except ValueError:
        return None
    return (key, float(moved)) if is_key(key) else None


def runs(root: Path) -> Path:
    """Folders of recorded runs, one for each experiment file."""
    return root / ".runs"


def pins(root: Path) -> Path:
    return root / ".pins"


def pin_file(root: Path, kind: str, key: str) -> Path:
    return pins(root) / f"{kind}.{key}.json"


def collectors(root: Path) -> Path:
    """Where a collection announces that it is about to move things."""
    return root / ".gc"


def dropped(root: Path, kind: str) -> Path:
    """Manifests of artifacts that a collection gave up although something reaches them."""
    return root / ".dropped" / kind


def dropped_file(root: Path, kind: str, key: str) -> Path:
    return dropped(root, kind) / f"{key}.json"


def node_file(path: str) -> str:
    """The metadata file of a node of an artifact, relative to the artifact; `""` is its root."""
    return f"{path}/{NODE_FILE}" if path else NODE_FILE
