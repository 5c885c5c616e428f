"""The workspace: the store in use, and where this machine has its datasets."""

from __future__ import annotations

from pathlib import Path

from saevx.config import find_config, open_store, read_config
from spec import Site, set_default_site
from store import Store


class Workspace(Site):
    """A store, the dataset roots of saevx.toml, and fingerprints of datasets.

    Fingerprints are cached in the store, so that a finished table is found from another machine
    too, and after its dataset was deleted.
    """

    def __init__(self, store: Store, data_roots: dict[str, Path]) -> None:
        super().__init__(data_roots, cache=store.root / ".fingerprints")
        self.store = store

    @property
    def reports(self) -> Path:
        """The folder that the reports of experiments are saved in."""
        return self.store.root / "reports"

    def state_of(self, kind: str, key: str | None) -> str | None:
        if key is None:
            return "unknown: its dataset cannot be found"
        return "missing" if self.store.find(kind, key) is None else "present"


def open_workspace(root: str | Path | None = None) -> Workspace:
    """Return a workspace with the store of `open_store` and the dataset roots of saevx.toml.

    Raise ConfigError if a saevx.toml is not valid.
    """
    return Workspace(open_store(root), read_config(find_config(Path.cwd())).data)


# So `spec.key` and a spec's tree in a notebook see the same datasets and store as `saevx run`.
set_default_site(open_workspace)
