"""Drafts: what they refuse, and that an unpublished one leaves nothing."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import polars as pl
import pytest

from store import Store, StoreError

pytestmark = pytest.mark.usefixtures("no_fsync")


def test_draft_that_is_not_published_leaves_nothing(
    store: Store, key: str, fill: Any, entries: Any
) -> None:
    with store.draft("results", key) as draft:
        fill(draft)
        assert len(entries(store, ".build")) == 1
    assert entries(store, ".build") == []

    def interrupted() -> None:
        with store.draft("results", key) as draft, draft.array("x", (9,), "int8") as writer:
            writer.append(np.zeros(3, "int8"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert entries(store, ".build") == []
    assert store.find("results", key) is None


def test_draft_is_used_in_a_with_statement_and_published_once(
    store: Store, key: str, publish: Any
) -> None:
    draft = store.draft("results", key)
    with pytest.raises(StoreError, match="with statement"):
        draft.write("x", np.zeros(1))
    with draft:
        publish(draft)
        with pytest.raises(StoreError, match="is not open"):
            publish(draft)
        with pytest.raises(StoreError, match="is not open"):
            draft.table("t", pl.DataFrame({"a": [1]}))


def test_unfinished_arrays_are_named(store: Store, key: str, publish: Any) -> None:
    with store.draft("results", key) as draft:
        draft.array("left open", (1,), "int8")
        with pytest.raises(StoreError, match="unfinished arrays or groups: 'left open'"):
            publish(draft)


def test_draft_with_a_failed_group_is_not_published(
    store: Store, key: str, publish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.draft("results", key) as draft:
        monkeypatch.setattr(os, "write", lambda fd, view: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            draft.table("t", pl.DataFrame({"a": [1]}))
        monkeypatch.undo()
        with pytest.raises(StoreError, match="unfinished arrays or groups: 't'"):
            publish(draft)
    assert store.find("results", key) is None


def test_a_draft_with_a_truncated_file_is_not_published(
    store: Store, key: str, fill: Any, publish: Any, entries: Any
) -> None:
    with store.draft("results", key) as draft:
        fill(draft)
        (build,) = entries(store, ".build")
        os.truncate(store.root / "results" / ".build" / build / "patches" / "c.0.0.0", 3)
        with pytest.raises(StoreError, match=r"patches/c\.0\.0\.0 is \d+ bytes short"):
            publish(draft)
    assert store.find("results", key) is None


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"x": float("nan")}, "attributes.x is nan"),
        ({"x": [1, {"y": float("inf")}]}, r"attributes.x\[1\].y is inf"),
        ({"x": np.float64(1)}, "float64"),
        ({"x": np.int64(1)}, "int64"),
        ({"x": 1 << 64}, "attributes.x"),
        ({"x": {1, 2}}, "set"),
        ({1: 2}, "attributes has the name 1"),
        ({"x": b"y"}, "bytes"),
        ({"x": "\ud800"}, "attributes.x"),
    ],
)
def test_attributes_that_json_would_change_are_refused(
    store: Store, key: str, make: Any, value: Any, says: str
) -> None:
    with pytest.raises(StoreError, match=says):
        make(store, key, attributes=value)
    assert store.find("results", key) is None


@pytest.mark.parametrize(
    "name",
    ["", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", ".a", "__a", "a/__b", "zarr.json", "a\nb",
     "a\0b", "x" * 256, "ü" * 128, "\ud800"],
)  # fmt: skip
def test_invalid_names_are_refused(store: Store, key: str, publish: Any, name: str) -> None:
    with store.draft("results", key) as draft:
        with pytest.raises(StoreError, match="rename it"):
            draft.write(name, np.zeros(1))
        if name != "\ud800":  # polars itself refuses that one
            with pytest.raises(StoreError, match="rename it"):
                draft.table("t", pl.DataFrame({name: [1]}))
        assert publish(draft).manifest.files == {}


def test_a_name_can_be_used_once(store: Store, key: str) -> None:
    with store.draft("results", key) as draft:
        draft.write("a", np.zeros(1))
        draft.write("g/a", np.zeros(1))
        draft.table("t", pl.DataFrame({"c": [1]}))
        with pytest.raises(StoreError, match="has 'a' already"):
            draft.write("a", np.zeros(1))
        with pytest.raises(StoreError, match="already"):
            draft.table("g", pl.DataFrame({"c": [1]}))
        with pytest.raises(StoreError, match="in the array 'a'"):
            draft.write("a/b", np.zeros(1))
        with pytest.raises(StoreError, match="in the table 't'"):
            draft.write("t/d", np.zeros(1))


def test_parents_are_checked(store: Store, key: str, make: Any) -> None:
    with pytest.raises(StoreError, match="not a kind"):
        make(store, key, parents={"p": {"kind": "shard", "key": key}})
    with pytest.raises(StoreError, match="not a key"):
        make(store, key, parents={"p": {"kind": "shards", "key": "F" * 32}})


def test_a_forked_child_does_not_remove_the_draft(store: Store, key: str, publish: Any) -> None:
    with store.draft("shards", key) as draft:
        draft.write("values", np.arange(3))
        child = os.fork()
        if child == 0:
            draft.__exit__(None, None, None)
            os._exit(0)
        os.waitpid(child, 0)
        made = publish(draft)
    assert made.verify() == []
