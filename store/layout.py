"""Paths and names of everything on disk, as docs/disk-layout.md defines them.

<root>/<kind>/<key[:2]>/<key>/       a published artifact: one Zarr v3 group
<root>/<kind>/.build/<key>.<owner>.<token>/  a draft of an artifact
<root>/<kind>/.work/<key>/<part>/    a finished part of an artifact in progress
<root>/<kind>/.trash/<key>.<time>.<token>/   what a collection or a repair removed
<root>/<kind>/.leases/<key>/         the lease of the process that makes an artifact
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
"""Version of the layout that this code writes, and the latest that it reads."""

KINDS = ("shards", "checkpoints", "activations", "results")

Ref = tuple[str, str]
"""Kind and key of an artifact."""

RESERVED = (".build", ".work", ".trash", ".leases", ".catalogue")
"""Folders of a kind that hold no published artifacts."""

NODE_FILE = "zarr.json"
DELETED = ".deleted"
"""Suffix of what is being deleted from the trash, and may be incomplete."""
VALID_SUFFIX = ".valid"
"""Suffix of the array that says which rows of a table's column are not null."""

TABLE = "saevx_table"
"""Attribute of a group that is a table."""
PIECES = "saevx_pieces"
"""Attribute of a group whose arrays `0`, `1`, ... are read as one."""

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


def check_path(path: str) -> str:
    """Return the path of an array or table, such as `"a"` or `"groups/of/a"`. Raises StoreError."""
    for name in path.split("/"):
        if fault := name_fault(name):
            raise StoreError(f"{path!r} cannot name an array or table: {fault}; rename it")
    return path


def is_inside(file: str) -> bool:
    """Return whether a path in a manifest, which anyone may have written, stays in its artifact."""
    return all(part not in ("", ".", "..") and "\0" not in part for part in file.split("/"))


def name_fault(name: str) -> str | None:
    """Return why a name cannot be that of a file and a Zarr node; None where it can."""
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
    """Return whether a folder of this name holds the artifacts whose keys begin with it."""
    return len(name) == 2 and set(name) <= set("0123456789abcdef")


def home(root: Path, kind: str, key: str) -> Path:
    """Return the folder of a published artifact."""
    return Path(f"{root}/{kind}/{key[:2]}/{key}")


def builds(root: Path, kind: str) -> Path:
    return root / kind / ".build"


def works(root: Path, kind: str) -> Path:
    return root / kind / ".work"


def work(root: Path, kind: str, key: str) -> Path:
    """Return the folder of the finished parts of an artifact, each of which is a Zarr group."""
    return works(root, kind) / key


def part_home(root: Path, kind: str, key: str, part: int) -> Path:
    return work(root, kind, key) / str(part)


def part_key(key: str, part: int) -> str:
    """Return the key that a part of an artifact has in its lease and its manifest."""
    return xxhash.xxh3_128_hexdigest(f"{key}/{part}".encode())


def build_name(key: str, owner: str) -> str:
    """Return a fresh name for a draft; `owner_of` returns its owner."""
    return f"{key}.{owner}.{os.urandom(4).hex()}"


def owner_of(build: str) -> str:
    """Return the owner in the name of a draft's folder, "" where there is none."""
    return build.partition(".")[2].rpartition(".")[0]


def trash(root: Path, kind: str) -> Path:
    return root / kind / ".trash"


def trash_name(key: str) -> str:
    """Return a fresh name in the trash, which has the key and the time (UTC)."""
    return f"{key}.{utc_stamp()}.{os.urandom(4).hex()}"


def leases(root: Path, kind: str) -> Path:
    return root / kind / ".leases"


def catalogue_file(root: Path, kind: str, form: str) -> Path:
    """Return the catalogue of a kind; `form` names the format of its facts."""
    return root / kind / ".catalogue" / f"{form}.msgpack"


def owner_file(lease: Path) -> Path:
    """Return the file that names the owner of a lease; its mtime is the last heartbeat."""
    return lease / "owner.json"


def clock_file(leases: Path) -> Path:
    """Return the file whose mtime, once it is touched, is the file server's time."""
    return leases / ".clock"


def trashed(name: str) -> tuple[str, float] | None:
    """Return key and time (seconds since 1970) in a name in the trash; None for another name."""
    key, _, rest = name.partition(".")
    try:
        moved = calendar.timegm(time.strptime(rest.partition(".")[0], UTC_STAMP))
    except ValueError:
        return None
    return (key, float(moved)) if is_key(key) else None


def runs(root: Path) -> Path:
    """Return the folder of recorded runs, with a folder for each experiment file."""
    return root / ".runs"


def pins(root: Path) -> Path:
    return root / ".pins"


def pin_file(root: Path, kind: str, key: str) -> Path:
    return pins(root) / f"{kind}.{key}.json"


def collectors(root: Path) -> Path:
    """Return the folder where a collection announces that it is about to move artifacts."""
    return root / ".gc"


def dropped(root: Path, kind: str) -> Path:
    """Return the folder of manifests of evicted artifacts, which a run can make again."""
    return root / ".dropped" / kind


def dropped_file(root: Path, kind: str, key: str) -> Path:
    return dropped(root, kind) / f"{key}.json"


def node_file(path: str) -> str:
    """Return the path of a node's metadata file within its artifact; `""` is the root node."""
    return f"{path}/{NODE_FILE}" if path else NODE_FILE
