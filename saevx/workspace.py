"""The workspace: the store in use, and what this machine knows about datasets."""

from __future__ import annotations

from pathlib import Path

from saevx.config import open_store, read_config
from spec import Site, set_default_site
from store import Store


class Workspace(Site):
    """A store, the dataset roots of saevx.toml, and fingerprints remembered inside the store.

    They are kept in the store so that whoever can read a finished table can also find it, from
    another machine or after the dataset is gone.
    """

    def __init__(self, store: Store, data_roots: dict[str, Path]) -> None:
        super().__init__(data_roots, cache=store.root / ".fingerprints")
        self.store = store

    @property
    def reports(self) -> Path:
        """Where the reports of experiments are saved."""
        return self.store.root / "reports"

    def state_of(self, kind: str, key: str | None) -> str | None:
        if key is None:
            return "unknown: its dataset cannot be found"
        return "missing" if self.store.find(kind, key) is None else "present"


def open_workspace(root: str | Path | None = None) -> Workspace:
    """The workspace of the current folder.

    Its store is that of `open_store`, its dataset roots are those of saevx.toml.
    Raises ConfigError when saevx.toml cannot be used.
    """
    config = read_config(Path.cwd())
    return Workspace(open_store(root, config), config.data_roots)


# `spec.key` and a spec's tree in a notebook then see the same datasets and store as `saevx run`.
set_default_site(open_workspace)
