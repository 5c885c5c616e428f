"""Fingerprints of files: what changes them, what does not, and files that are missing."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash

from spec import DatasetError, Site
from spec.files import fingerprint as fingerprint_module
from spec.files.fingerprint import (
    Listing,
    digest_file,
    digest_text,
    fingerprint_contents,
    fingerprint_found,
    fingerprint_listing,
    stat_files,
    walk,
)
from spec.files.packages import package_file, package_folder
from spec.images.folder import ImageFolder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for name in ("a/one.jpg", "a/two.PNG", "b/three.webp", "four.tiff"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    (root / "readme.txt").write_text("no image")
    (root / ".hidden.jpg").write_text("no image either")
    return root


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def digest(root: Path, cache: Path | None = None) -> str:
    return ImageFolder(root=str(root)).fingerprint(Site(cache=cache)).digest


def age(root: Path, ns: int) -> None:
    """Set the mtime of all folders below `root` to `ns`."""
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        os.utime(folder, ns=(ns, ns))


def test_walk_returns_accepted_files_sorted(photos: Path) -> None:
    found = walk(photos, lambda name: name.endswith("g"))
    assert found.files == ("a/one.jpg",)
    assert found.folders == ("", "a", "b")
    listing = ImageFolder(root=str(photos)).listing(Site())
    assert listing.files == ("a/one.jpg", "a/two.PNG", "b/three.webp", "four.tiff")
    assert listing.sizes == tuple(len(name) for name in listing.files)


def test_unreadable_folders_are_all_named(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir
    (photos / "b/sub").mkdir()

    def deny(path: str) -> Iterator[os.DirEntry[str]]:
        if path.endswith(("/a", "/b/sub")):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", deny)
    message = r"2 folders below .* cannot be read: .*/a \(Permission denied\), .*/b/sub \("
    with pytest.raises(DatasetError, match=message):
        ImageFolder(root=str(photos)).listing(Site())


def test_links_are_followed_but_not_in_cycles(photos: Path, tmp_path: Path) -> None:
    before = ImageFolder(root=str(photos)).listing(Site())
    (photos / "self").symlink_to(".")
    (photos / "b/up").symlink_to(photos)
    (photos / "loop.jpg.d").symlink_to("loop.jpg.d")
    assert ImageFolder(root=str(photos)).listing(Site()).files == before.files
    (tmp_path / "more/in").mkdir(parents=True)
    (tmp_path / "more/in/x.jpg").write_bytes(b"x")
    (tmp_path / "more/back").symlink_to(photos)
    (photos / "more").symlink_to(tmp_path / "more")
    assert walk(photos, lambda name: name == "x.jpg").files == ("more/in/x.jpg",)


def test_folders_that_link_to_each_other_are_listed_once(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(b"1")
        (tmp_path / name / "to").symlink_to(tmp_path / other)
    files = ImageFolder(root=str(tmp_path)).listing(Site()).files
    assert files == ("a/1.jpg", "a/to/1.jpg", "b/1.jpg", "b/to/1.jpg")


def test_a_moved_root_keeps_its_digest(photos: Path, tmp_path: Path, cache: Path) -> None:
    before = digest(photos, cache)
    moved = shutil.move(photos, tmp_path / "elsewhere")
    assert digest(Path(moved), cache) == before


def test_a_changed_size_name_or_file_changes_the_digest(photos: Path, cache: Path) -> None:
    seen = {digest(photos, cache)}
    (photos / "a/one.jpg").write_bytes(b"longer than before")
    seen.add(digest(photos, cache))
    (photos / "a/one.jpg").rename(photos / "a/uno.jpg")
    seen.add(digest(photos, cache))
    (photos / "b/five.gif").write_bytes(b"5")
    seen.add(digest(photos, cache))
    (photos / "four.tiff").unlink()
    seen.add(digest(photos, cache))
    assert len(seen) == 5


def test_content_counts_only_with_digests() -> None:
    def listing(*digests: str) -> Listing:
        return Listing(Path("/x"), ("a", "b"), ("a", "b"), (1, 2), digests or None)

    assert listing("p", "q").digest != listing("p", "r").digest
    assert listing("p", "q").digest != listing().digest


def test_digests_are_those_of_lines_of_any_bytes() -> None:
    lines = [b"a/1.jpg", "é".encode(), b"\xff\xfe.jpg"]
    expected = xxhash.xxh3_128_hexdigest(b"".join(line + b"\n" for line in lines))
    assert digest_text(map(os.fsdecode, lines)) == expected
    rows = b"a\x005\x00p\nb\x006\x00q\n"
    listing = Listing(Path("/x"), ("a", "b"), ("a", "b"), (5, 6), ("p", "q"))
    assert listing.digest == xxhash.xxh3_128_hexdigest(rows)


def test_the_fingerprint_of_a_missing_folder_is_cached(photos: Path, cache: Path) -> None:
    before = digest(photos, cache)
    shutil.rmtree(photos)
    assert digest(photos, cache) == before
    with pytest.raises(DatasetError, match="there is no folder"):
        digest(photos)


def test_the_fingerprint_of_an_emptied_folder_is_cached(photos: Path, cache: Path) -> None:
    before = digest(photos, cache)
    for path in photos.rglob("*.*"):
        path.unlink()
    assert digest(photos, cache) == before
    with pytest.raises(DatasetError, match="no image below"):
        ImageFolder(root=str(photos)).listing(Site())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"what": 3}', '{"digest": "x", "n": "many"}'])
def test_a_damaged_cache_only_costs_time(photos: Path, cache: Path, text: str) -> None:
    before = digest(photos, cache)
    for file in cache.iterdir():
        file.write_text(text)
    assert digest(photos, cache) == before


class TestLargeSets:
    """Sets above RELIST_AT_MOST files are listed again when the mtime of a folder changes."""

    @pytest.fixture(autouse=True)
    def _everything_is_large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fingerprint_module, "RELIST_AT_MOST", 0)

    @pytest.fixture
    def listed(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Has an entry for each listing."""
        calls: list[str] = []
        real = ImageFolder.listing

        def spy(self: ImageFolder, site: Site) -> Listing:
            calls.append(self.root)
            return real(self, site)

        monkeypatch.setattr(ImageFolder, "listing", spy)
        return calls

    def test_untouched_folders_are_not_listed_again(
        self, photos: Path, cache: Path, listed: list[str]
    ) -> None:
        age(photos, 10**18)
        assert digest(photos, cache) == digest(photos, cache)
        assert len(listed) == 1

    def test_added_removed_and_renamed_files_are_noticed(
        self, photos: Path, cache: Path, listed: list[str]
    ) -> None:
        age(photos, 10**18)
        seen = {digest(photos, cache)}
        (photos / "b/new.jpg").write_bytes(b"new")
        seen.add(digest(photos, cache))
        age(photos, 10**18 + 1)
        seen.add(digest(photos, cache))
        (photos / "b/new.jpg").rename(photos / "b/newer.jpg")
        seen.add(digest(photos, cache))
        (photos / "a/one.jpg").unlink()
        seen.add(digest(photos, cache))
        assert len(seen) == 4
        assert len(listed) == 5

    def test_a_new_folder_is_noticed(self, photos: Path, cache: Path) -> None:
        age(photos, 10**18)
        before = digest(photos, cache)
        (photos / "c/deep").mkdir(parents=True)
        (photos / "c/deep/new.jpg").write_bytes(b"new")
        assert digest(photos, cache) != before

    def test_an_image_added_to_an_empty_folder_is_noticed(self, photos: Path, cache: Path) -> None:
        (photos / "b/empty").mkdir()
        age(photos, 10**18)
        seen = {digest(photos, cache)}
        (photos / "b/empty/first.jpg").write_bytes(b"1")
        seen.add(digest(photos, cache))
        assert len(seen) == 2

    def test_folders_that_just_changed_are_not_trusted(
        self, photos: Path, cache: Path, listed: list[str]
    ) -> None:
        # The listing and a later change may have the same mtime.
        digest(photos, cache)
        age_now = (photos / "a").stat().st_mtime_ns
        (photos / "a/one.jpg").write_bytes(b"longer than before")
        os.utime(photos / "a", ns=(age_now, age_now))
        digest(photos, cache)
        assert len(listed) == 2

    def test_a_change_in_place_is_seen_only_by_a_refreshing_site(
        self, photos: Path, cache: Path, listed: list[str]
    ) -> None:
        age(photos, 10**18)
        before = digest(photos, cache)
        (photos / "a/one.jpg").write_bytes(b"longer than before")
        assert digest(photos, cache) == before
        fresh = ImageFolder(root=str(photos)).fingerprint(Site(cache=cache).refreshing())
        assert fresh.digest != before
        assert digest(photos, cache) == fresh.digest

    def test_the_fingerprint_of_a_missing_root_is_cached(self, photos: Path, cache: Path) -> None:
        age(photos, 10**18)
        before = digest(photos, cache)
        shutil.rmtree(photos)
        assert digest(photos, cache) == before

    def test_sets_up_to_the_limit_are_always_listed(
        self, photos: Path, cache: Path, listed: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        age(photos, 10**18)
        for limit, n_listed in ((4, 2), (3, 3)):
            monkeypatch.setattr(fingerprint_module, "RELIST_AT_MOST", limit)
            digest(photos, cache)
            digest(photos, cache)
            assert len(listed) == n_listed

    @pytest.mark.parametrize("changed", ["", "a", "a/b"])
    def test_all_folders_above_listed_files_count(
        self, tmp_path: Path, cache: Path, changed: str
    ) -> None:
        (tmp_path / "set/a/b").mkdir(parents=True)
        (tmp_path / "set/a/b/1.jpg").write_bytes(b"1")
        age(tmp_path / "set", 10**18)
        listed: list[int] = []

        def list_files() -> Listing:
            listed.append(1)
            return Listing(tmp_path / "set", ("1",), ("a/b/1.jpg",), (1,))

        def fingerprint() -> None:
            site, find = Site(cache=cache), lambda: tmp_path / "set"
            fingerprint_listing(site, "set", find, list_files, identity=lambda: None)

        fingerprint()
        fingerprint()
        assert len(listed) == 1
        os.utime(tmp_path / "set" / changed, ns=(10**18, 10**18 + 1))
        fingerprint()
        assert len(listed) == 2


class TestContents:
    def test_only_the_bytes_count(self, tmp_path: Path, cache: Path) -> None:
        file, copy = tmp_path / "labels.txt", tmp_path / "copy.txt"
        file.write_text("1 a\n")
        copy.write_text("1 a\n")
        site = Site(cache=cache)
        digest = fingerprint_contents(site, "labels", [file]).digest
        assert fingerprint_contents(site, "labels", [copy]).digest == digest
        file.write_text("1 b\n")
        os.utime(file, ns=(1, 1))
        assert fingerprint_contents(Site(cache=cache), "labels", [file]).digest != digest

    def test_bytes_are_read_once(
        self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "labels.txt"
        file.write_text("1 a\n")
        before = fingerprint_contents(Site(cache=cache), "labels", [file])
        monkeypatch.setattr(fingerprint_module, "digest_file", lambda path: pytest.fail("read"))
        assert fingerprint_contents(Site(cache=cache), "labels", [file]) == before

    def test_a_change_while_reading_is_noticed_next_time(
        self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "labels.txt"
        file.write_text("old\n")
        real = fingerprint_module.digest_file

        def reads_then_somebody_writes(path: Path) -> str:
            digest = real(path)
            path.write_text("newer\n")
            return digest

        monkeypatch.setattr(fingerprint_module, "digest_file", reads_then_somebody_writes)
        torn = fingerprint_contents(Site(cache=cache), "labels", [file])
        monkeypatch.setattr(fingerprint_module, "digest_file", real)
        assert fingerprint_contents(Site(cache=cache), "labels", [file]) != torn

    def test_files_may_move_or_disappear(self, tmp_path: Path, cache: Path) -> None:
        def find() -> list[Path]:
            found = sorted(tmp_path.rglob("labels.txt"))
            if not found:
                raise DatasetError("labels.txt is missing")
            return found

        with pytest.raises(DatasetError, match="missing"):
            fingerprint_found(Site(cache=cache), "labels", find)
        (tmp_path / "labels.txt").write_text("1 a\n")
        before = fingerprint_found(Site(cache=cache), "labels", find)
        (tmp_path / "sub").mkdir()
        (tmp_path / "labels.txt").rename(tmp_path / "sub/labels.txt")
        assert fingerprint_found(Site(cache=cache), "labels", find) == before
        (tmp_path / "sub/labels.txt").unlink()
        assert fingerprint_found(Site(cache=cache), "labels", find) == before

    def test_sets_that_begin_alike_are_cached_apart(self, tmp_path: Path, cache: Path) -> None:
        files = [tmp_path / str(n) for n in range(5)]
        for file in files:
            file.write_text(file.name)
        sets = [files[:4], [*files[:3], files[4]]]
        before = [fingerprint_contents(Site(cache=cache), "labels", paths) for paths in sets]
        assert before[0] != before[1]
        for file in files:
            file.unlink()
        assert before == [fingerprint_contents(Site(cache=cache), "labels", s) for s in sets]

    def test_unreadable_files_are_dataset_errors(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match=r"cannot read .*gone"):
            digest_file(tmp_path / "gone")
        with pytest.raises(DatasetError, match=r"6 of 6 files are missing below .*a, a, a, a, a, "):
            stat_files(tmp_path, ["a"] * 6)
        with pytest.raises(DatasetError, match=r"below [^:]*: a, a, a, a, a; download"):
            stat_files(tmp_path, ["a"] * 5)


def test_missing_packages_and_files_say_what_to_install() -> None:
    for module in ("no_such_package", "this"):  # the second is a module, not a package
        with pytest.raises(DatasetError, match=f"package {module} is not installed: pip install x"):
            package_folder(module, install="x")
    assert package_file("spec", "files/packages.py", install="x").is_file()
    with pytest.raises(DatasetError, match=r"gone\.txt is missing: install saevx again"):
        package_file("spec", "gone.txt", install="saevx")
