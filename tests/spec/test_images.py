"""Image sets on disk and in packages: their listings and splits."""

from __future__ import annotations

import os
import re
import shutil
from collections import defaultdict
from pathlib import Path

import pytest
from pydantic import ValidationError

from spec import DatasetError, Site
from spec.files import digests as digests_module
from spec.files import fingerprint as fingerprint_module
from spec.images import openmoji
from spec.images.cub200 import CUB200, CUB200Images, find_labels, read_pairs
from spec.images.folder import ImageFolder
from spec.images.openmoji import OpenMoji, OpenMojiImages, emojis

from ..saevx.cub_tree import CubTree, make_cub


class TestImageFolder:
    def test_split_is_a_folder_and_part_of_the_key(self, tmp_path: Path) -> None:
        for name in ("train/x/1.jpg", "test/x/2.jpg"):
            (tmp_path / name).parent.mkdir(parents=True)
            (tmp_path / name).write_bytes(b"1")
        test = ImageFolder(root=str(tmp_path), split="test")
        assert test.listing(Site()).files == ("x/2.jpg",)
        assert len(ImageFolder(root=str(tmp_path)).listing(Site())) == 2

    def test_no_images_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("nothing here")
        with pytest.raises(DatasetError, match=f"no image below {re.escape(str(tmp_path))}"):
            ImageFolder(root=str(tmp_path)).n_images(Site())
        with pytest.raises(DatasetError, match="there is no folder"):
            ImageFolder(root=str(tmp_path), split="train").n_images(Site())


@pytest.fixture
def official(tmp_path: Path) -> CubTree:
    return make_cub(tmp_path / "official")


@pytest.fixture
def tree(tmp_path: Path) -> CubTree:
    return make_cub(tmp_path / "tree", layout="tree")


