"""What a machine knows that a spec does not say: where datasets lie, and what lay there before.

Specs leave roots out of their keys, so computing a key may need to look at files. A `Site` says
where to look, and remembers what was seen, so that an ImageNet is not listed at every plan and a
finished table can still be found after its dataset is gone.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from .errors import DatasetError

if TYPE_CHECKING:
    from .base import Artifact


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
    memory: folder to remember fingerprints in; None remembers within this object only.
    """

    def __init__(
        self, data_roots: Mapping[str, str | Path] | None = None, memory: Path | None = None
    ) -> None:
        self.data_roots = {name: Path(root) for name, root in (data_roots or {}).items()}
        self.memory = memory
        self._seen: dict[str, Fingerprint] = {}

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

    def state_of(self, artifact: "Artifact") -> str | None:
        """Where the making of an artifact stands, in a word; None where nobody knows a store."""
        return None

    def fingerprint(
        self,
        what: str,
        holds: Callable[[str], bool],
        take: Callable[[], tuple[Fingerprint, str]],
    ) -> Fingerprint:
        """The fingerprint of `what`, taken anew only when what is remembered no longer `holds`.

        `take` gives a fingerprint and a stamp; `holds(stamp)` says cheaply whether it still stands.
        When the thing is gone or incomplete (both may raise DatasetError), the remembered
        fingerprint stands: what was made from it keeps its key. With none, the error is raised.
        """
        if what in self._seen:
            return self._seen[what]
        remembered = self._recall(what)
        try:
            if remembered is not None and holds(remembered[1]):
                return self._keep(what, remembered[0])
            fingerprint, stamp = take()
        except DatasetError:
            if remembered is None:
                raise
            return self._keep(what, remembered[0])
        self._remember(what, fingerprint, stamp)
        return self._keep(what, fingerprint)

    def _keep(self, what: str, fingerprint: Fingerprint) -> Fingerprint:
        self._seen[what] = fingerprint
        return fingerprint

    def _file(self, what: str) -> Path | None:
        if self.memory is None:
            return None
        return self.memory / f"{xxhash.xxh3_128_hexdigest(what.encode())}.json"

    def _recall(self, what: str) -> tuple[Fingerprint, str] | None:
        file = self._file(what)
        if file is None:
            return None
        try:
            entry = json.loads(file.read_text())
            fingerprint = Fingerprint(str(entry["digest"]), int(entry["n"]))
            return (fingerprint, str(entry["stamp"])) if entry["what"] == what else None
        except (OSError, ValueError, KeyError, TypeError):
            return None  # a memory that cannot be read is only a slower plan

    def _remember(self, what: str, fingerprint: Fingerprint, stamp: str) -> None:
        file = self._file(what)
        if file is None:
            return
        entry = {"what": what, "stamp": stamp, **asdict(fingerprint)}
        scratch = file.with_name(f"{file.name}.{os.getpid()}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(json.dumps(entry))
            scratch.replace(file)
        except OSError:
            scratch.unlink(missing_ok=True)  # a read-only store only loses the memory


_make_default: Callable[[], Site] = Site


def current_site() -> Site:
    """The site that `spec.key` uses: what `set_default_site` said, else one that knows nothing."""
    return _make_default()


def set_default_site(make: Callable[[], Site]) -> None:
    """Let `current_site` call `make`: saevx gives one that knows the store and saevx.toml."""
    global _make_default
    _make_default = make
