"""Where: artifacts at rest. A store finds them by kind and key; a draft makes a new one.

Knows nothing of what its artifacts mean. Importing it costs neither numpy, polars nor Zarr.
"""

from store.artifact import Artifact
from store.draft import Draft
from store.errors import CorruptArtifact, MissingArtifact, NewerLayout, StoreError
from store.holder import Holder
from store.layout import KINDS, LAYOUT
from store.leases import Lease
from store.manifest import Manifest, Reference
from store.store import Store

__all__ = [
    "KINDS",
    "LAYOUT",
    "Artifact",
    "CorruptArtifact",
    "Draft",
    "Holder",
    "Lease",
    "Manifest",
    "MissingArtifact",
    "NewerLayout",
    "Reference",
    "Store",
    "StoreError",
]
