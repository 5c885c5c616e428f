"""Where: artifacts at rest. A store finds them by kind and key; a draft makes a new one.

Knows nothing of what its artifacts mean. Importing it costs neither numpy, polars nor Zarr.
"""

from store.artifact.draft import Draft
from store.artifact.manifest import Manifest, Reference
from store.artifact.reader import StoredArtifact
from store.errors import CorruptArtifact, MissingArtifact, NewerLayout, StoreError
from store.layout import KINDS, LAYOUT
from store.locks.lease import Lease, LeaseOwner
from store.store import Store

__all__ = [
    "KINDS",
    "LAYOUT",
    "CorruptArtifact",
    "Draft",
    "Lease",
    "LeaseOwner",
    "Manifest",
    "MissingArtifact",
    "NewerLayout",
    "Reference",
    "Store",
    "StoreError",
    "StoredArtifact",
]
