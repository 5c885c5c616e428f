"""OpenMoji: words as traits, rendered drawings, and masks of their parts."""

from __future__ import annotations

import io
import re
from collections import Counter

import numpy as np
import pytest
import resvg_py
from PIL import Image

from saevx.datasets import open_images, read_labels, trait_names
from saevx.datasets.openmoji import PARTS, part_masks, words_of
from spec import DatasetError, Site
from spec.images.openmoji import OpenMoji, OpenMojiImages, svg_folder

FIREFIGHTER = "1F468-200D-1F692"
"""A man with hair, skin, clothes and outlines."""


def drawing(stem: str) -> bytes:
    return (svg_folder() / f"{stem}.svg").read_bytes()


class TestTraits:
    def test_31_words_name_12_drawings_or_more(self) -> None:
        emoji = pytest.importorskip("emoji")
        train, test = (read_labels(OpenMoji(split=s), Site()) for s in ("train", "test"))
        assert train.traits == test.traits
        assert len(train.traits) == 31
        counts: Counter[str] = Counter()
        for file in train.images + test.images:
            text = "".join(chr(int(code, 16)) for code in file.removesuffix(".svg").split("-"))
            counts.update(set(re.split("[_-]", emoji.demojize(text).strip(":"))))
        expected = {w for w, n in counts.items() if n >= 12} - {"with", "in", "of", "&", "and"}
        assert set(train.traits) == expected
        both = np.concatenate([train.y, test.y]).sum(axis=0)
        assert both.tolist() == [counts[trait] for trait in train.traits]
        assert (train.y.any(axis=0) & test.y.any(axis=0)).all()

    def test_labels_of_some_drawings(self) -> None:
        labels = [read_labels(OpenMoji(split=s), Site()) for s in ("train", "test")]
        traits = {
            image: {t for t, true in zip(part.traits, row, strict=True) if true}
            for part in labels
            for image, row in zip(part.images, part.y, strict=True)
        }
        assert traits["1F600.svg"] == {"face"}
        assert traits["1F469-200D-1F9B0.svg"] == {"woman", "red", "hair"}
        assert traits["1F3F3.svg"] == {"white", "flag"}

    def test_fewer_images_give_more_traits(self) -> None:
        some = trait_names(OpenMoji(split="train", min_images=12), Site())
        more = trait_names(OpenMoji(split="train", min_images=4), Site())
        assert set(some) < set(more)
        with pytest.raises(
            DatasetError, match=r"no word is in the names of 5000 .* lower min_images"
        ):
            trait_names(OpenMoji(split="train", min_images=5000), Site())

    def test_skin_tones_are_traits_only_with_toned_drawings(self) -> None:
        labels = read_labels(OpenMoji(split="test", skin_tones=True), Site())
        assert {"skin", "tone", "dark"} <= set(labels.traits)
        tone = labels.y[:, labels.traits.index("tone")]
        assert tone.tolist() == [bool(re.search("1F3F[B-F]", image)) for image in labels.images]

    def test_words(self) -> None:
        assert words_of("see-no-evil_monkey") == {"see", "no", "evil", "monkey"}
        assert words_of("Trinidad_&_Tobago") == {"Trinidad", "Tobago"}


class TestRendering:
    @pytest.mark.parametrize("size", [32, 112])
    def test_drawings_are_square_on_white(self, size: int) -> None:
        source = open_images(OpenMojiImages(split="train", size=size), Site())
        for i in range(0, len(source), 97):
            image = source.load(i)
            assert (image.mode, image.size) == ("RGB", (size, size))
            assert image.getpixel((0, 0)) == (255, 255, 255)
            assert np.asarray(image).min() < 255

    def test_a_drawing_changed_in_place_is_refused(
        self, tmp_path: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = open_images(OpenMojiImages(split="train"), Site())
        data = source.read(0)
        monkeypatch.setattr("pathlib.Path.read_bytes", lambda path: data[:-1] + b" ")
        with pytest.raises(DatasetError, match="does not hold the bytes that it had"):
            source.load(0)

    def test_files_that_are_not_drawings_are_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        source = open_images(OpenMojiImages(split="train"), Site())
        monkeypatch.setattr(type(source), "read", lambda self, i: b"<svg")
        with pytest.raises(DatasetError, match=r"cannot decode .*\.svg \(4 bytes\)"):
            source.load(0)


class TestPartMasks:
    def test_parts_of_a_firefighter(self) -> None:
        masks = part_masks(drawing(FIREFIGHTER), 72)
        assert masks.shape == (len(PARTS), 72, 72)
        assert masks.dtype == np.bool_
        at = dict(zip(PARTS, masks, strict=True))
        # In the drawing's own 72 x 72 units: cheek, fringe, jacket, and the mouth's outline.
        assert at["skin"][34, 30]
        assert at["hair"][24, 26]
        assert at["color"][55, 25]
        assert at["line"][36, 36]
        assert not at["skin"][55, 25]
        assert not at["hair"][36, 36]

    def test_parts_that_are_not_drawn_are_empty(self) -> None:
        at = dict(zip(PARTS, part_masks(drawing("2764"), 72), strict=True))
        assert at["color"].any()
        assert not at["skin"].any()
        assert not at["hair"].any()

    def test_parts_together_are_the_whole_drawing(self) -> None:
        source = open_images(OpenMojiImages(split="test", size=96), Site())
        for i in range(0, len(source), 61):
            svg = source.read(i)
            png = resvg_py.svg_to_bytes(svg_string=svg.decode(), width=96, height=96)
            whole = np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))[..., 3]
            union = part_masks(svg, 96).any(axis=0)
            assert (whole[union] >= 128).all(), source.files[i]
            # At the border of two parts, each may cover less than half of a pixel.
            assert (whole == 255)[~union].mean() < 0.02, source.files[i]

    def test_a_nested_layer_belongs_to_its_own_part(self) -> None:
        box = '<rect x="{x}" width="10" height="10" fill="red"/>'
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 10" width="40" height="40">'
            f'<g id="color">{box.format(x=0)}<g id="skin-2">{box.format(x=10)}</g></g>'
            f'<g><g id="hair_1_">{box.format(x=20)}</g>{box.format(x=30)}</g></svg>'
        )
        at = dict(zip(PARTS, part_masks(svg.encode(), 40), strict=True))
        columns = {part: sorted({x // 10 for x in np.nonzero(at[part])[1]}) for part in PARTS}
        assert columns == {"color": [0], "skin": [1], "hair": [2], "line": []}

    def test_files_that_are_not_drawings_are_named(self) -> None:
        with pytest.raises(DatasetError, match="not an SVG"):
            part_masks(b"<svg", 8)
