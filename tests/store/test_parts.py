"""Parts of an artifact are hidden until joined, and join to the same bytes as one draft."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store import CorruptArtifact, MissingArtifact, Store, StoreError
from store.arrays.grid import DTYPES
from store.index.catalogue import Catalogue
from store.layout import part_home, trash, work
from store.trash.contents import restore

from .killing import dying

pytestmark = pytest.mark.usefixtures("no_fsync")

KIND = "results"


def write_part(draft: Any, values: Any, **options: Any) -> None:
    with draft.array("a", values.shape, values.dtype, **options) as writer:
        writer.append(values)


def make_part(
    store: Store, key: str, publish: Any, part: int, values: Any = None, **options: Any
) -> Any:
    values = np.arange(4, dtype="f4") + 4 * part if values is None else values
    with store.draft(KIND, key, part) as draft:
        write_part(draft, values, **options)
        return publish(draft)


def seal(store: Store, key: str, publish: Any, n: int) -> Any:
    with store.draft(KIND, key) as draft:
        draft.join("a", [store.find_part(KIND, key, i).array("a") for i in range(n)])
        return publish(draft)


def files_of(artifact: Any) -> dict[str, bytes]:
    """Bytes of all files except the manifest, which holds the time."""
    names = artifact.manifest.files
    assert artifact.verify() == []
    return {name: (artifact.path / name).read_bytes() for name in names}


# Out of sight.


def test_a_part_is_found_as_a_part_and_not_as_an_artifact(store: Store, key: str, publish: Any):
    assert store.find_part(KIND, key, 0) is None
    made = make_part(store, key, publish, 3)
    found = store.find_part(KIND, key, 3)
    assert found.manifest == made.manifest
    assert found.path == store.root / KIND / ".work" / key / "3"
    assert found.array("a").read().tolist() == [12, 13, 14, 15]
    assert found.verify() == []
    assert store.parts(KIND, key) == [3]

    assert store.find_part(KIND, key, 0) is None
    assert store.find_part("shards", key, 3) is None
    assert store.find_part(KIND, "f" * 32, 3) is None
    assert store.find(KIND, key) is None
    assert store.absence(KIND, key) == "not in the store"
    assert list(store.keys(KIND)) == []
    assert list(store.scan()) == []
    assert store.match(key[:6]) == []
    assert Catalogue(store, lambda manifest: {}, "test").entries() == []
    with pytest.raises(MissingArtifact):
        store.open(KIND, key)


def test_a_part_passes_neither_for_its_artifact_nor_for_another_part(
    store: Store, key: str, publish: Any
):
    """A complete draft of a part may get into the trash, and people move folders."""
    part = make_part(store, key, publish, 0).path
    shutil.copytree(part, part.with_name("1"))
    assert store.find_part(KIND, key, 0) is not None
    assert store.find_part(KIND, key, 1) is None
    home = store.root / KIND / key[:2] / key
    shutil.copytree(part, home)
    assert "its manifest is that of" in (store.absence(KIND, key) or "")
    trash(store.root, KIND).mkdir()
    home.rename(trash(store.root, KIND) / f"{key}.20200101T000000Z.00000000")
    with pytest.raises(MissingArtifact, match="its manifest is that of"):
        restore(store, KIND, key)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "short": lambda part: os.truncate(part / "a" / "c.0", 3),
    "long": lambda part: (part / "a" / "c.0").write_bytes(bytes(999)),
    "without a file": lambda part: (part / "a" / "c.0").unlink(),
    "without a manifest": lambda part: (part / "zarr.json").unlink(),
    "torn manifest": lambda part: os.truncate(part / "zarr.json", 70),
    "empty": lambda part: (shutil.rmtree(part), part.mkdir()),
    "a file": lambda part: (shutil.rmtree(part), part.write_text("what is this")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_is_absent_and_replaced(
    store: Store, key: str, publish: Any, entries: Any, damage: str
):
    DAMAGES[damage](make_part(store, key, publish, 1).path)
    assert store.find_part(KIND, key, 1) is None
    again = make_part(store, key, publish, 1)
    assert store.find_part(KIND, key, 1).manifest == again.manifest
    assert again.verify() == []
    # One that is empty is replaced where it stands.
    assert len(entries(store, ".trash")) == (damage != "empty")
    assert not any(name.startswith(key) for name in entries(store, ".trash"))
    assert entries(store, ".build") == []


def test_a_complete_part_is_not_replaced(store: Store, key: str, publish: Any, entries: Any):
    first = make_part(store, key, publish, 1)
    assert make_part(store, key, publish, 1, np.zeros(2)).manifest == first.manifest
    assert entries(store, ".trash") == []
    with pytest.raises(StoreError, match="another spec"), store.draft(KIND, key, 1) as draft:
        publish(draft, canonical='{"n":2}')


def test_a_part_that_is_not_published_leaves_nothing(store: Store, key: str, entries: Any):
    with store.draft(KIND, key, 1) as draft:
        write_part(draft, np.zeros(3))
    assert entries(store, ".build") == []
    assert store.parts(KIND, key) == []


# Joining.


@st.composite
def parts_of_arrays(draw: Any) -> tuple[list[Any], dict[str, int]]:
    """Arrays cut into parts of whole shards, except the last part."""
    rows_per_chunk = draw(st.integers(1, 3))
    rows_per_shard = rows_per_chunk * draw(st.integers(1, 3))
    whole = draw(st.lists(st.integers(0, 3), max_size=3))
    lengths = [n * rows_per_shard for n in whole] + [draw(st.integers(0, 2 * rows_per_shard))]
    row_shape = draw(st.lists(st.integers(0, 3), max_size=2))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    arrays = [rng.integers(0, 100, (n, *row_shape)).astype(dtype) for n in lengths]
    return arrays, {"rows_per_chunk": rows_per_chunk, "rows_per_shard": rows_per_shard}


@settings(max_examples=60)
@given(drawn=parts_of_arrays(), copies=st.booleans())
def test_joined_equals_written_at_once(
    drawn: Any, copies: bool, tmp_path_factory: Any, key: str, publish: Any
):
    arrays, options = drawn
    store = Store(tmp_path_factory.mktemp("store"))
    for i, values in enumerate(arrays):
        make_part(store, key, publish, i, values, **options)
    other = "f" * 32
    with store.draft(KIND, other) as draft:
        write_part(draft, np.concatenate(arrays), **options)
        at_once = publish(draft)
    with pytest.MonkeyPatch.context() as patch:
        if copies:
            patch.setattr(os, "link", failing(errno.EPERM))
        joined = seal(store, key, publish, len(arrays))
    assert joined.manifest.files == at_once.manifest.files
    assert files_of(joined) == files_of(at_once)
    np.testing.assert_array_equal(joined.array("a").read(), np.concatenate(arrays))


def test_attributes_and_whole_shards_appended_before(store: Store, key: str, publish: Any):
    with store.draft(KIND, key, 0) as draft:
        write_part(draft, np.arange(4), rows_per_shard=2, attributes={"unit": "images"})
        part = publish(draft).array("a")
    with store.draft(KIND, key) as draft:
        draft.join("joined", [part, part])
        with draft.array("mixed", (10,), "int64", rows_per_shard=2) as writer:
            writer.append(np.arange(2))
            writer.link_shards(part)
            writer.append(np.arange(2))
            writer.append(np.arange(2))
        made = publish(draft)
    assert made.verify() == []
    assert made.array("joined").attributes == {"unit": "images"}
    assert made.array("mixed").read().tolist() == [0, 1, 0, 1, 2, 3, 0, 1, 0, 1]


def test_linked_files_share_their_bytes_and_outlive_the_parts(store: Store, key: str, publish: Any):
    parts = [make_part(store, key, publish, i) for i in range(2)]
    made = seal(store, key, publish, 2)
    inode = (parts[1].path / "a" / "c.0").stat().st_ino
    assert (made.path / "a" / "c.1").stat().st_ino == inode
    store.drop_parts(KIND, key)
    assert store.parts(KIND, key) == []
    assert made.verify() == []
    assert made.array("a").read().tolist() == list(range(8))


def failing(code: int) -> Callable[..., None]:
    def fail(path: Any, *rest: Any, **options: Any) -> None:
        raise OSError(code, os.strerror(code), str(path))

    return fail


@pytest.mark.parametrize(
    "code", [errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.EMLINK, errno.EACCES, errno.ENOSYS]
)
def test_without_hard_links_files_are_copied(
    store: Store, key: str, publish: Any, monkeypatch: pytest.MonkeyPatch, code: int
):
    part = make_part(store, key, publish, 0)
    monkeypatch.setattr(os, "link", failing(code))
    made = seal(store, key, publish, 1)
    assert made.verify() == []
    assert (made.path / "a" / "c.0").stat().st_ino != (part.path / "a" / "c.0").stat().st_ino


def assert_nothing_made(store: Store, key: str, entries: Any) -> None:
    assert store.find(KIND, key) is None
    assert entries(store, ".build") == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_other_errors_of_linking_are_reported(
    store: Store, key: str, publish: Any, entries: Any, code: int
):
    part = make_part(store, key, publish, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "link", failing(code))
        with pytest.raises(StoreError, match=f"cannot link.*{errno.errorcode[code]}"):
            seal(store, key, publish, 1)
    assert_nothing_made(store, key, entries)
    assert part.verify() == []
    assert seal(store, key, publish, 1).verify() == []


def test_a_disk_that_fills_up_while_copying(store: Store, key: str, publish: Any, entries: Any):
    make_part(store, key, publish, 0)
    make_part(store, key, publish, 1)
    real = os.write

    def full(fd: int, data: Any) -> int:
        if os.readlink(f"/proc/self/fd/{fd}").endswith("c.1"):
            raise OSError(errno.ENOSPC, "full")
        return real(fd, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "link", failing(errno.EXDEV))
        patch.setattr(os, "write", full)
        with pytest.raises(StoreError, match=r"cannot write .*c\.1.* no space is left"):
            seal(store, key, publish, 2)
    assert_nothing_made(store, key, entries)
    assert store.parts(KIND, key) == [0, 1]
    assert seal(store, key, publish, 2).verify() == []


@pytest.mark.parametrize("copies", [False, True])
def test_a_part_damaged_after_opening_is_not_joined(
    store: Store,
    key: str,
    publish: Any,
    entries: Any,
    monkeypatch: pytest.MonkeyPatch,
    copies: bool,
):
    array = make_part(store, key, publish, 0).array("a")
    file = Path(array.path) / "c.0"
    if copies:  # then all bytes pass by
        monkeypatch.setattr(os, "link", failing(errno.EXDEV))
        file.write_bytes(bytes(file.stat().st_size))
    else:
        os.truncate(file, 3)
    with (
        pytest.raises(CorruptArtifact, match=r"is not as it was written.*Delete the folder"),
        store.draft(KIND, key) as draft,
    ):
        draft.join("a", [array])
    assert_nothing_made(store, key, entries)


def test_a_part_removed_after_opening(store: Store, key: str, publish: Any, entries: Any):
    array = make_part(store, key, publish, 0).array("a")
    store.drop_parts(KIND, key)
    with (
        pytest.raises(StoreError, match=r"cannot link.*Run again"),
        store.draft(KIND, key) as draft,
    ):
        draft.join("a", [array])
    assert_nothing_made(store, key, entries)


ONE = (np.zeros((4, 2), "f4"), {"rows_per_shard": 4})
UNFIT = {
    "dtype": [ONE, (np.zeros((4, 2), "f2"), {"rows_per_shard": 4})],
    "rows": [ONE, (np.zeros((4, 3), "f4"), {"rows_per_shard": 4})],
    "dimensions": [ONE, (np.zeros((4, 2, 1), "f4"), {"rows_per_shard": 4})],
    "shards": [ONE, (np.zeros((4, 2), "f4"), {"rows_per_shard": 2})],
    "chunks": [ONE, (np.zeros((4, 2), "f4"), {"rows_per_shard": 4, "rows_per_chunk": 2})],
    "half a shard in the middle": [(np.zeros((3, 2), "f4"), {"rows_per_shard": 4}), ONE],
    "one and a half": [(np.zeros((6, 2), "f4"), {"rows_per_shard": 4}), ONE],
}


@pytest.mark.parametrize("unfit", UNFIT)
def test_parts_that_do_not_fit_are_refused(
    store: Store, key: str, publish: Any, entries: Any, unfit: str
):
    for i, (values, options) in enumerate(UNFIT[unfit]):
        make_part(store, key, publish, i, values, **options)
    with pytest.raises(
        StoreError, match=r"array 'a' of shape .* cannot link the files of Array\(.*not whole"
    ):
        seal(store, key, publish, 2)
    assert_nothing_made(store, key, entries)


def test_too_many_too_few_or_no_parts(store: Store, key: str, publish: Any):
    part = make_part(store, key, publish, 0).array("a")
    with store.draft(KIND, key) as draft:
        with draft.array("b", (8,), "f4", rows_per_shard=4) as writer:
            writer.link_shards(part)
            writer.link_shards(part)
            with pytest.raises(StoreError, match=r"shape \(8,\).* at row 8"):
                writer.link_shards(part)
        with pytest.raises(StoreError, match="is closed"):
            writer.link_shards(part)
        with (
            pytest.raises(StoreError, match="4 of its 8 rows"),
            draft.array("c", (8,), "f4", rows_per_shard=4) as writer,
        ):
            writer.link_shards(part)
        with pytest.raises(StoreError, match="join 'd' from no parts"):
            draft.join("d", [])


# Dropping.


def test_parts_are_moved_before_they_are_deleted(
    store: Store, key: str, publish: Any, entries: Any
):
    for i in range(2):
        make_part(store, key, publish, i)
    seen: list[tuple[list[int], list[str], str]] = []

    def look(path: Path, **options: Any) -> None:
        seen.append((store.parts(KIND, key), sorted(os.listdir(path)), path.suffix))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", look)
        store.drop_parts(KIND, key)
    assert seen == [([], ["0", "1"], ".deleted")]  # so that nobody brings it back
    assert [store.find_part(KIND, key, i) for i in range(2)] == [None, None]
    assert len(entries(store, ".trash")) == 1
    store.drop_parts(KIND, key)
    assert len(entries(store, ".trash")) == 1


def test_parts_that_cannot_be_dropped_stay(
    store: Store, key: str, publish: Any, monkeypatch: pytest.MonkeyPatch
):
    """The artifact is published by then, and complete."""
    make_part(store, key, publish, 0)
    for call in ("mkdir", "rename"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, call, failing(errno.EACCES))
            store.drop_parts(KIND, key)
    assert store.parts(KIND, key) == [0]


# Killed.

KILLS = ("mkdir", "open", "write", "link", "close", "rename", "unlink", "rmdir")


@pytest.mark.slow
@pytest.mark.parametrize("links", [True, False])
def test_kill_at_every_point(
    tmp_path: Path, key: str, publish: Any, entries: Any, in_child: Any, links: bool
):
    def make_all(store: Store) -> Any:
        for i in range(2):
            if store.find_part(KIND, key, i) is None:
                make_part(store, key, publish, i)
        made = store.find(KIND, key) or seal(store, key, publish, 2)
        store.drop_parts(KIND, key)
        return made

    whole = files_of(make_all(Store(tmp_path / "whole")))
    n, code, states = 0, 128 + 9, set()
    while code == 128 + 9:
        n += 1
        store = Store(tmp_path / str(n))

        def child(store: Store = store, n: int = n) -> None:
            if not links:
                os.link = failing(errno.EXDEV)
            dying(n, KILLS)
            make_all(store)

        code = in_child(child)
        found = store.find(KIND, key)
        assert found is None or files_of(found) == whole
        parts = [i for i in range(2) if store.find_part(KIND, key, i) is not None]
        assert parts == store.parts(KIND, key)
        assert all(store.find_part(KIND, key, i).verify() == [] for i in parts)
        assert found is not None or parts == list(range(len(parts)))
        states.add((len(parts), found is not None))

        if found is not None:  # nobody makes it again, so nobody drops what was not
            assert parts in ([0, 1], [])
        assert files_of(make_all(store)) == whole
        assert not work(store.root, KIND, key).exists()
        if code == 128 + 9 and found is None:
            assert entries(store, ".build") == []
    assert code == 0
    assert states == {(0, False), (1, False), (2, False), (2, True), (0, True)}
    assert not part_home(store.root, KIND, key, 0).exists()