class TestCub:
    @pytest.mark.parametrize("split", ["train", "test"])
    def test_both_layouts_have_the_same_key(
        self, official: CubTree, tree: CubTree, split: str
    ) -> None:
        site = Site()
        sets = [CUB200(split=split, root=str(cub.root)) for cub in (official, tree)]
        listings = [traits.images.listing(site) for traits in sets]
        assert listings[0].files == listings[1].files == tuple(sorted(official.labels(split)))
        assert sets[0].fingerprints(site) == sets[1].fingerprints(site)
        for listing in listings:
            for path, stat in zip(listing.paths, listing.stats, strict=True):
                assert (listing.root / path).stat().st_size == stat.size

    def test_root_may_be_the_archive_folder_itself(self, official: CubTree) -> None:
        outer = CUB200(split="train", root=str(official.root))
        inner = CUB200(split="train", root=str(official.root / "CUB_200_2011"))
        assert inner.fingerprints(Site()) == outer.fingerprints(Site())

    def test_root_comes_from_the_site(self, official: CubTree) -> None:
        site = Site({"cub200": official.root})
        given = CUB200Images(split="test", root=str(official.root))
        assert CUB200Images(split="test").fingerprint(site) == given.fingerprint(Site())
        with pytest.raises(DatasetError, match=r"no folder is known .*'cub200'.*saevx\.toml"):
            CUB200Images(split="test").fingerprint(Site())

    def test_an_image_added_to_an_empty_class_is_noticed(
        self, tree: CubTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fingerprint_module, "STAT_AT_MOST", 0)
        (tree.root / "train/999.New").mkdir()
        for folder in [tree.root, *(p for p in tree.root.rglob("*") if p.is_dir())]:
            os.utime(folder, ns=(10**18, 10**18))
        images, cache = CUB200Images(split="train", root=str(tree.root)), tmp_path / "cache"
        before = images.fingerprint(Site(cache=cache))
        (tree.root / "train/999.New/new.jpg").write_bytes(b"1")
        assert images.fingerprint(Site(cache=cache)).n == before.n + 1

    def test_splits_share_no_image(self, official: CubTree) -> None:
        site = Site({"cub200": official.root})
        train, test = (set(CUB200Images(split=s).listing(site).files) for s in ("train", "test"))
        assert not train & test
        assert train | test == set(official.names)

    @pytest.mark.parametrize("place", ["metadata", "attributes", ".."])
    def test_label_files_of_a_tree_may_be_in_subfolders(self, tree: CubTree, place: str) -> None:
        before = CUB200(split="test", root=str(tree.root)).label_fingerprint(Site())
        (tree.root / place).mkdir(exist_ok=True)
        for name in ("images.txt", "attributes.txt", "image_attribute_labels.txt"):
            (tree.root / name).rename(tree.root / place / name)
        assert CUB200(split="test", root=str(tree.root)).label_fingerprint(Site()) == before

    def test_all_missing_label_files_are_listed_at_once(self, tree: CubTree) -> None:
        (tree.root / "attributes.txt").unlink()
        (tree.root / "image_attribute_labels.txt").unlink()
        message = r"attributes\.txt, image_attribute_labels\.txt .* searched .*/tree/, .*/metadata/"
        with pytest.raises(DatasetError, match=message):
            find_labels(tree.root)

    def test_relabelling_keeps_the_images(self, official: CubTree) -> None:
        traits = CUB200(split="train", root=str(official.root))
        before = traits.fingerprints(Site())
        labels = official.file("image_attribute_labels.txt")
        labels.write_text(labels.read_text().replace("27.708", "27.709"))
        after = traits.fingerprints(Site())
        assert after["images"] == before["images"]
        assert after["labels"] != before["labels"]

    def test_the_fingerprints_of_a_purged_dataset_are_cached(
        self, official: CubTree, tmp_path: Path
    ) -> None:
        traits = CUB200(split="train", root=str(official.root))
        before = traits.fingerprints(Site(cache=tmp_path / "cache"))
        shutil.rmtree(official.root)
        assert traits.fingerprints(Site(cache=tmp_path / "cache")) == before

    def test_unknown_layouts_are_named(self, tmp_path: Path) -> None:
        for root, message in (
            (tmp_path, "no known layout"),
            (tmp_path / "no", "there is no folder"),
        ):
            with pytest.raises(DatasetError, match=message):
                CUB200Images(split="train", root=str(root)).listing(Site())

    def test_missing_photos_are_named(self, official: CubTree) -> None:
        official.image(official.names[0]).unlink()
        with pytest.raises(DatasetError, match=f"1 of 12 files are missing .*{official.names[0]}"):
            CUB200Images(split="train", root=str(official.root)).listing(Site())

    def test_images_outside_class_folders_are_refused(self, tree: CubTree) -> None:
        (tree.root / "train/stray.jpg").write_bytes(b"x")
        with pytest.raises(
            DatasetError, match=r"train/<class>/<file>; 1 are elsewhere: stray\.jpg"
        ):
            CUB200Images(split="train", root=str(tree.root)).listing(Site())

    @pytest.mark.parametrize(
        ("file", "old", "new", "message"),
        [
            ("images.txt", "2 002", "2 ../002", "names must be <class>/<file>"),
            ("images.txt", "2 002", "1 002", "line 2 repeats the id 1"),
            ("images.txt", "2 002", "two 002", "line 2 is not '<id> <value>'"),
            ("train_test_split.txt", "3 0", "3 2", "other values than 0 and 1: 2"),
            ("train_test_split.txt", "3 0\n", "", "1 images have no line, 0 lines have an unknown"),
        ],
    )
    def test_malformed_lists_are_reported(
        self, official: CubTree, file: str, old: str, new: str, message: str
    ) -> None:
        path = official.file(file)
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(DatasetError, match=message):
            CUB200Images(split="train", root=str(official.root)).listing(Site())

    def test_lists_may_have_blank_lines_and_crlf(self, tmp_path: Path) -> None:
        file = tmp_path / "images.txt"
        file.write_bytes(b"1 a/b.jpg\r\n\r\n2 a/c.jpg")
        assert read_pairs(file) == {1: "a/b.jpg", 2: "a/c.jpg"}
        file.write_bytes(b"\n")
        with pytest.raises(DatasetError, match="empty"):
            read_pairs(file)

    @pytest.mark.parametrize("min_certainty", [0, 5])
    def test_certainty_has_four_steps(self, min_certainty: int) -> None:
        with pytest.raises(ValidationError, match="min_certainty"):
            CUB200(split="train", min_certainty=min_certainty)


