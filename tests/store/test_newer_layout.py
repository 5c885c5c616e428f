"""Artifacts that a later saevx wrote are refused, and so is collecting a store that holds one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from store import LAYOUT, NewerLayout, Store, StoredArtifact, StoreError
from store.gc.collector import collect
from store.gc.reachability import Reachability
from store.io import digest
from store.layout import dropped
from store.trash.contents import restore
from store.trash.move import identity_of, move_to_trash_if_same

pytestmark = pytest.mark.usefixtures("no_fsync")

A, B = (f"{digit}{'0' * 31}" for digit in "ab")


def make_newer(artifact: StoredArtifact, **changes: Any) -> bytes:
    """Write the manifest as a later saevx may; `changes` are to its fields, None removes one."""
    file = artifact.path / "zarr.json"
    node = json.loads(file.read_bytes())
    fields = node["attributes"]["saevx"] | {"layout": LAYOUT + 1} | changes
    node["attributes"]["saevx"] = {n: value for n, value in fields.items() if value is not None}
    node["attributes"]["xxh3"] = ""
    body = json.dumps(node, indent=2).removesuffix('"\n  }\n}').encode()
    data = body + digest(body).encode() + b'"\n  }\n}\n'
    file.write_bytes(data)
    return data


CHANGES: list[dict[str, Any]] = [{}, {"parents": None}, {"spec": "elsewhere"}, {"files": []}]


@pytest.mark.parametrize("changes", CHANGES)
def test_nothing_is_collected_beside_a_newer_artifact(
    store: Store, make: Any, changes: dict[str, Any]
) -> None:
    make(store, A)
    found = Reachability(store, grace_s=0.0)
    found.refresh()
    stale = list(found.stale({}))
    assert [item.ref[1] for item in stale] == [A]
    make_newer(make(store, B), **changes)
    for _ in range(2):
        with pytest.raises(StoreError, match=rf"{B}.* written by a later saevx.*Upgrade saevx"):
            collect(found, stale)
    assert store.find("results", A) is not None


def test_nothing_is_collected_where_a_later_saevx_evicted(store: Store, make: Any) -> None:
    make(store, A)
    data = make_newer(make(store, B, "shards"))
    file = dropped(store.root, "shards") / f"{B}.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    with pytest.raises(StoreError, match=r"written by a later saevx.*Upgrade saevx"):
        Reachability(store, grace_s=0.0).refresh()


def test_a_newer_artifact_is_refused_and_others_are_read(store: Store, make: Any) -> None:
    artifact = make(store, A)
    make(store, B)
    make_newer(artifact)
    for use in (store.find, store.open, store.absence, store.lookup):
        with pytest.raises(NewerLayout, match="Upgrade saevx"):
            use("results", A)
    assert store.open("results", B).verify() == []
    identity = identity_of(artifact.path)
    assert identity is not None
    move_to_trash_if_same(store.root, "results", A, artifact.path, identity)
    with pytest.raises(NewerLayout):
        restore(store, "results", A)
