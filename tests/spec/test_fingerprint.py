"""Fingerprints of files: what changes them, what does not, and files that are missing."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from spec import DatasetError, Site
from spec.files import digests as digests_module
from spec.files import fingerprint as fingerprint_module
from spec.files.digests import decode, digest_file, digest_files, encode, show_nothing
from spec.files.fingerprint import fingerprint_contents, fingerprint_found, fingerprint_listing
from spec.files.listing import FileStat, Listing, digest_text, list_files, stat_files
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
    found = list_files(photos, lambda name: name.endswith("g"))
    assert found.files == ("a/one.jpg",)
    assert found.folders == ("", "a", "b")
    listing = ImageFolder(root=str(photos)).listing(Site())
    assert listing.files == ("a/one.jpg", "a/two.PNG", "b/three.webp", "four.tiff")
    assert [stat.size for stat in listing.stats] == [len(name) for name in listing.files]


def test_unreadable_folders_are_all_named(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir
    (photos / "b/sub").mkdir()

    def deny(path: str) -> Iterator[os.DirEntry[str]]:
        if path.endswith(("/a", "/b/sub")):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", deny)
    message = r"2 paths below .* cannot be read: .*/a \(Permission denied\), .*/b/sub \("
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
    assert list_files(photos, lambda name: name == "x.jpg").files == ("more/in/x.jpg",)


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
        stats = (FileStat(1, 0, 0, 0), FileStat(2, 0, 0, 0))
        return Listing(Path("/x"), ("a", "b"), ("a", "b"), stats, digests or None)

    assert listing("p", "q").digest != listing("p", "r").digest
    assert listing("p", "q").digest != listing().digest


def test_digests_are_those_of_lines_of_any_bytes() -> None:
    lines = [b"a/1.jpg", "é".encode(), b"\xff\xfe.jpg"]
    expected = xxhash.xxh3_128_hexdigest(b"".join(line + b"\n" for line in lines))
    assert digest_text(map(os.fsdecode, lines)) == expected
    rows = b"a\x00p\nb\x00q\n"
    stats = (FileStat(5, 0, 0, 0), FileStat(6, 0, 0, 0))
    listing = Listing(Path("/x"), ("a", "b"), ("a", "b"), stats, ("p", "q"))
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
        file.write_text(text)  # of fingerprints and of digests
    assert digest(photos, cache) == before


@pytest.fixture
def everything_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember digests of files that have just been written."""
    monkeypatch.setattr(digests_module, "SETTLED_NS", -(10**12))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read for their digests."""
    names: list[str] = []
    real = digests_module._digest

    def spy(path: str | Path, block: bytearray) -> str:
        names.append(os.path.basename(path))
        return real(path, block)

    monkeypatch.setattr(digests_module, "_digest", spy)
    return names


@pytest.mark.usefixtures("everything_is_settled")
class TestContentOfImages:
    def test_files_of_equal_size_that_are_swapped_change_the_digest(
        self, photos: Path, cache: Path
    ) -> None:
        (photos / "a/one.jpg").write_bytes(b"first")
        (photos / "a/two.PNG").write_bytes(b"other")
        before = digest(photos, cache)
        for name, content in (("one.jpg", b"other"), ("two.PNG", b"first")):
            (photos / "a" / name).write_bytes(content)
        assert digest(photos, cache) != before

    def test_sets_of_equal_names_and_sizes_differ(self, tmp_path: Path) -> None:
        for plate in ("A", "B"):
            (tmp_path / plate).mkdir()
            (tmp_path / plate / "well.tif").write_bytes(plate.encode() * 100)
        assert digest(tmp_path / "A") != digest(tmp_path / "B")

    def test_a_link_that_is_re_pointed_changes_the_digest(
        self, tmp_path: Path, cache: Path
    ) -> None:
        (tmp_path / "set").mkdir()
        for name in ("old", "new"):
            (tmp_path / name).write_bytes(name.encode())
            os.utime(tmp_path / name, ns=(1, 1))
        link = tmp_path / "set/photo.jpg"
        link.symlink_to(tmp_path / "old")
        before = digest(tmp_path / "set", cache)
        link.unlink()
        link.symlink_to(tmp_path / "new")
        assert digest(tmp_path / "set", cache) != before

    def test_only_files_that_changed_are_read_again(
        self, photos: Path, cache: Path, read: list[str]
    ) -> None:
        before = digest(photos, cache)
        assert sorted(read) == ["four.tiff", "one.jpg", "three.webp", "two.PNG"]
        read.clear()
        assert digest(photos, cache) == before
        assert read == []
        was = (photos / "b/three.webp").stat()
        (photos / "b/three.webp").write_bytes(b"B/three.webp")
        os.utime(photos / "b/three.webp", ns=(was.st_atime_ns, was.st_mtime_ns))
        assert digest(photos, cache) != before
        assert read == ["three.webp"]

    def test_what_was_just_written_is_read_again(
        self, photos: Path, cache: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A second write within the resolution of the file system's clock would not show.
        monkeypatch.setattr(digests_module, "SETTLED_NS", 10**18)
        assert digest(photos, cache) == digest(photos, cache)
        assert len(read) == 8

    def test_a_site_without_a_cache_reads_each_file_once(
        self, photos: Path, read: list[str]
    ) -> None:
        images, site = ImageFolder(root=str(photos)), Site().frozen()
        assert images.fingerprint(site).digest == images.known_listing(site).digest
        assert len(read) == 4

    def test_a_set_identified_by_its_listing_is_not_read(
        self, photos: Path, cache: Path, read: list[str]
    ) -> None:
        images = ImageFolder(root=str(photos), identity="listing")
        before = images.fingerprints(Site(cache=cache))
        (photos / "a/one.jpg").write_bytes(b"x" * len("a/one.jpg"))
        assert images.fingerprints(Site(cache=cache)) == before
        assert before.keys() == {"listing"}
        (photos / "a/one.jpg").write_bytes(b"longer than before")
        assert images.fingerprints(Site(cache=cache)) != before
        assert read == []

    def test_all_unreadable_files_are_named(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def deny(path: str | Path, block: bytearray) -> str:
            raise DatasetError(f"cannot read {path}: Permission denied")

        monkeypatch.setattr(digests_module, "_digest", deny)
        with pytest.raises(DatasetError, match=r"one\.jpg: Perm.*two\.PNG.*three.*four\.tiff"):
            digest(photos)

    def test_progress_counts_the_files_to_read(self, photos: Path, cache: Path) -> None:
        seen: list[int] = []

        @contextmanager
        def show(n_files: int) -> Iterator[Callable[[int], None]]:
            seen.append(n_files)
            yield seen.append

        site = Site(cache=cache).showing(show)
        images = ImageFolder(root=str(photos))
        images.fingerprint(site)
        assert seen == [4, 4]
        (photos / "four.tiff").write_bytes(b"4")
        images.fingerprint(site)
        images.fingerprint(site)
        assert seen == [4, 4, 1, 1]

    @given(st.lists(st.binary(max_size=3_000_000 // 40), max_size=40))
    def test_digests_equal_those_of_a_plain_loop(self, contents: list[bytes]) -> None:
        with TemporaryDirectory() as folder:
            names = [str(i) for i in range(len(contents))]
            for name, content in zip(names, contents, strict=True):
                Path(folder, name).write_bytes(content)
            stats = stat_files(Path(folder), names)
            found, remembered = digest_files(Path(folder), names, stats, {}, show_nothing)
        assert found == [xxhash.xxh3_128_hexdigest(content) for content in contents]
        assert decode(encode(remembered)) == remembered


def test_files_larger_than_a_block_are_digested_whole(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "x").write_bytes(content)
    assert digest_file(tmp_path / "x") == xxhash.xxh3_128_hexdigest(content)


int64 = st.integers(-(2**63), 2**63 - 1)


@given(
    st.dictionaries(
        st.builds(FileStat, int64, int64, int64, int64),
        st.binary(min_size=16, max_size=16).map(bytes.hex),
    ),
    st.data(),
)
def test_digests_round_trip_and_damage_is_noticed(
    digests: dict[FileStat, str], data: st.DataObject
) -> None:
    encoded = encode(digests)
    assert decode(encoded) == digests
    if digests:
        i = data.draw(st.integers(0, len(encoded) - 1))
        damaged = bytearray(encoded)
        damaged[i] ^= 1 << data.draw(st.integers(0, 7))
        assert decode(bytes(damaged)) == {}
        assert decode(encoded[:i]) == {}


class TestLargeSets:
    """Sets above STAT_AT_MOST files are listed again when the mtime of a folder changes."""

    @pytest.fixture(autouse=True)
    def _everything_is_large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fingerprint_module, "STAT_AT_MOST", 0)

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
            monkeypatch.setattr(fingerprint_module, "STAT_AT_MOST", limit)
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
            return Listing(tmp_path / "set", ("1",), ("a/b/1.jpg",), (FileStat(1, 0, 0, 0),))

        def fingerprint() -> None:
            site, find = Site(cache=cache), lambda: tmp_path / "set"
            fingerprint_listing(
                site, "set", find, list_files, by_content=False, identity=lambda: None
            )

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
        monkeypatch.setattr(digests_module, "SETTLED_NS", -(10**12))
        before = fingerprint_contents(Site(cache=cache), "labels", [file])
        monkeypatch.setattr(fingerprint_module, "digest_file", lambda path: pytest.fail("read"))
        assert fingerprint_contents(Site(cache=cache), "labels", [file]) == before

    @pytest.mark.usefixtures("everything_is_settled")
    def test_a_link_to_another_file_of_equal_size_and_mtime_is_noticed(
        self, tmp_path: Path, cache: Path
    ) -> None:
        for name in ("old", "new"):
            (tmp_path / name).write_text(name)
            os.utime(tmp_path / name, ns=(1, 1))
        link = tmp_path / "weights.safetensors"
        link.symlink_to("old")
        before = fingerprint_contents(Site(cache=cache), "weights", [link])
        link.unlink()
        link.symlink_to("new")
        assert fingerprint_contents(Site(cache=cache), "weights", [link]) != before

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
