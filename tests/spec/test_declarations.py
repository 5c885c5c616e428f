"""Spec classes that would silently misbehave are refused when they are declared."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SerializeAsAny, ValidationError
from typing_extensions import TypeAliasType

import spec
from saevx.experiments.load import import_file
from spec import (
    CUB200,
    Artifact,
    CenterCrop,
    Exec,
    ImageFolder,
    ImageSet,
    ImgFocus,
    Keys,
    RandomInit,
    Resize,
    Scorer,
    Shards,
    Since,
    Site,
    Spec,
    SpecError,
    Squash,
    TraitSet,
    ViT,
    Weights,
    from_document,
    to_document,
)
from spec.keys.type_names import all_types, named_types
from spec.tree import build_tree

from ..saevx.cub_tree import make_cub

VIT = ViT(name="vit_small_patch14_dinov2", weights=RandomInit())


class Part(Artifact):
    kind: ClassVar = "checkpoints"
    n: int = 0


class Student(Spec):
    teacher: Part


class Whole(Artifact):
    kind: ClassVar = "results"
    parts: tuple[Part, ...] = ()
    named: dict[str, Part | int] = {}  # noqa: RUF012  (pydantic copies it)
    deep: list[tuple[Part, ...]] = []  # noqa: RUF012
    some: frozenset[Part] = frozenset()
    student: Student | None = None


def declare(annotation: Any, base: type[Spec] = Spec, name: str = "root") -> type[Spec]:
    return type("Odd", (base,), {"__annotations__": {name: annotation}, name: None})


@pytest.mark.parametrize("mark", [Exec(), Exec, Since(legacy=None), Since])
@pytest.mark.parametrize("base", [Spec, Artifact])
def test_nested_markers_are_refused(mark: Any, base: type[Spec]) -> None:
    name = "Exec" if mark in (Exec(), Exec) else "Since"
    for annotation in (
        Annotated[str, mark] | None,
        list[Annotated[str, mark]],
        dict[str, tuple[Annotated[int, mark], ...]] | None,
        Annotated[Annotated[str, mark] | None, "outer"],
    ):
        with pytest.raises(TypeError, match=rf"Odd\.root .*root: Annotated\[str \| None, {name}\("):
            declare(annotation, base)


def test_markers_are_found_in_aliases_and_signatures() -> None:
    Marked = TypeAliasType("Marked", Annotated[str, Exec()])
    for annotation in (Marked, list[Marked] | None, Callable[[Annotated[str, Exec()]], None]):
        with pytest.raises(TypeError, match=r"Odd\.root has Exec\(\) inside"):
            declare(annotation)


def test_an_outermost_marker_counts_and_since_needs_a_legacy_value() -> None:
    field = declare(Annotated[Annotated[str | None, Exec()], "note"]).model_fields["root"]
    assert Exec() in field.metadata
    with pytest.raises(TypeError, match=r"Odd\.root is marked Since: .*legacy=\.\.\."):
        declare(Annotated[str | None, Since])


def test_annotations_resolved_later_are_checked_later() -> None:
    class Early(Artifact):
        kind: ClassVar = "results"
        late: "Annotated[Late, Exec()] | None" = None

    class Late(Spec):
        pass

    Early.model_rebuild(_types_namespace={"Late": Late, "Annotated": Annotated, "Exec": Exec})
    with pytest.raises(TypeError, match=r"Early\.late has Exec\(\) inside"):
        Keys(Site()).of(Early())


@pytest.mark.parametrize("base", [Spec, Artifact, ImageSet])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("key", "computed from all fields"),
        ("kind", r"kind: ClassVar\[Kind\]"),
        ("version", r"version: ClassVar\[int\] = 2"),
        ("derived", r"would hide Artifact\.derived"),
        ("inputs", r"would hide Artifact\.inputs"),
        ("fingerprints", r"would hide (SpecModel|ImageSet)\.fingerprints"),
    ],
)
@pytest.mark.filterwarnings("ignore:Field name")
def test_reserved_names_cannot_be_fields(base: type[Spec], name: str, message: str) -> None:
    with pytest.raises(TypeError, match=rf"Odd\.{name} cannot be a field.*{message}"):
        declare(int | None, base, name)


@pytest.mark.filterwarnings("ignore:Field name")
def test_a_field_cannot_hide_an_attribute_of_its_base() -> None:
    with pytest.raises(TypeError, match=r"Odd\.listing cannot be a field: .*ImageSet\.listing"):
        declare(int | None, ImageSet, "listing")
    with pytest.raises(TypeError, match=r"Odd\.images cannot be a field: .*TraitSet\.images"):
        declare(int | None, TraitSet, "images")
    assert declare(int | None, Spec, "listing")(listing=3).listing == 3


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: Shards(images=ImageSet(), vit=VIT, layer=1),
            "ImageSet is abstract: .*ImageFolder",
        ),
        (lambda: Shards(images={}, vit=VIT, layer=1), "ImageSet is abstract"),
        (lambda: TraitSet(), "TraitSet is abstract: build one of .*CUB200, .*OpenMoji"),
        (
            lambda: Scorer(
                shards=Shards(images=ImageFolder(root="/x"), vit=VIT, layer=1),
            ),
            "Scorer is abstract: build one of .*RandomPrototypes",
        ),
        (
            lambda: ViT(name="vit", weights=Weights()),
            "Weights is abstract: build one of .*ImgFocus",
        ),
        (lambda: ViT(name="vit.x", resize=Resize(size=14)), "Resize is abstract: .*CenterCrop"),
        (lambda: Spec(), "Spec is abstract"),
        (lambda: Artifact(), "Artifact is abstract"),
    ],
)
def test_abstract_specs_cannot_be_built(build: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        build()


@pytest.mark.filterwarnings("ignore:Field name")  # pydantic's, of a name that is refused then
def test_a_class_that_was_refused_is_no_type() -> None:
    """It stays among the subclasses of its base until it is collected."""
    refused = []
    for body in (
        {"version": "2"},
        {"kind": "pictures", "__annotations__": {"kind": ClassVar}},
        {"__annotations__": {"key": str}},
        {"formerly": "old.Refused"},
    ):
        with pytest.raises(TypeError) as error:
            type("Refused", (Artifact,), {"__module__": __name__, **body})
        refused.append(error)  # its traceback keeps the class alive
    assert sum(found.__name__ == "Refused" for found in Artifact.__subclasses__()) == 4
    assert not [name for name in named_types() if "Refused" in name]
    assert "Refused" not in {found.__name__ for found in all_types()}
    with pytest.raises(ValidationError) as said:
        Artifact()
    assert "Refused" not in str(said.value)


def test_users_can_declare_abstract_specs_and_must_give_a_kind() -> None:
    class Base(Spec, abstract=True):
        n: int = 1

    class Concrete(Base):
        pass

    class NoKind(Artifact):
        pass

    assert Concrete().n == 1
    with pytest.raises(ValidationError, match="Base is abstract: build one of Concrete"):
        Base()
    with pytest.raises(ValidationError, match="NoKind has no kind: write `kind: ClassVar"):
        NoKind()


SMALL = "vit_small_patch14_dinov2"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"name": SMALL}, f"has no tag that names weights: add one, as in {SMALL}.lvd142m"),
        (
            {"name": f"{SMALL}.lvd142m", "weights": RandomInit()},
            f"tag for hub weights, but weights is RandomInit: use name='{SMALL}'",
        ),
        (
            {"name": "vit_base_patch14_dinov2", "weights": ImgFocus()},
            f"fit {SMALL}, not vit_base_patch14_dinov2",
        ),
        ({"name": SMALL, "weights": ImgFocus(), "resize": Squash(size=55)}, "14 px, such as 42"),
        ({"name": SMALL, "weights": ImgFocus(), "resize": Squash(size=9)}, "14 px, such as 14"),
    ],
)
def test_vits_whose_fields_do_not_fit_are_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(says)):
        ViT(**fields)


def test_vits_know_their_patches_where_their_name_includes_them() -> None:
    vit = ViT(name=f"{SMALL}.lvd142m", resize=CenterCrop())
    assert (vit.patch_size, vit.n_patches) == (14, 16 * 16)
    assert ViT(name=f"{SMALL}.lvd142m").n_patches is None, "timm knows the size"
    assert ViT(name=SMALL, weights=ImgFocus(), resize=Squash(size=42)).n_patches == 9
    unknown = ViT(name="test_vit", weights=RandomInit())
    assert (unknown.patch_size, unknown.n_patches) == (None, None)
    with pytest.raises(ValidationError, match="greater than 0"):
        RandomInit(layer_scale=0)


class TestInputs:
    def test_artifacts_are_found_anywhere_in_a_field(self) -> None:
        a, b, c = (Part(n=n) for n in range(3))
        whole = Whole(
            parts=(a, b), named={"x": c, "y": 3}, deep=[(a,), (b, c)], student=Student(teacher=b)
        )
        assert whole.inputs() == {
            "parts[0]": a,
            "parts[1]": b,
            "named.x": c,
            "deep[0][0]": a,
            "deep[1][0]": b,
            "deep[1][1]": c,
            "student.teacher": b,
        }
        assert [child.title for child in build_tree(whole, Keys(Site())).inputs][:2] == [
            "Part n=0",
            "Part n=1",
        ]

    def test_inputs_of_an_input_are_not_inputs(self) -> None:
        class Above(Artifact):
            kind: ClassVar = "results"
            whole: Whole

        whole = Whole(parts=(Part(n=1),))
        assert Above(whole=whole).inputs() == {"whole": whole}

    def test_sets_have_the_same_order_in_all_processes(self) -> None:
        code = (
            "from tests.spec.test_declarations import Part, Whole\n"
            "whole = Whole(some=frozenset(Part(n=n) for n in range(9)))\n"
            "print({name: part.n for name, part in whole.inputs().items()})"
        )
        here = Path(__file__).parents[2]
        run = [sys.executable, "-c", code]
        texts = {
            subprocess.run(
                run,
                env={"PYTHONHASHSEED": seed},
                cwd=here,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for seed in "12"
        }
        assert texts == {str({f"some[{n}]": n for n in range(9)}) + "\n"}

    def test_keys_and_documents_include_them(self) -> None:
        keys = Keys(Site())
        whole = Whole(parts=(Part(n=1),), named={"x": Part(n=2)})
        assert keys.of(whole) != keys.of(Whole(parts=(Part(n=3),), named={"x": Part(n=2)}))
        document = to_document(whole, keys)
        assert document["fields"]["parts"][0]["key"] == keys.of(Part(n=1))
        assert from_document(document) == whole


@pytest.mark.parametrize(
    "split", ["/etc", "..", "../../etc", "a/../../b", "train/..", ".", "./", "//", "train/", "./a"]
)
def test_a_split_is_the_name_of_a_folder_in_root(split: str) -> None:
    with pytest.raises(ValidationError, match=r"not the name of a folder in root|write '"):
        ImageFolder(root="/photos", split=split)


@pytest.mark.parametrize("split", ["train", "a/b", "..a", "x..y/z", ".hidden"])
def test_other_names_of_splits_are_accepted(split: str) -> None:
    assert ImageFolder(root="/photos", split=split).folder(Site()) == Path("/photos", split)


def test_names_refuse_values_without_json() -> None:
    from spec.keys.identity import portable_name

    with pytest.raises(SpecError, match=r"Odd\.root is a bytes"):
        portable_name(declare(Any)(root=b"x"))


class TestValues:
    def test_a_set_where_order_counts_is_refused(self) -> None:
        for names in ({"a", "b"}, frozenset("ab")):
            with pytest.raises(ValidationError, match="traits is a set, whose order differs"):
                CUB200(split="train", traits=names)  # type: ignore[arg-type]

        class Nested(Spec):
            grids: tuple[tuple[int, ...], ...]
            some: frozenset[int] = frozenset()

        with pytest.raises(ValidationError, match=r"grids\[1\] is a set"):
            Nested(grids=[(1,), {2, 3}])  # type: ignore[list-item]
        assert Nested(grids=((1,),), some={2, 3}).some == {2, 3}

    @given(st.integers(-(2**63), 2**63 - 1))
    def test_numpy_integers_keep_their_value(self, value: int) -> None:
        class Numbers(Spec):
            one: int
            many: tuple[int, ...] = ()
            named: dict[str, int] = {}  # noqa: RUF012  (pydantic copies it)

        number = np.int64(value)
        found = Numbers(one=number, many=[number], named={"x": number})
        assert (found.one, found.many, found.named) == (value, (value,), {"x": value})
        assert Keys(Site()).text(found) == Keys(Site()).text(
            Numbers(one=value, many=(value,), named={"x": value})
        )

    @pytest.mark.parametrize("value", [True, False, np.True_])
    def test_booleans_are_no_numbers(self, value: Any) -> None:
        with pytest.raises(ValidationError, match=r"layer is (True|False): write the number"):
            Shards(images=ImageFolder(root="/x"), vit=VIT, layer=value)
        with pytest.raises(ValidationError, match="layer_scale is"):
            RandomInit(layer_scale=value)

    def test_booleans_are_kept_where_they_are_expected(self) -> None:
        class Flags(Spec):
            flag: bool
            either: int | bool = 0
            anything: Any = None
            word: Literal[True, "auto"] = "auto"

        flags = Flags(flag=np.True_, either=True, anything=True, word=True)
        assert [flags.flag, flags.either, flags.anything, flags.word] == [True] * 4
        assert all(type(value) is bool for value in dict(flags).values())

    def test_a_copy_is_checked_like_a_new_spec(self) -> None:
        shards = Shards(images=ImageFolder(root="/x"), vit=VIT, layer=3)
        assert shards.model_copy(update={"layer": 4}) == Shards(
            images=ImageFolder(root="/x"), vit=VIT, layer=4
        )
        for update in ({"layer": "three"}, {"layer": True}, {"layr": 3}, {"vit": None}):
            with pytest.raises(ValidationError):
                shards.model_copy(update=update)


class TestVersions:
    def test_the_version_of_a_description_counts(self) -> None:
        class Seen(Artifact):
            kind: ClassVar = "results"
            lens: SerializeAsAny[Spec]

        def lens(number: int) -> Spec:
            class Lens(Spec):
                version: ClassVar[int] = number

            return Lens()

        assert Seen(lens=lens(1)).key == Seen(lens=lens(1)).key != Seen(lens=lens(2)).key

    def test_the_version_of_a_trait_set_counts(self, tmp_path: Path) -> None:
        cub = make_cub(tmp_path)
        before = Keys(Site()).text(CUB200(split="train", root=str(cub.root)))
        assert '"type":"CUB200","version":1}' in before

    @pytest.mark.parametrize("version", [0, -1, True, "2", 1.5])
    def test_versions_are_whole_numbers_from_one(self, version: Any) -> None:
        with pytest.raises(TypeError, match=r"version is .*; it must be 1, 2, 3"):
            type("Odd", (Spec,), {"version": version, "__annotations__": {"version": ClassVar}})


class TestNames:
    """Types that share a name, in modules of their own."""

    @staticmethod
    def declare(tmp_path: Path, stem: str, body: str = "", folder: str = "") -> type[Artifact]:
        file = tmp_path / folder / f"{stem}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(
            "from typing import ClassVar\nfrom spec import Artifact\n"
            "class KMeans(Artifact):\n"
            '    kind: ClassVar = "checkpoints"\n'
            f"{body}    k: int = 8\n"
        )
        found: type[Artifact] = import_file(file).KMeans
        return found

    def test_types_of_two_files_do_not_share_keys(self, tmp_path: Path) -> None:
        mine, theirs = (self.declare(tmp_path, stem) for stem in ("mine", "theirs"))
        assert mine().key != theirs().key
        assert to_document(mine(), Keys(Site()))["type"] == "mine.KMeans"

    def test_a_type_shaped_like_a_built_in_one_has_its_own_key(self) -> None:
        class HubWeights(Weights):
            pass

        ours = spec.HubWeights()
        assert Keys(Site()).text(HubWeights()) != Keys(Site()).text(ours)

    def test_a_namespace_replaces_the_name_of_the_file(self, tmp_path: Path) -> None:
        body = '    namespace: ClassVar = "lab.birds"\n'
        named = self.declare(tmp_path, "study", body)
        assert to_document(named(), Keys(Site()))["type"] == "lab.birds.KMeans"
        for namespace in ("", "a b", "a..b", 3):
            with pytest.raises(TypeError, match="must be a dotted name"):
                type("Odd", (Spec,), {"namespace": namespace})

    def test_a_type_that_moved_keeps_its_keys(self, tmp_path: Path) -> None:
        before = self.declare(tmp_path, "old")
        document, key = to_document(before(k=3), Keys(Site())), before(k=3).key
        moved = self.declare(tmp_path, "new", '    formerly = ("old.KMeans", "older.KMeans")\n')
        with pytest.raises(SpecError, match="two spec types are called"):
            _ = moved(k=3).key
        del before, sys.modules["saevx_experiment_old"]
        assert moved(k=3).key == key
        assert type(from_document(document)) is moved
        assert type(from_document({**document, "type": "older.KMeans"})) is moved
        assert self.declare(tmp_path, "newest")(k=3).key != key
        with pytest.raises(TypeError, match="must be a tuple of former names"):
            type("Odd", (Spec,), {"formerly": "old.KMeans"})

    def test_two_types_of_one_name_are_refused(self, tmp_path: Path) -> None:
        one = self.declare(tmp_path, "study", folder="a")
        other = self.declare(tmp_path, "study", folder="b")
        assert other().k == 8
        with pytest.raises(SpecError, match=r"two spec types are called study\.KMeans .*namespace"):
            _ = one().key
        named = [self.declare(tmp_path, s, '    namespace: ClassVar = "lab"\n') for s in "xy"]
        with pytest.raises(SpecError, match=r"are called lab\.KMeans .*_x.* and .*_y"):
            _ = named[0]().key

    def test_a_cell_that_runs_again_replaces_its_type(self, tmp_path: Path) -> None:
        before = self.declare(tmp_path, "study")().key
        assert self.declare(tmp_path, "study")().key == before

    @pytest.mark.parametrize(
        ("namespace", "printed"), [("", "is declared in a notebook"), ("lab", "lab.KMeans")]
    )
    def test_types_of_a_notebook_need_a_namespace(self, namespace: str, printed: str) -> None:
        code = (
            "from typing import ClassVar\nfrom spec import *\n"
            "class KMeans(Artifact):\n"
            "    kind: ClassVar = 'checkpoints'\n"
            f"    namespace: ClassVar = {namespace or None!r}\n"
            "try: print(to_document(KMeans(), Keys(Site())))\n"
            "except SpecError as error: print(error)\n"
        )
        here = Path(__file__).resolve().parents[2]
        ran = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=here
        )
        assert printed in ran.stdout
