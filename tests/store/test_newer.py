"""What a later saevx wrote stays, and so does all that it may need; collections go on beside it."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from store import LAYOUT, NewerLayout, Store, StoredArtifact
from store.artifact.inputs import glimpse
from store.gc.collector import collect, evictable
from store.gc.reachability import Reachability
from store.gc.roots import pin
from store.gc.scan import below
from store.io import digest
from store.layout import Ref, dropped
from store.trash.contents import restore
from store.trash.move import identity_of, move_to_trash_if_same

pytestmark = pytest.mark.usefixtures("no_fsync")

A, B, C, D = (f"{digit}{'0' * 31}" for digit in "abcd")


def put(store: Store, make: Any, key: str, *below: str, kind: str = "results") -> StoredArtifact:
    parents = {f"p{i}": {"kind": kind, "key": k} for i, k in enumerate(below)}
    artifact: StoredArtifact = make(store, key, kind, parents=parents, spec={"fields": {}})
    return artifact


def make_newer(artifact: StoredArtifact, **changes: Any) -> bytes:
    """Writes the manifest as a later saevx may; `changes` are to what it says, None removes."""
    file = artifact.path / "zarr.json"
    node = json.loads(file.read_bytes())
    said = node["attributes"]["saevx"] | {"layout": LAYOUT + 1} | changes
    node["attributes"]["saevx"] = {n: value for n, value in said.items() if value is not None}
    node["attributes"]["xxh3"] = ""
    body = json.dumps(node, indent=2).removesuffix('"\n  }\n}').encode()
    data = body + digest(body).encode() + b'"\n  }\n}\n'
    file.write_bytes(data)
    return data


def survey(store: Store) -> Reachability:
    found = Reachability(store, grace_s=0.0)
    found.refresh()
    return found


def stale(store: Store) -> set[str]:
    return {item.ref[1] for item in survey(store).stale({"Thing": 2})}


UNCLEAR = [
    {"parents": None},
    {"parents": [["results", A]]},
    {"parents": {"a": {"kind": "graphs", "key": A}}},
    {"parents": {"a": {"kind": "results", "hash": A}}},
    {"spec": None},
    {"spec": "elsewhere"},
]


def test_what_it_was_made_from_stays_and_the_rest_goes(store: Store, make: Any) -> None:
    for key, parents in ((A, []), (B, [A]), (C, [B]), (D, [])):
        last = put(store, make, key, *parents)
    data = make_newer(store.open("results", C))
    assert stale(store) == {D}
    found = survey(store)
    assert "a later saevx" in found.why(("results", A))[0][1].root
    assert [link for link, _ in found.why(("results", A))] == [
        ("results", key) for key in (C, B, A)
    ]
    done = collect(found, list(found.stale({})))
    assert [item.ref[1] for item in done.moved] == [D]
    assert (last.path.parent.parent / "c0" / C / "zarr.json").read_bytes() == data


def test_by_its_spec_it_keeps_what_lies_further_down(store: Store, make: Any) -> None:
    put(store, make, A)
    spec = {"fields": {"scorer": [{"fields": {"shards": {"kind": "results", "key": A}}}]}}
    make_newer(put(store, make, B), spec=spec)
    assert stale(store) == set()


@pytest.mark.parametrize("changes", UNCLEAR)
def test_where_it_does_not_tell_everything_stays(store: Store, make: Any, changes: Any) -> None:
    put(store, make, A)
    damaged = put(store, make, B)
    os.unlink(damaged.path / "a group" / "zarr.json")
    put(store, make, D, kind="shards")
    pin(store, ("results", A), [("results", A), ("shards", D)])
    make_newer(newer := put(store, make, C), **changes)
    found = survey(store)
    assert {item.ref[1] for item in found.stale({"Thing": 2})} == {B}
    drop, kept = evictable(found, "shards", lambda manifest: None)
    assert drop == []
    assert "upgrade saevx to know" in kept[0][2]
    newer.path.rename(newer.path.with_name("x"))
    found.refresh()
    assert {item.ref[1] for item in found.stale({})} == {B}
    drop, _ = evictable(found, "shards", lambda manifest: None)
    assert [item.ref[1] for item in drop] == [D]


def test_it_is_not_given_up_nor_what_it_may_read(store: Store, make: Any) -> None:
    shards: Ref = "shards", A
    put(store, make, A, kind="shards")
    make_newer(put(store, make, B, kind="shards"))
    parents = {"shards": {"kind": "shards", "key": A}}
    make_newer(make(store, C, parents=parents, spec={"fields": {}}))
    drop, kept = evictable(survey(store), "shards", lambda manifest: None)
    assert drop == []
    assert [(ref, why) for ref, _, why in kept] == [
        (shards, "needed by results c0000000, which a later saevx wrote")
    ]


@pytest.mark.parametrize("changes", [{}, *UNCLEAR])
def test_what_a_later_one_gave_up_keeps_as_much(store: Store, make: Any, changes: Any) -> None:
    put(store, make, A)
    make(store, B, parents={"x": {"kind": "shards", "key": D}}, spec={"fields": {}})
    pin(store, ("results", B), [("results", B)])
    newer = make(
        store, D, "shards", parents={"a": {"kind": "results", "key": A}}, spec={"fields": {}}
    )
    data = make_newer(newer, **changes)
    file = dropped(store.root, "shards") / f"{D}.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    identity = identity_of(newer.path)
    assert identity is not None
    move_to_trash_if_same(store.root, "shards", D, newer.path, identity)
    assert stale(store) == set()


def test_its_own_use_is_refused(store: Store, make: Any) -> None:
    artifact = put(store, make, A)
    put(store, make, B, A)
    make_newer(artifact)
    for use in (store.find, store.open, store.absence, store.look):
        with pytest.raises(NewerLayout, match="Upgrade saevx"):
            use("results", A)
    assert store.open("results", B).verify() == []
    assert below(store, ("results", B)) == [("results", B), ("results", A)]
    identity = identity_of(artifact.path)
    assert identity is not None
    move_to_trash_if_same(store.root, "results", A, artifact.path, identity)
    with pytest.raises(NewerLayout):
        restore(store, "results", A)


def test_a_glimpse_of_anything(store: Store, make: Any) -> None:
    artifact = put(store, make, A, B)
    assert glimpse(artifact.path) == ("Thing", (("results", B),))
    for text in ("[]", "{}", '{"attributes": {"saevx": []}}', "torn", '{"attributes": null}'):
        (artifact.path / "zarr.json").write_text(text)
        assert glimpse(artifact.path) == ("", None)
    (artifact.path / "zarr.json").write_text('{"attributes": {"saevx": {"type": 3}}}')
    assert glimpse(artifact.path) == ("", None)