class TestTraits:
    def test_chosen_traits_are_unique_and_not_empty(self) -> None:
        with pytest.raises(ValidationError, match="a more than once"):
            OpenMoji(split="train", traits=("a", "b", "a"))
        with pytest.raises(ValidationError, match="traits is empty"):
            OpenMoji(split="train", traits=())


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a few drawings that replaces the installed package."""
    folder = tmp_path / "svg"
    folder.mkdir()
    for emoji in emojis(skin_tones=False)[:40]:
        shutil.copy(openmoji.svg_folder() / emoji.file, folder)
    monkeypatch.setattr(openmoji, "svg_folder", lambda: folder)
    return folder


class TestOpenMoji:
    def test_counts(self) -> None:
        assert len(emojis(skin_tones=False)) == 1918
        assert len(emojis(skin_tones=True)) == 3953
        train, test = (OpenMojiImages(split=s).n_images(Site()) for s in ("train", "test"))
        assert (train, test) == (989, 929)

    @pytest.mark.parametrize("skin_tones", [False, True])
    def test_splits_are_halves_and_share_nothing(self, skin_tones: bool) -> None:
        every = emojis(skin_tones)
        bases = {
            split: {emoji.base for emoji in every if emoji.split == split}
            for split in ("train", "test")
        }
        assert not bases["train"] & bases["test"]
        n_train = sum(emoji.split == "train" for emoji in every)
        assert 0.48 < n_train / len(every) < 0.53

    def test_every_variant_is_in_the_split_of_its_base(self) -> None:
        """Checked by code points alone, while the code uses names."""
        people = {
            "1FAF1 1FAF2": "1F91D",  # two hands: handshake
            "1F9D1 2764 1F48B 1F9D1": "1F48F",  # kiss
            "1F9D1 2764 1F9D1": "1F491",  # couple with heart
            "1F469 1F91D 1F469": "1F46D",  # women holding hands
            "1F468 1F91D 1F468": "1F46C",
            "1F469 1F91D 1F468": "1F46B",
            "1F9D1 1F430 1F9D1": "1F46F",  # people with bunny ears
            "1F468 1F430 1F468": "1F46F 2642",
            "1F469 1F430 1F469": "1F46F 2640",
            "1F9D1 1FAEF 1F9D1": "1F93C",  # people wrestling
            "1F468 1FAEF 1F468": "1F93C 2642",
            "1F469 1FAEF 1F469": "1F93C 2640",
        }
        groups: dict[str, set[str]] = defaultdict(set)
        for emoji in emojis(skin_tones=True):
            codes = [c for c in emoji.file[:-4].split("-") if c not in ("200D", "FE0F")]
            plain = " ".join(c for c in codes if not re.fullmatch("1F3F[B-F]", c))
            groups[people.get(plain, plain)].add(emoji.base)
        assert {len(bases) for bases in groups.values()} == {1}
        assert len(groups) == len({emoji.base for emoji in emojis(skin_tones=True)}) == 1919

    def test_every_base_is_a_drawing_except_colour_samples(self) -> None:
        plain = {emoji.file[:-4] for emoji in emojis(skin_tones=False)}
        lost = [emoji for emoji in emojis(skin_tones=True) if emoji.base not in plain]
        assert sorted(emoji.file[:5] for emoji in lost) == [f"1F3F{c}" for c in "BCDEF"]

    def test_the_split_is_frozen(self) -> None:
        side = {emoji.file: emoji.split for emoji in emojis(skin_tones=False)}
        chosen = ["1F600.svg", "1F91D.svg", "1F46D.svg", "1F48F.svg", "2764.svg"]
        assert [side[file] for file in chosen] == ["test", "test", "train", "train", "test"]

    def test_content_counts_at_equal_size(self, package: Path, tmp_path: Path) -> None:
        cache = tmp_path / "cache"
        images = OpenMojiImages(split="train")
        before = images.fingerprint(Site(cache=cache))
        file = package / images.listing(Site()).files[0]
        file.write_bytes(file.read_bytes()[:-1] + b" ")
        os.utime(file, ns=(1, 1))
        assert images.fingerprint(Site(cache=cache)).digest != before.digest

    def test_added_and_removed_drawings_are_noticed(self, package: Path, tmp_path: Path) -> None:
        cache = tmp_path / "cache"
        images = OpenMojiImages(split="train")
        before = images.fingerprint(Site(cache=cache))
        (package / images.listing(Site()).files[0]).unlink()
        os.utime(package, ns=(1, 1))
        assert images.fingerprint(Site(cache=cache)).n == before.n - 1

    def test_unchanged_drawings_are_not_read_again(
        self, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(digests_module, "SETTLED_NS", -(10**12))
        images = OpenMojiImages(split="train")
        before = images.fingerprint(Site(cache=tmp_path / "cache"))
        monkeypatch.setattr(digests_module, "_digest", lambda *a: pytest.fail("read"))
        assert images.fingerprint(Site(cache=tmp_path / "cache")) == before

    def test_the_fingerprints_of_an_uninstalled_package_are_cached(
        self, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        traits = OpenMoji(split="train")
        before = traits.fingerprints(Site(cache=tmp_path / "cache"))

        def gone() -> Path:
            raise DatasetError("the package is not installed")

        monkeypatch.setattr(openmoji, "svg_folder", gone)
        monkeypatch.setattr(openmoji, "names_file", gone)
        assert traits.fingerprints(Site(cache=tmp_path / "cache")) == before
        with pytest.raises(DatasetError, match="not installed"):
            traits.fingerprints(Site())

    def test_another_format_of_the_names_is_reported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names = tmp_path / "emoji.json"
        for text in ("{", "[]", '{"x": {"name": "y"}}', "{}"):
            names.write_text(text)
            os.utime(names, ns=(len(text), len(text)))
            monkeypatch.setattr(openmoji, "names_file", lambda: names)
            with pytest.raises(DatasetError, match=r"another format|no drawing of a known emoji"):
                emojis(skin_tones=False)
