"""Labels: equal to those of a plain loop, aligned by name, with faults named by line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saevx.datasets import Labels, check_traits, read_labels, read_traits, trait_names
from saevx.datasets.cub200 import read_table
from spec import DatasetError, Site, SpecError, TraitSet
from spec.images.cub200 import CUB200

from .cub_tree import CubTree, label_lines, make_cub


@pytest.fixture
def cub(tmp_path: Path) -> CubTree:
    return make_cub(tmp_path / "cub")


def traits_of(cub: CubTree, split: str = "train", **fields: object) -> CUB200:
    return CUB200(split=split, root=str(cub.root), **fields)


class TestLabels:
    def test_inconsistent_labels_are_refused(self) -> None:
        y = np.zeros((2, 1), np.bool_)
        for images, traits, array, message in (
            (("a", "a"), ("t",), y, "more than one image is called a"),
            (("a", "b"), ("t", "t"), np.zeros((2, 2), np.bool_), "more than one trait"),
            (("a", "b", "c"), ("t",), y, r"y is \(2, 1\), for 3 images and 1 traits"),
            (("a", "b"), ("t",), y.astype(int), "not bool"),
            ((), (), np.zeros((0, 0), np.bool_), "there is no image; there is no trait"),
        ):
            with pytest.raises(DatasetError, match=message):
                Labels(images, traits, array)
        labels = Labels(("a", "b"), ("t",), y)
        with pytest.raises(ValueError, match="read-only"):
            labels.y[0, 0] = True

    @given(st.data())
    def test_align_and_select_follow_names(self, data: st.DataObject) -> None:
        images = data.draw(st.lists(st.text(max_size=3), min_size=1, max_size=8, unique=True))
        traits = data.draw(st.lists(st.text(max_size=3), min_size=1, max_size=8, unique=True))
        truth = {(i, t): data.draw(st.booleans()) for i in images for t in traits}
        y = np.array([[truth[i, t] for t in traits] for i in images], np.bool_)
        labels = Labels(tuple(images), tuple(traits), y)
        some_i = data.draw(st.lists(st.sampled_from(images), min_size=1, unique=True))
        some_t = data.draw(st.lists(st.sampled_from(traits), min_size=1, unique=True))
        found = labels.align(some_i).select(some_t)
        assert found.images == tuple(some_i)
        assert found.traits == tuple(some_t)
        assert found.y.tolist() == [[truth[i, t] for t in some_t] for i in some_i]

    def test_unknown_names_suggest_close_ones(self) -> None:
        labels = Labels(("a",), ("has_wing_colour", "has_bill"), np.ones((1, 2), np.bool_))
        message = r"'has_wing_color' \(did you mean has_wing_colour\?\), 'qq'; there are 2"
        with pytest.raises(SpecError, match=message):
            labels.select(["has_wing_color", "qq"])
        with pytest.raises(DatasetError, match="1 of 2 images have no labels: b"):
            labels.align(["a", "b"])


class TestCub:
    @pytest.mark.parametrize("layout", ["official", "tree"])
    @pytest.mark.parametrize("split", ["train", "test"])
    @pytest.mark.parametrize("min_certainty", [1, 2, 3, 4])
    def test_labels_are_those_of_a_plain_loop(
        self, tmp_path: Path, layout: str, split: str, min_certainty: int
    ) -> None:
        cub = make_cub(tmp_path, layout=layout)
        labels = read_labels(traits_of(cub, split, min_certainty=min_certainty), Site())
        expected = cub.labels(split, min_certainty)
        assert labels.images == tuple(sorted(expected))
        assert labels.traits == cub.attributes
        assert labels.y.tolist() == [expected[name] for name in labels.images]

    def test_certainty_matters(self, cub: CubTree) -> None:
        counts = [read_labels(traits_of(cub, min_certainty=c), Site()).y.sum() for c in (1, 3, 4)]
        assert counts == sorted(counts, reverse=True)
        assert counts[0] > counts[2]

    def test_a_class_of_one_image(self, cub: CubTree) -> None:
        alone = [name for name in cub.names if name.startswith("003.")]
        assert len(alone) == 1
        labels = read_labels(traits_of(cub, "test"), Site())
        assert labels.y[labels.images.index(alone[0])].tolist() == cub.labels("test")[alone[0]]

    def test_the_order_of_lines_and_ids_does_not_matter(self, cub: CubTree) -> None:
        before = read_labels(traits_of(cub), Site())
        rng = np.random.default_rng(0)
        for name in ("images.txt", "attributes.txt", "image_attribute_labels.txt"):
            path = cub.file(name)
            lines = path.read_text().splitlines()
            path.write_text("\n".join(lines[i] for i in rng.permutation(len(lines))))
        after = read_labels(traits_of(cub), Site())
        assert (after.images, after.traits) == (before.images, before.traits)
        assert np.array_equal(after.y, before.y)

    def test_a_subset_in_its_own_order(self, cub: CubTree) -> None:
        chosen = (cub.attributes[3], cub.attributes[0])
        every = read_labels(traits_of(cub), Site())
        some = read_labels(traits_of(cub, traits=chosen), Site())
        assert some.traits == chosen
        assert np.array_equal(some.y, every.y[:, [3, 0]])

    def test_unknown_traits_are_named_without_reading_labels(self, cub: CubTree) -> None:
        traits = traits_of(cub, traits=("has_part_0::color_(1)",))
        cub.file("image_attribute_labels.txt").write_text("rubbish")
        assert trait_names(traits, Site()) == cub.attributes
        with pytest.raises(SpecError, match=r"did you mean has_part_0::colour_\(1\)"):
            check_traits(traits, Site())
        check_traits(traits_of(cub), Site())
        check_traits(traits_of(cub, traits=cub.attributes[:1]), Site())

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("1 1 0", r"line 3 \('1 1 0'\): must begin with four numbers"),
            ("1 1 yes 4 1.0", "line 3 .*must begin with four numbers"),
            ("1 1 0 3.5 1.0", "line 3 .*must begin with four numbers"),
            ("1 1 -1 3 1.0", "line 3 .*must begin with four numbers"),
            ("99 1 0 3 1.0", "line 3 .*no image has the id 99"),
            ("1 99 0 3 1.0", "line 3 .*no attribute has the id 99"),
            ("0 0 2 5 1.0", "id 0; no attribute .*is_present is 2.*; the certainty is 5"),
            ("1 1 0 0 1.0", "the certainty is 0, not 1 to 4"),
            ("1 1 0 99999999999999999999 1", "line 3 .*must begin with four numbers"),
            ("# 1 1 0 3", "line 3 .*must begin with four numbers"),
        ],
    )
    def test_malformed_lines_are_named(self, cub: CubTree, line: str, message: str) -> None:
        path = cub.file("image_attribute_labels.txt")
        lines = path.read_text().splitlines()
        # A blank line is skipped, and counted.
        path.write_text("\n".join([lines[0], "", line, *lines[2:]]))
        with pytest.raises(DatasetError, match=message):
            read_labels(traits_of(cub), Site())

    def test_many_faults_are_counted(self, cub: CubTree) -> None:
        path = cub.file("image_attribute_labels.txt")
        path.write_text(path.read_text().replace(" 27.708", "").replace(" ", ",", 2000))
        with pytest.raises(DatasetError, match=r"line 1 .*line 5 .*; and \d+ more"):
            read_labels(traits_of(cub), Site())

    def test_each_pair_must_occur_once(self, cub: CubTree) -> None:
        path = cub.file("image_attribute_labels.txt")
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*lines[:-1], lines[0]]))
        message = (
            r"24 images and 6 attributes; 2 pairs differ: image 1, attribute 1: 2 lines; "
            r"image 24, attribute 6: 0 lines; download the file again"
        )
        with pytest.raises(DatasetError, match=message):
            read_labels(traits_of(cub), Site())

    @pytest.mark.parametrize("text", ["", "\n\n"])
    def test_an_empty_label_file(self, cub: CubTree, text: str) -> None:
        cub.file("image_attribute_labels.txt").write_text(text)
        with pytest.raises(DatasetError, match="144 pairs differ"):
            read_labels(traits_of(cub), Site())

    def test_photos_without_labels_are_named(self, tmp_path: Path) -> None:
        cub = make_cub(tmp_path, layout="tree")
        path = cub.image(cub.names[0])
        path.rename(path.with_name("renamed.jpg"))
        with pytest.raises(DatasetError, match=r"1 of 12 images have no labels: .*renamed\.jpg"):
            read_labels(traits_of(cub), Site())

    def test_labels_that_changed_since_the_plan_are_refused(self, cub: CubTree) -> None:
        site = Site().frozen()
        traits_of(cub).fingerprints(site)
        path = cub.file("image_attribute_labels.txt")
        path.write_text(path.read_text().replace("27.708", "1.2"))
        with pytest.raises(DatasetError, match="label files of CUB200 changed"):
            read_labels(traits_of(cub), site)
        read_labels(traits_of(cub), Site())

    @given(
        n_images=st.integers(1, 7),
        n_attributes=st.integers(1, 5),
        seed=st.integers(0, 2**32 - 1),
        min_certainty=st.integers(1, 4),
    )
    def test_a_table_survives_the_round_trip(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        n_images: int,
        n_attributes: int,
        seed: int,
        min_certainty: int,
    ) -> None:
        rng = np.random.default_rng(seed)
        present = rng.random((n_images, n_attributes)) < 0.5
        certainty = rng.integers(1, 5, present.shape)
        lines = label_lines(present, certainty, stray=set(rng.integers(1, n_images + 1, 2)))
        rng.shuffle(lines)
        path = tmp_path_factory.getbasetemp() / "labels.txt"
        path.write_text(str(rng.choice(["\n", "\r\n", " \n"])).join(lines))
        found = read_table(path, range(1, n_images + 1), range(1, n_attributes + 1), min_certainty)
        assert found.tolist() == [
            [
                bool(present[i, a]) and int(certainty[i, a]) >= min_certainty
                for a in range(n_attributes)
            ]
            for i in range(n_images)
        ]


def test_users_can_register_their_own_trait_sets(cub: CubTree) -> None:
    class FirstHalf(CUB200):
        pass

    class Nobody(TraitSet):
        pass

    @read_traits.register(FirstHalf)
    def _(trait_set: FirstHalf, site: Site) -> Labels:
        names = sorted(cub.names)
        y = np.arange(len(names))[:, None] < len(names) / 2
        return Labels(tuple(names), ("first half",), y)

    found = read_labels(FirstHalf(split="test", root=str(cub.root)), Site())
    assert found.traits == ("first half",)
    assert found.y[:, 0].tolist() == [n in sorted(cub.names)[:12] for n in found.images]
    with pytest.raises(
        SpecError, match=r"no reader is registered for Nobody: .*read_traits\.register"
    ):
        read_traits(Nobody(), Site())
