"""Store artifacts on disk. A store finds them by kind and key; a draft writes a new one.

It knows nothing about specs. Importing it does not import numpy, polars or Zarr.
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
