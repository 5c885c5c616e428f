"""What a machine knows that a spec does not say: where datasets lie, and what lay there before.

Specs leave roots out of their keys, so computing a key may need to look at files. A `Site` says
where to look, and remembers what was seen, so that an ImageNet is not listed at every plan and a
finished table can still be found after its dataset is gone.
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

from .errors import DatasetError


@dataclass(frozen=True)
class Fingerprint:
    """The name by content of something on disk."""

    digest: str
    """xxh3_128 of its content, or of its listing, in hex."""
    n: int
    """How many files it is made of."""


class Site:
    """Where datasets lie on this machine, and the fingerprints taken of them.

    data_roots: dataset name -> folder, for specs that are built without a root.
    memory: folder to remember fingerprints in, if any.
    """

    def __init__(
        self, data_roots: Mapping[str, str | Path] | None = None, memory: Path | None = None
    ) -> None:
        self.data_roots = {name: Path(root) for name, root in (data_roots or {}).items()}
        self.memory = memory
        self._seen: dict[str, Fingerprint] = {}
        self._frozen = False

    def frozen(self) -> Self:
        """This site as it is now: what was looked at once is not looked at again.

        For the length of one plan or one reading, so that it sees one state of the disk, once.
        """
        if self._frozen:
            return self
        view = copy(self)
        view._seen, view._frozen = {}, True
        return view

    def data_root(self, name: str, root: str | None) -> Path:
        """`root` when given, else the configured folder of dataset `name`.

        Raises DatasetError when there is neither.
        """
        if root is not None:
            return Path(os.path.abspath(os.path.expanduser(root)))
        if name in self.data_roots:
            return self.data_roots[name]
        raise DatasetError(
            f"no folder is known for the dataset {name!r}: pass root=..., "
            f'or put `{name} = "/its/folder"` under [data] in saevx.toml'
        )

    def state_of(self, kind: str, key: str | None) -> str | None:
        """Return "present", "missing" or why the state is unknown; None without a store.

        `key` is None where it cannot be computed.
        """
        return None

    def fingerprint(
        self,
        what: str,
        holds: Callable[[str], bool],
        take: Callable[[], tuple[Fingerprint, str]],
        identity: Callable[[], str | None] | None = None,
    ) -> Fingerprint:
        """The fingerprint of `what`, taken anew only when what is remembered no longer `holds`.

        `take` gives a fingerprint and a stamp; `holds(stamp)` says cheaply whether it still stands.
        When the thing is gone or incomplete (both may raise DatasetError), the remembered
        fingerprint stands: what was made from it keeps its key. With none, the error is raised.

        `what` says where the thing lies. `identity` gives a name that does not, if there is one by
        which it is known everywhere; then, as a last resort, what was seen under that name stands,
        as long as it was the same wherever it was seen.
        """
        if self._frozen and what in self._seen:
            return self._seen[what]
        name = identity() if identity is not None else None
        remembered = self._recall(what)
        try:
            if remembered is not None and holds(remembered[1]):
                fingerprint, stamp = remembered
            else:
                fingerprint, stamp = take()
                self._remember(what, fingerprint, stamp)
        except DatasetError as error:
            if remembered is None or what == name:
                fingerprint = self._only_one_seen(name, error)
            else:
                fingerprint = remembered[0]
        else:
            self._note(name, fingerprint)
        self._seen[what] = fingerprint
        return fingerprint

    def _note(self, identity: str | None, fingerprint: Fingerprint) -> None:
        # A file for each content, so that none gets lost when two processes note at once.
        file = self._file(f"content of {identity}") if identity is not None else None
        if file is not None:
            file = file.with_suffix(f".{fingerprint.digest}.json")
            if not os.path.exists(file):
                self._write(file, {"identity": identity, **asdict(fingerprint)})

    def _only_one_seen(self, identity: str | None, error: DatasetError) -> Fingerprint:
        """What was seen under a name, if it was always the same; raises `error` when never."""
        file = self._file(f"content of {identity}") if identity is not None else None
        if file is None:
            raise error
        seen = [_read(path) for path in file.parent.glob(f"{file.stem}.*.json")]
        if not any(seen):
            raise error
        if len(seen) > 1:
            raise DatasetError(
                f"{error}; {len(seen)} different contents of {identity} were seen earlier, so what "
                "it was here cannot be told: put it back, or say where it lay then"
            ) from error
        return Fingerprint(str(seen[0]["digest"]), int(seen[0]["n"]))

    def _file(self, what: str) -> Path | None:
        if self.memory is None:
            return None
        return self.memory / f"{xxhash.xxh3_128_hexdigest(what.encode())}.json"

    def _recall(self, what: str) -> tuple[Fingerprint, str] | None:
        file = self._file(what)
        entry = {} if file is None else _read(file)
        if entry.get("what") != what or "stamp" not in entry:
            return None
        return Fingerprint(str(entry["digest"]), int(entry["n"])), str(entry["stamp"])

    def _remember(self, what: str, fingerprint: Fingerprint, stamp: str) -> None:
        file = self._file(what)
        if file is not None:
            self._write(file, {"what": what, "stamp": stamp, **asdict(fingerprint)})

    def _write(self, file: Path, entry: dict[str, Any]) -> None:
        scratch = file.with_name(f"{file.name}.{os.getpid()}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(json.dumps(entry))
            scratch.replace(file)
        except OSError:  # a store that cannot be written to only loses the memory
            with suppress(OSError):
                scratch.unlink(missing_ok=True)


def _read(file: Path) -> dict[str, Any]:
    """An entry of the memory; empty where it cannot be read, which only costs time."""
    try:
        entry = json.loads(file.read_text())
        return {**entry, "digest": str(entry["digest"]), "n": int(entry["n"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


_make_default: Callable[[], Site] = Site


def current_site() -> Site:
    """The site that `spec.key` uses: what `set_default_site` said, else one that knows nothing."""
    return _make_default()


def set_default_site(make: Callable[[], Site]) -> None:
    """Let `current_site` call `make`: saevx gives one that knows the store and saevx.toml."""
    global _make_default
    _make_default = make
