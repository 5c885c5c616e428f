"""What a machine knows beyond specs: where datasets are, and what they contained before.

Keys leave dataset roots out, so computing a key may need files on disk. A `Site` says where to
find them and caches their fingerprints. So a plan does not list ImageNet each time, and a finished
table is still found when its dataset has been deleted.
"""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import xxhash

from spec.errors import DatasetError
from spec.files.digests import Digests, ShowProgress, decode, encode, show_nothing


@dataclass(frozen=True)
class Fingerprint:
    """Identifies files on disk by their content, or by their names and sizes."""

    digest: str
    """xxh3_128 in hex."""
    n: int
    """Number of files."""


class Site:
    """Where datasets are on this machine, and their fingerprints.

    data_roots: dataset name -> folder, for specs that are built without a root.
    cache: folder that keeps fingerprints between processes, if any.
    """

    def __init__(
        self, data_roots: Mapping[str, str | Path] | None = None, cache: Path | None = None
    ) -> None:
        self.data_roots = {name: Path(root) for name, root in (data_roots or {}).items()}
        self.cache = cache
        self.show_progress: ShowProgress = show_nothing
        """Shows how many files have been read to identify them."""
        self._seen: dict[str, Fingerprint] = {}
        self._digests: dict[str, Digests] = {}
        self._frozen = False
        self._refresh = False
        self._on_disk_only = False

    def frozen(self) -> Self:
        """Return a view of this site that takes each fingerprint once.

        One plan uses one view, so it sees one state of the disk.
        """
        if self._frozen:
            return self
        view = copy(self)
        view._seen, view._frozen = {}, True
        return view

    def refreshing(self) -> Self:
        """Return a view that takes every fingerprint again and caches it for later sites."""
        view = copy(self)
        view._seen, view._frozen, view._refresh = {}, False, True
        return view

    def on_disk_only(self) -> Self:
        """Return a frozen view that only believes the disk, and writes nothing.

        Cached fingerprints do not stand in for missing files there.
        """
        view = copy(self)
        view._seen, view._frozen, view._on_disk_only = {}, True, True
        return view

    def showing(self, progress: ShowProgress) -> Self:
        """Return a view that shows how many files have been read to identify them."""
        view = copy(self)
        view.show_progress = progress
        return view

    def data_root(self, name: str, root: str | None) -> Path:
        """Return `root` when given, else the configured folder of dataset `name`.

        Raises DatasetError when there is neither.
        """
        if root is not None:
            return Path(os.path.abspath(os.path.expanduser(root)))
        if name in self.data_roots:
            return self.data_roots[name]
        raise DatasetError(
            f"no folder is known for the dataset {name!r}: pass root=..., or put "
            f'`{name} = "/path/to/folder"` under [data] in saevx.toml'
        )

    def state_of(self, kind: str, key: str | None) -> str | None:
        """Return "present", "missing" or why the state is unknown; None without a store.

        `key` is None where it cannot be computed.
        """
        return None

    def fingerprint(
        self,
        name: str,
        is_current: Callable[[str], bool],
        compute: Callable[[], tuple[Fingerprint, str]],
        identity: Callable[[], str | None] | None = None,
        *,
        place: str | None = None,
    ) -> Fingerprint:
        """Return the fingerprint of files, computed only when the cached one is out of date.

        `compute` returns a fingerprint and a stamp; `is_current(stamp)` is a cheap check that the
        files still match. When files are missing (both may raise DatasetError), the cached
        fingerprint is used, so that what was made from them keeps its key.

        `name` says what the files are and where they are. `identity` returns a name without paths,
        or None if there is none. When nothing is cached under `name`, the fingerprint recorded
        under the identity is used, if all those recorded agree. Otherwise the error is raised.

        `place` is the folder or file that a spec's `root` or `path` names; see `cached_places`.
        """
        if self._frozen and name in self._seen:
            return self._seen[name]
        portable = identity() if identity is not None else None
        cached = self._read_cache(name)
        try:
            if cached and cached[1] and not self._refresh and is_current(cached[1]):
                fingerprint = cached[0]
            else:
                fingerprint, stamp = compute()
                entry = {"what": name, "place": place, "stamp": stamp, **asdict(fingerprint)}
                self._write_entry(self._file(name), entry)
        except DatasetError as error:
            if self._on_disk_only:
                raise
            if cached is None or name == portable:
                fingerprint = self._find_by_identity(portable, error)
            else:
                fingerprint = cached[0]
        else:
            self._record_identity(portable, fingerprint)
        self._seen[name] = fingerprint
        return fingerprint

    def digests(self, name: str) -> Digests:
        """Return the digests that were remembered of the files called `name`."""
        if name not in self._digests and (file := self._file(f"digests of {name}")):
            with suppress(OSError):
                self._digests[name] = decode(file.with_suffix(".digests").read_bytes())
        return self._digests.get(name, {})

    def remember_digests(self, name: str, digests: Digests) -> None:
        """Keep digests of files for this site, and in its cache for later ones."""
        self._digests[name] = digests
        if file := self._file(f"digests of {name}"):
            self._write(file.with_suffix(".digests"), encode(digests))

    def cached_places(self) -> list[str]:
        """Return the folders and files whose fingerprints are cached."""
        files = sorted(self.cache.glob("*.json")) if self.cache else []
        places = (_read(file).get("place") for file in files)
        return list(dict.fromkeys(str(place) for place in places if place))

    def _record_identity(self, identity: str | None, fingerprint: Fingerprint) -> None:
        # One file for each content: two processes may record different ones at once.
        file = self._file(f"content of {identity}") if identity is not None else None
        if file is not None:
            file = file.with_suffix(f".{fingerprint.digest}.json")
            if not os.path.exists(file):
                self._write_entry(file, {"identity": identity, **asdict(fingerprint)})

    def _find_by_identity(self, identity: str | None, error: DatasetError) -> Fingerprint:
        """Return the only fingerprint recorded under an identity. Raises `error` without one."""
        file = self._file(f"content of {identity}") if identity is not None else None
        if file is None:
            raise error
        found = [_read(path) for path in file.parent.glob(f"{file.stem}.*.json")]
        if not any(found):
            raise error
        if len(found) > 1:
            raise DatasetError(
                f"{error}; {len(found)} different contents of {identity} were recorded earlier, so "
                "its key cannot be computed: restore the dataset, or pass the root that it had"
            ) from error
        return Fingerprint(str(found[0]["digest"]), int(found[0]["n"]))

    def _file(self, name: str) -> Path | None:
        if self.cache is None:
            return None
        return self.cache / f"{xxhash.xxh3_128_hexdigest(name.encode())}.json"

    def _read_cache(self, name: str) -> tuple[Fingerprint, str] | None:
        """Return a cached fingerprint and its stamp.

        Entries that earlier versions wrote record no place: their stamp is empty, so that they are
        computed again while the files are there.
        """
        file = self._file(name)
        entry = {} if file is None else _read(file)
        if entry.get("what") != name or "stamp" not in entry:
            return None
        stamp = str(entry["stamp"]) if "place" in entry else ""
        return Fingerprint(str(entry["digest"]), int(entry["n"])), stamp

    def _write_entry(self, file: Path | None, entry: dict[str, Any]) -> None:
        if file is not None:
            self._write(file, json.dumps(entry).encode())

    def _write(self, file: Path, data: bytes) -> None:
        if self._on_disk_only:
            return
        scratch = file.with_name(f"{file.name}.{os.getpid()}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_bytes(data)
            scratch.replace(file)
        except OSError:  # without write access to the store nothing is cached
            with suppress(OSError):
                scratch.unlink(missing_ok=True)


def _read(file: Path) -> dict[str, Any]:
    """Return a cache entry, or an empty dict where it cannot be read, which only costs time."""
    try:
        entry = json.loads(file.read_text())
        return {**entry, "digest": str(entry["digest"]), "n": int(entry["n"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


_make_default: Callable[[], Site] = Site


def current_site() -> Site:
    """Return the site that `spec.key` uses: that of `set_default_site`, else an empty one."""
    return _make_default()


def set_default_site(make: Callable[[], Site]) -> None:
    """Make `current_site` call `make`. saevx passes one that knows the store and saevx.toml."""
    global _make_default
    _make_default = make
